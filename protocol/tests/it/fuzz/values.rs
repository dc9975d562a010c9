//! Random values of every control message.

use falcon_fuzz::{Rng, any_text};
use falcon_protocol::message::*;
use falcon_protocol::*;

/// Makes a random value.
pub(super) trait Any {
    fn any(random: &mut Rng) -> Self;
}

macro_rules! any {
    ($($name:ident { $($field:ident)* })*) => {
        $(impl Any for $name {
            fn any(_random: &mut Rng) -> Self {
                Self { $($field: Any::any(_random),)* }
            }
        })*
    };
    ($($name:ident($inner:ty))*) => {
        $(impl Any for $name {
            fn any(random: &mut Rng) -> Self {
                Self(<$inner>::any(random))
            }
        })*
    };
}

any! {
    Offset(u64)
    Partition(u32)
    ProducerId(u64)
    TopicId(u32)
    MemberId(u128)
    OwnerEpoch(u64)
}

any! {
    AlterTopic { name config partitions }
    BrokerAddress { broker_id address }
    CommitOffsets { group offsets }
    CommittedOffset { topic topic_id partition offset high_watermark note commit_time_ms }
    ConfigEntry { key value }
    CreateTopic { name partitions config }
    DeleteOffsets { group topic }
    DeleteTopic { name }
    DescribeTopic { name }
    Empty {}
    FetchOffsets { group topic }
    GroupPage { groups has_more }
    InitProducer { name }
    ListGroups { after rows_max }
    ListOffsets { topic_id queries }
    ListTopics { after rows_max }
    ListedOffset { partition offset log_start high_watermark }
    MetadataRequest { topics }
    MetadataResponse { brokers topics }
    OffsetCommit { topic_id partition offset note }
    OffsetQuery { partition at }
    PartitionDescription { partition log_start high_watermark bytes }
    PartitionMetadata { partition owner epoch }
    PartitionStart { partition start }
    ProducerGranted { producer_id epoch }
    Subscribe { topic_id partitions credit_bytes credit_records }
    Subscribed { partitions }
    SubscribedPartition { partition offset log_start high_watermark }
    TopicCreated { topic_id }
    TopicDescription { name topic_id created_ms config partitions }
    TopicMetadata { name topic_id partitions }
    TopicPage { topics has_more }
    TopicSummary { name topic_id partitions config }
    Unsubscribe { subscription }
    PublishAck { base_offset append_time_ms record_count is_duplicate }
    Fetch { partition offset bytes_max wait_ms }
    Credit { bytes_total records_total }
    Window { publish_window_bytes }
    PartitionId { topic partition }
    PublishHeader { partition timeout_ms }
    Producer { id epoch base_sequence }
}

any! {
    CommitOwned { group offsets }
    DeleteGroup { group is_forced }
    DescribeGroup { group after rows_max }
    GroupDescription { generation members has_more }
    GroupGrant { hold topic committed }
    GroupHold { partition epoch }
    GroupMember {
        member instance client address patterns assignor session_ms silent_ms partitions
    }
    GroupNews { sequence generation lost revoked granted }
    GroupPartition {
        topic partition standing progress committed log_start high_watermark lag_ms damaged
    }
    GroupPartitionPage { partitions has_more }
    GroupProgress { partition position activity since_ms }
    GroupReport { group member sequence seen holds progress }
    GroupSummary { group members offsets lag }
    GroupSummaryPage { groups has_more }
    JoinGroup { report instance patterns assignor session_ms }
    LeaveGroup { group member }
    ListGroupPartitions { group after rows_max }
    OwnedCommit { hold offset may_rewind note }
    ResetOffsets { group offsets is_forced }
    SummarizeGroups { after rows_max }
}

impl Any for AssignorKind {
    fn any(random: &mut Rng) -> Self {
        random
            .choice([Self::Sticky, Self::Range])
            .unwrap_or_default()
    }
}

impl Any for Activity {
    fn any(random: &mut Rng) -> Self {
        match random.u8(0..6) {
            0 => Self::Reading,
            1 => Self::Handling,
            2 => Self::Full,
            3 => Self::Paused,
            4 => Self::Damaged(Any::any(random), Any::any(random)),
            _ => Self::Failing(Any::any(random)),
        }
    }
}

impl Any for Standing {
    fn any(random: &mut Rng) -> Self {
        match random.u8(0..6) {
            0 => Self::Unwanted,
            1 => Self::Waiting {
                target: Any::any(random),
                for_ms: Any::any(random),
            },
            2 => Self::Fencing {
                since_ms: Any::any(random),
            },
            3 => Self::Granted {
                owner: Any::any(random),
                epoch: Any::any(random),
            },
            4 => Self::Held {
                owner: Any::any(random),
                epoch: Any::any(random),
            },
            _ => Self::GivingUp {
                owner: Any::any(random),
                target: Any::any(random),
                for_ms: Any::any(random),
            },
        }
    }
}

impl<A: Any, B: Any> Any for (A, B) {
    fn any(random: &mut Rng) -> Self {
        (A::any(random), B::any(random))
    }
}

impl Any for u128 {
    fn any(random: &mut Rng) -> Self {
        random.u128(..) >> random.u32(0..128)
    }
}

impl Any for StartPosition {
    fn any(random: &mut Rng) -> Self {
        match random.u8(0..5) {
            0 => Self::Earliest,
            1 => Self::Latest,
            2 => Self::Offset(Offset::any(random)),
            3 => Self::Timestamp(i64::any(random)),
            _ => Self::Last(u64::any(random)),
        }
    }
}

impl Any for u64 {
    fn any(random: &mut Rng) -> Self {
        random.u64(..) >> random.u32(0..64)
    }
}

impl Any for u32 {
    fn any(random: &mut Rng) -> Self {
        random.u32(..) >> random.u32(0..32)
    }
}

impl Any for u16 {
    fn any(random: &mut Rng) -> Self {
        random.u16(..) >> random.u32(0..16)
    }
}

impl Any for i64 {
    fn any(random: &mut Rng) -> Self {
        random.i64(..) >> random.u32(0..64)
    }
}

impl Any for bool {
    fn any(random: &mut Rng) -> Self {
        random.bool()
    }
}

impl Any for String {
    fn any(random: &mut Rng) -> Self {
        any_text(random, 200)
    }
}

impl<T: Any> Any for Option<T> {
    fn any(random: &mut Rng) -> Self {
        random.bool().then(|| T::any(random))
    }
}

impl<T: Any> Any for Vec<T> {
    fn any(random: &mut Rng) -> Self {
        let count = random.u8(0..4);
        (0..count).map(|_| T::any(random)).collect()
    }
}
