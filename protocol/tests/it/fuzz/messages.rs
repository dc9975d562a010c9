//! Bodies of requests and answers, laid out by hand or by bincode.

use bincode::error::DecodeError;
use bytes::{Bytes, BytesMut};
use falcon_fuzz::{Decoder, Family, Hints, Refusal, RoundTrip, refused};
use falcon_protocol::message::*;
use falcon_protocol::{Kind, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::step::{STEP, STEP_ACKS};
use super::values::Any;
use super::wire;

/// What serde reserves at most for a list before it has read an element.
const LIST_BYTES: u64 = 1 << 20;

const END: Refusal = refused("unexpected end", "");
const TRAILING: Refusal = refused("trailing", "");
const LIMIT: Refusal = refused("limit", "");
const TEXT: Refusal = refused("utf-8", "");
const TAG: Refusal = refused("tag", "");
const FIXED: &[Refusal] = &[END, TRAILING];
const TEXTS: &[Refusal] = &[END, TRAILING, LIMIT, TEXT];
const OPTIONS: &[Refusal] = &[END, TRAILING, LIMIT, TEXT, TAG];
const TAGS: &[Refusal] = &[END, TRAILING, TAG];

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of bincode are open-ended"
)]
fn message(error: MessageError) -> Refusal {
    match error {
        MessageError::Encode(error) => panic!("a decoder does not encode: {error}"),
        MessageError::TooLarge { .. } => refused("too large", ""),
        MessageError::Trailing { .. } => TRAILING,
        MessageError::Decode(error) => match error {
            DecodeError::UnexpectedEnd { .. } => END,
            DecodeError::LimitExceeded => LIMIT,
            DecodeError::Utf8 { .. } => TEXT,
            // The variant of an enum is serde's to judge.
            DecodeError::UnexpectedVariant { .. }
            | DecodeError::InvalidBooleanValue(_)
            | DecodeError::OtherString(_) => TAG,
            other => panic!("nobody knows this refusal: {other}"),
        },
    }
}

/// A control message; `lists` of them may stand in each other.
const fn control<T>(name: &'static str, lists: u64, expected: &'static [Refusal]) -> RoundTrip<T>
where
    T: Any + Serialize + DeserializeOwned,
{
    RoundTrip {
        expected,
        memory_bytes: 4096 + lists * LIST_BYTES,
        ..RoundTrip::new(
            name,
            T::any,
            |value, to| to.extend_from_slice(&encode(value).expect("it is small")),
            |bytes| decode(bytes).map_err(message),
        )
    }
}

macro_rules! control {
    ($($constant:ident $name:literal $type:ty, $lists:literal, $expected:expr;)*) => {
        $(static $constant: RoundTrip<$type> = control($name, $lists, $expected);)*
        static CONTROL: &[&dyn Decoder] = &[$(&$constant,)*];
    };
}

control! {
    METADATA_REQUEST "metadata-request" MetadataRequest, 1, OPTIONS;
    METADATA_RESPONSE "metadata-response" MetadataResponse, 2, TEXTS;
    CREATE_TOPIC "create-topic" CreateTopic, 1, OPTIONS;
    TOPIC_CREATED "topic-created" TopicCreated, 0, FIXED;
    DESCRIBE_TOPIC "describe-topic" DescribeTopic, 0, TEXTS;
    TOPIC_DESCRIPTION "topic-description" TopicDescription, 2, OPTIONS;
    LIST_TOPICS "list-topics" ListTopics, 0, OPTIONS;
    TOPIC_PAGE "topic-page" TopicPage, 2, OPTIONS;
    ALTER_TOPIC "alter-topic" AlterTopic, 1, OPTIONS;
    DELETE_TOPIC "delete-topic" DeleteTopic, 0, TEXTS;
    INIT_PRODUCER "init-producer" InitProducer, 0, OPTIONS;
    PRODUCER_GRANTED "producer-granted" ProducerGranted, 0, FIXED;
    SUBSCRIBE "subscribe" Subscribe, 1, TAGS;
    SUBSCRIBED "subscribed" Subscribed, 1, FIXED;
    UNSUBSCRIBE "unsubscribe" Unsubscribe, 0, FIXED;
    LIST_OFFSETS "list-offsets" ListOffsets, 1, TAGS;
    LISTED_OFFSETS "listed-offsets" Vec<ListedOffset>, 1, FIXED;
    COMMIT_OFFSETS "commit-offsets" CommitOffsets, 1, TEXTS;
    FETCH_OFFSETS "fetch-offsets" FetchOffsets, 0, OPTIONS;
    COMMITTED_OFFSETS "committed-offsets" Vec<CommittedOffset>, 1, TEXTS;
    LIST_GROUPS "list-groups" ListGroups, 0, OPTIONS;
    GROUP_PAGE "group-page" GroupPage, 1, OPTIONS;
    DELETE_OFFSETS "delete-offsets" DeleteOffsets, 0, OPTIONS;
    EMPTY "empty" Empty, 0, &[TRAILING];
    JOIN_GROUP "join-group" JoinGroup, 1, OPTIONS;
    GROUP_REPORT "group-report" GroupReport, 1, OPTIONS;
    GROUP_NEWS "group-news" GroupNews, 1, OPTIONS;
    LEAVE_GROUP "leave-group" LeaveGroup, 0, TEXTS;
    COMMIT_OWNED "commit-owned" CommitOwned, 1, OPTIONS;
    RESET_OFFSETS "reset-offsets" ResetOffsets, 1, OPTIONS;
    DELETE_GROUP "delete-group" DeleteGroup, 0, OPTIONS;
    SUMMARIZE_GROUPS "summarize-groups" SummarizeGroups, 0, OPTIONS;
    GROUP_SUMMARY_PAGE "group-summary-page" GroupSummaryPage, 1, OPTIONS;
    DESCRIBE_GROUP "describe-group" DescribeGroup, 0, OPTIONS;
    GROUP_DESCRIPTION "group-description" GroupDescription, 1, OPTIONS;
    LIST_GROUP_PARTITIONS "list-group-partitions" ListGroupPartitions, 0, OPTIONS;
    GROUP_PARTITION_PAGE "group-partition-page" GroupPartitionPage, 1, OPTIONS;
}

