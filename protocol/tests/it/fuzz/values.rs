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
