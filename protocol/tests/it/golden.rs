//! The bytes of version 1 never change: every message is compared with a file kept for ever.
//!
//! `FALCON_WRITE_GOLDEN=1 cargo test -p falcon-protocol golden` writes files that are missing; it
//! never replaces one.

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::*;
use falcon_protocol::*;

mod groups;

fn compare(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if !path.exists() && std::env::var_os("FALCON_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see this file's head", path.display()));
    assert_eq!(golden, bytes, "{name} differs from version 1");
}

fn control<T>(name: &str, message: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + core::fmt::Debug,
{
    let bytes = encode(message).unwrap();
    compare(&format!("{name}.bin"), &bytes);
    assert_eq!(&decode::<T>(&bytes).unwrap(), message);
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn entry() -> ConfigEntry {
    ConfigEntry {
        key: text("retention_bytes"),
        value: Some(text("1024")),
    }
}

#[test]
fn handshake_and_errors() {
    let request = HelloRequest {
        version_min: 1,
        version_max: 2,
        frame_bytes_max: 0x0102_0304,
        codecs: 7,
        features: 0,
        client: text("golden/1"),
        credential: vec![9, 8, 7],
    };
    compare("hello_request.bin", &request.encode());
    assert_eq!(HelloRequest::decode(&request.encode()), Ok(request));
    let response = HelloResponse {
        version: 1,
        frame_bytes_max: 1,
        batch_bytes_max: 2,
        publish_window_bytes: 3,
        requests_in_flight_max: 4,
        subscriptions_max: 5,
        heartbeat_ms: 6,
        idle_timeout_ms: 7,
        codecs: 8,
        features: 9,
        connection_id: 10,
        broker: text("falcon/0.1.0"),
        cluster: text("c1"),
    };
    compare("hello_response.bin", &response.encode());
    assert_eq!(HelloResponse::decode(&response.encode()), Ok(response));
    let error = ErrorBody {
        retry_after_ms: 250,
        partition: Some(Partition(3)),
        low: 10,
        high: 20,
        text: text("why"),
    };
    compare("error_body.bin", &error.encode());
    assert_eq!(ErrorBody::decode(&error.encode()), Ok(error));
}

#[test]
fn frames_and_the_data_path() {
    let frame = Frame::refusal(
        Kind::Publish,
        0xdead_beef,
        ErrorCode::QueueFull,
        Bytes::new(),
    );
    compare("frame_refusal.bin", &frame.to_bytes());
    let mut out = BytesMut::new();
    PublishHeader {
        partition: PartitionId::new(1, 2),
        timeout_ms: 3,
    }
    .encode(&mut out);
    compare("publish_header.bin", &out);
    let mut out = BytesMut::new();
    let ack = PublishAck {
        base_offset: Offset(1),
        append_time_ms: 2,
        record_count: 3,
        is_duplicate: true,
    };
    ack.encode(&mut out);
    compare("publish_ack.bin", &out);
    assert_eq!(PublishAck::decode(&out), Ok(ack));
    let partition = PartitionId::new(1, 2);
    let fetch = Fetch {
        partition,
        offset: Offset(3),
        bytes_max: 4,
        wait_ms: 5,
    };
    compare("fetch.bin", &fetch.encode());
    let mut out = BytesMut::new();
    let delivery = Delivery {
        partition: Partition(1),
        log_start: Offset(2),
        high_watermark: Offset(3),
        batches: Bytes::new(),
    };
    delivery.encode_header(&mut out);
    compare("deliver_header.bin", &out);
    assert_eq!(Delivery::decode(out.freeze()), Ok(delivery));
    compare(
        "credit.bin",
        &Credit {
            bytes_total: 1,
            records_total: 2,
        }
        .encode(),
    );
    compare(
        "window.bin",
        &Window {
            publish_window_bytes: 5,
        }
        .encode(),
    );
}

#[test]
fn record_batches() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(codec, 1 << 16);
        let records = [
            Record::new("x".repeat(64)).key("k").timestamp_ms(1_000),
            Record::new("x".repeat(64))
                .header("h", "v")
                .timestamp_ms(999),
            Record::tombstone("gone").timestamp_ms(2_000),
        ];
        for record in &records {
            builder.push(record, 0).unwrap();
        }
        let producer = Producer {
            id: ProducerId(5),
            epoch: 6,
            base_sequence: 7,
        };
        let batch = Batch::from_bytes(builder.build(producer).unwrap()).unwrap();
        let partition = PartitionId::new(1, 2);
        let stamp = Stamp {
            partition,
            base_offset: Offset(100),
            append_time_ms: 50,
            epoch: 3,
        };
        let batch = batch.stamped(&stamp).unwrap();
        let name = format!("batch_{}.bin", codec.name());
        if codec == Codec::None {
            compare(&name, batch.bytes());
        }
        // Compressors may find shorter encodings some day; what they wrote must stay readable.
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(&name);
        if !path.exists() && std::env::var_os("FALCON_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, batch.bytes()).unwrap();
        }
        let golden = Batch::from_bytes(Bytes::from(std::fs::read(&path).unwrap())).unwrap();
        golden.verify_in(partition).unwrap();
        assert_eq!(golden.header().codec, codec);
        let back: Vec<_> = golden.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(back.len(), 3);
        for (index, (view, record)) in back.iter().zip(&records).enumerate() {
            assert_eq!(view.offset, Offset(100 + index as u64));
            assert_eq!((&view.key, &view.value), (&record.key, &record.value));
            assert_eq!(Some(view.timestamp_ms), record.timestamp_ms);
        }
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of messages")]
fn topic_messages() {
    control("empty", &Empty {});
    control(
        "metadata_request",
        &MetadataRequest {
            topics: Some(vec![text("a"), text("b")]),
        },
    );
    let partitions = vec![PartitionMetadata {
        partition: Partition(0),
        owner: 1,
        epoch: 2,
    }];
    control(
        "metadata_response",
        &MetadataResponse {
            brokers: vec![BrokerAddress {
                broker_id: 1,
                address: text("127.0.0.1:7420"),
            }],
            topics: vec![TopicMetadata {
                name: text("a"),
                topic_id: TopicId(7),
                partitions,
            }],
        },
    );
    control(
        "create_topic",
        &CreateTopic {
            name: text("a"),
            partitions: 3,
            config: vec![entry()],
        },
    );
    control(
        "topic_created",
        &TopicCreated {
            topic_id: TopicId(7),
        },
    );
    control("describe_topic", &DescribeTopic { name: text("a") });
    control(
        "topic_description",
        &TopicDescription {
            name: text("a"),
            topic_id: TopicId(7),
            created_ms: 8,
            config: vec![entry()],
            partitions: vec![PartitionDescription {
                partition: Partition(0),
                log_start: Offset(1),
                high_watermark: Offset(2),
                bytes: 3,
            }],
        },
    );
    control(
        "list_topics",
        &ListTopics {
            after: None,
            rows_max: 10,
        },
    );
    let summary = TopicSummary {
        name: text("a"),
        topic_id: TopicId(7),
        partitions: 3,
        config: vec![],
    };
    control(
        "topic_page",
        &TopicPage {
            topics: vec![summary],
            has_more: true,
        },
    );
    let reset = ConfigEntry {
        key: text("retention_age_ms"),
        value: None,
    };
    control(
        "alter_topic",
        &AlterTopic {
            name: text("a"),
            config: vec![reset],
            partitions: Some(4),
        },
    );
    control("delete_topic", &DeleteTopic { name: text("a") });
    control(
        "init_producer",
        &InitProducer {
            name: Some(text("p")),
        },
    );
    control(
        "producer_granted",
        &ProducerGranted {
            producer_id: ProducerId(9),
            epoch: 1,
        },
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of messages")]
fn subscription_and_offset_messages() {
    let starts = [
        StartPosition::Earliest,
        StartPosition::Latest,
        StartPosition::Offset(Offset(5)),
        StartPosition::Timestamp(-6),
        StartPosition::Last(7),
    ];
    let partitions = starts
        .iter()
        .zip(0..)
        .map(|(start, partition)| PartitionStart {
            partition: Partition(partition),
            start: *start,
        });
    control(
        "subscribe",
        &Subscribe {
            topic_id: TopicId(7),
            partitions: partitions.collect(),
            credit_bytes: 1,
            credit_records: u64::MAX,
        },
    );
    control(
        "subscribed",
        &Subscribed {
            partitions: vec![SubscribedPartition {
                partition: Partition(0),
                offset: Offset(1),
                log_start: Offset(0),
                high_watermark: Offset(2),
            }],
        },
    );
    control("unsubscribe", &Unsubscribe { subscription: 4 });
    let query = OffsetQuery {
        partition: Partition(0),
        at: StartPosition::Latest,
    };
    control(
        "list_offsets",
        &ListOffsets {
            topic_id: TopicId(7),
            queries: vec![query],
        },
    );
    control(
        "listed_offsets",
        &vec![ListedOffset {
            partition: Partition(0),
            offset: Offset(1),
            log_start: Offset(0),
            high_watermark: Offset(2),
        }],
    );
    control(
        "commit_offsets",
        &CommitOffsets {
            group: text("g"),
            offsets: vec![OffsetCommit {
                topic_id: TopicId(7),
                partition: Partition(1),
                offset: Offset(2),
                note: text("n"),
            }],
        },
    );
    control(
        "fetch_offsets",
        &FetchOffsets {
            group: text("g"),
            topic: None,
        },
    );
    control(
        "committed_offsets",
        &vec![CommittedOffset {
            topic: text("a"),
            topic_id: TopicId(7),
            partition: Partition(1),
            offset: Offset(2),
            high_watermark: Offset(3),
            note: text("n"),
            commit_time_ms: 4,
        }],
    );
    control(
        "list_groups",
        &ListGroups {
            after: Some(text("f")),
            rows_max: 10,
        },
    );
    control(
        "group_page",
        &GroupPage {
            groups: vec![text("g")],
            has_more: false,
        },
    );
    control(
        "delete_offsets",
        &DeleteOffsets {
            group: text("g"),
            topic: Some(text("a")),
        },
    );
}