static PUBLISH_HEADER: RoundTrip<PublishHeader> = RoundTrip {
    expected: &[refused("truncated", "partition")],
    ..RoundTrip::new(
        "publish-header",
        PublishHeader::any,
        PublishHeader::encode,
        |mut bytes| PublishHeader::decode(&mut bytes).map_err(wire),
    )
};

static PUBLISH_ACK: RoundTrip<PublishAck> = RoundTrip {
    expected: &[TRAILING, refused("invalid", "duplicate")],
    ..RoundTrip::new(
        "publish-ack",
        PublishAck::any,
        PublishAck::encode,
        |bytes| PublishAck::decode(bytes).map_err(wire),
    )
};

static FETCH: RoundTrip<Fetch> = RoundTrip {
    expected: &[TRAILING, refused("truncated", "wait_ms")],
    ..RoundTrip::new(
        "fetch",
        Fetch::any,
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| Fetch::decode(bytes).map_err(wire),
    )
};

static CREDIT: RoundTrip<Credit> = RoundTrip {
    expected: &[TRAILING, refused("truncated", "records_total")],
    ..RoundTrip::new(
        "credit",
        Credit::any,
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| Credit::decode(bytes).map_err(wire),
    )
};

static WINDOW: RoundTrip<Window> = RoundTrip {
    expected: &[TRAILING, refused("truncated", "publish_window_bytes")],
    ..RoundTrip::new(
        "window",
        Window::any,
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| Window::decode(bytes).map_err(wire),
    )
};

static DELIVERY: RoundTrip<Delivery> = RoundTrip {
    expected: &[
        refused("invalid", "reserved"),
        refused("truncated", "high_watermark"),
    ],
    ..RoundTrip::new(
        "delivery",
        |random| Delivery {
            partition: Any::any(random),
            log_start: Any::any(random),
            high_watermark: Any::any(random),
            batches: super::batches::any_batch(random),
        },
        |value, to| {
            let mut head = BytesMut::new();
            value.encode_header(&mut head);
            to.extend_from_slice(&head);
            to.extend_from_slice(&value.batches);
        },
        |bytes| Delivery::decode(Bytes::copy_from_slice(bytes)).map_err(wire),
    )
};

pub(super) static HELLO_REQUEST: RoundTrip<HelloRequest> = RoundTrip {
    hints: Hints {
        fields: &[(0, 4), (24, 2)],
        values: &[
            limits::PEER_NAME_BYTES_MAX as u64,
            limits::CREDENTIAL_BYTES_MAX as u64,
        ],
    },
    expected: &[
        refused("invalid", "magic"),
        refused("invalid", "client"),
        refused("invalid", "credential"),
        refused("truncated", "client"),
        refused("truncated", "credential"),
    ],
    ..RoundTrip::new(
        "hello-request",
        |random| HelloRequest {
            version_min: Any::any(random),
            version_max: Any::any(random),
            frame_bytes_max: Any::any(random),
            codecs: Any::any(random),
            features: Any::any(random),
            client: Any::any(random),
            credential: (0..random.u8(0..9)).map(|_| random.u8(..)).collect(),
        },
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| HelloRequest::decode(bytes).map_err(wire),
    )
};

pub(super) static HELLO_RESPONSE: RoundTrip<HelloResponse> = RoundTrip {
    hints: Hints {
        fields: &[(0, 4), (56, 2)],
        values: &[limits::PEER_NAME_BYTES_MAX as u64],
    },
    expected: &[
        refused("invalid", "magic"),
        refused("invalid", "broker"),
        refused("truncated", "broker"),
        refused("truncated", "cluster"),
    ],
    ..RoundTrip::new(
        "hello-response",
        |random| HelloResponse {
            version: Any::any(random),
            frame_bytes_max: Any::any(random),
            batch_bytes_max: Any::any(random),
            publish_window_bytes: Any::any(random),
            requests_in_flight_max: Any::any(random),
            subscriptions_max: Any::any(random),
            heartbeat_ms: Any::any(random),
            idle_timeout_ms: Any::any(random),
            codecs: Any::any(random),
            features: Any::any(random),
            connection_id: Any::any(random),
            broker: Any::any(random),
            cluster: Any::any(random),
        },
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| HelloResponse::decode(bytes).map_err(wire),
    )
};

pub(super) static ERROR_BODY: RoundTrip<ErrorBody> = RoundTrip {
    hints: Hints {
        fields: &[(4, 4), (24, 2)],
        values: &[limits::ERROR_TEXT_BYTES_MAX as u64],
    },
    expected: &[refused("invalid", "text"), refused("truncated", "text")],
    ..RoundTrip::new(
        "error-body",
        |random| ErrorBody {
            retry_after_ms: Any::any(random),
            partition: Any::any(random),
            low: Any::any(random),
            high: Any::any(random),
            text: Any::any(random),
        },
        |value, to| to.extend_from_slice(&value.encode()),
        |bytes| ErrorBody::decode(bytes).map_err(wire),
    )
};

/// What reads the body of a frame of this kind: `None` where nobody looks into it.
pub(super) fn reader(kind: Kind, is_response: bool) -> Option<&'static dyn Decoder> {
    let (request, response): (Option<&dyn Decoder>, Option<&dyn Decoder>) = match kind {
        Kind::Hello => (Some(&HELLO_REQUEST), Some(&HELLO_RESPONSE)),
        Kind::Ping | Kind::Goodbye | Kind::Draining => (None, None),
        Kind::Window => (Some(&WINDOW), None),
        Kind::Metadata => (Some(&METADATA_REQUEST), Some(&METADATA_RESPONSE)),
        Kind::CreateTopic => (Some(&CREATE_TOPIC), Some(&TOPIC_CREATED)),
        Kind::DescribeTopic => (Some(&DESCRIBE_TOPIC), Some(&TOPIC_DESCRIPTION)),
        Kind::ListTopics => (Some(&LIST_TOPICS), Some(&TOPIC_PAGE)),
        Kind::AlterTopic => (Some(&ALTER_TOPIC), Some(&EMPTY)),
        Kind::DeleteTopic => (Some(&DELETE_TOPIC), Some(&EMPTY)),
        Kind::Publish => (Some(&PUBLISH_HEADER), Some(&PUBLISH_ACK)),
        Kind::InitProducer => (Some(&INIT_PRODUCER), Some(&PRODUCER_GRANTED)),
        Kind::Fetch => (Some(&FETCH), Some(&DELIVERY)),
        Kind::Subscribe => (Some(&SUBSCRIBE), Some(&SUBSCRIBED)),
        Kind::Deliver => (Some(&DELIVERY), None),
        Kind::Credit => (Some(&CREDIT), None),
        Kind::Unsubscribe => (Some(&UNSUBSCRIBE), Some(&EMPTY)),
        Kind::PartitionEnded => (Some(&ERROR_BODY), None),
        Kind::ListOffsets => (Some(&LIST_OFFSETS), Some(&LISTED_OFFSETS)),
        Kind::CommitOffsets => (Some(&COMMIT_OFFSETS), Some(&EMPTY)),
        Kind::FetchOffsets => (Some(&FETCH_OFFSETS), Some(&COMMITTED_OFFSETS)),
        Kind::ListGroups => (Some(&LIST_GROUPS), Some(&GROUP_PAGE)),
        Kind::DeleteOffsets => (Some(&DELETE_OFFSETS), Some(&EMPTY)),
        Kind::Step => (Some(&STEP), Some(&STEP_ACKS)),
        Kind::CommitOwned => (Some(&COMMIT_OWNED), Some(&EMPTY)),
        Kind::ResetOffsets => (Some(&RESET_OFFSETS), Some(&EMPTY)),
        Kind::DeleteGroup => (Some(&DELETE_GROUP), Some(&EMPTY)),
        Kind::JoinGroup => (Some(&JOIN_GROUP), Some(&GROUP_NEWS)),
        Kind::GroupReport => (Some(&GROUP_REPORT), Some(&GROUP_NEWS)),
        Kind::LeaveGroup => (Some(&LEAVE_GROUP), Some(&EMPTY)),
        Kind::SummarizeGroups => (Some(&SUMMARIZE_GROUPS), Some(&GROUP_SUMMARY_PAGE)),
        Kind::DescribeGroup => (Some(&DESCRIBE_GROUP), Some(&GROUP_DESCRIPTION)),
        Kind::ListGroupPartitions => (Some(&LIST_GROUP_PARTITIONS), Some(&GROUP_PARTITION_PAGE)),
    };
    if is_response { response } else { request }
}

#[test]
fn messages_survive_damage() {
    let laid: [&dyn Decoder; 8] = [
        &PUBLISH_HEADER,
        &PUBLISH_ACK,
        &FETCH,
        &DELIVERY,
        &CREDIT,
        &WINDOW,
        &STEP,
        &STEP_ACKS,
    ];
    let family = Family {
        name: "messages",
        command: "cargo test -p falcon-protocol --test it fuzz::messages::",
        decoders: &[&laid[..], CONTROL].concat(),
    };
    family.run();
}
