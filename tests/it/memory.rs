//! Memory stays bounded, whatever publishers and subscribers do.

use std::io::Write;

use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::{Broker, background};
use crate::peer::{Peer, batch, publish_frame};

const MIB: u64 = 1 << 20;
/// What the settings below add up to: in flight 8, cache 8, group and read buffers, index, answers,
/// deliveries, what the process has for itself. Pages of the program's file do not count: they grow with
/// the program, 23 MiB of a debug build, and not with what peers do. Ten times as much goes through.
const BOUND: u64 = 64 * MIB;

fn start() -> Broker {
    Broker::start_set(&[
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_TOTAL", "8MiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "6MiB"),
        ("FALCON_STORAGE_CACHE_BYTES", "8MiB"),
        ("FALCON_STORAGE_SEGMENT_BYTES", "32MiB"),
        ("FALCON_STORAGE_RETENTION_CHECK_MS", "100"),
    ])
}

fn keep(bytes: u64) -> Vec<ConfigEntry> {
    vec![ConfigEntry {
        key: "retention_bytes".into(),
        value: Some(bytes.to_string()),
    }]
}

/// Opens a subscription with endless credit that will never be read.
fn subscribe_and_stop_reading(broker: &Broker, topic: TopicId) -> Peer {
    let mut peer = Peer::connect(broker.socket_address());
    let start = PartitionStart {
        partition: Partition(0),
        start: StartPosition::Earliest,
    };
    let request = Subscribe {
        topic_id: topic,
        partitions: vec![start],
        credit_bytes: u64::MAX,
        credit_records: u64::MAX,
    };
    let answer = peer.ask(Kind::Subscribe, &request);
    assert_eq!(answer.error(), None);
    peer
}

#[test]
fn a_publisher_that_never_stops_and_subscribers_that_never_read_cost_bounded_memory() {
    let broker = start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("flood", 1, keep(128 * MIB));
    let _deaf: Vec<Peer> = (0..8)
        .map(|_| subscribe_and_stop_reading(&broker, topic))
        .collect();
    let frame_batch = batch(1024, 1000);
    let frames = 10 * BOUND / frame_batch.len() as u64 + 1;
    let mut acks = peer.socket.try_clone().expect("clones");
    // Never waits for an ack before the next batch; TCP alone slows it down.
    let sender = background(move || {
        let mut peer = peer;
        for correlation in 0..frames {
            let correlation = u32::try_from(correlation).expect("small");
            peer.publish(correlation, topic, &frame_batch);
        }
        peer
    });
    let mut ack_bytes = vec![0; 36];
    let mut peak = 0;
    for _ in 0..frames {
        std::io::Read::read_exact(&mut acks, &mut ack_bytes).expect("an ack");
        peak = peak.max(broker.anonymous_bytes());
    }
    drop(sender.join().expect("all sent"));
    assert!(
        peak < BOUND,
        "{} MiB of {} MiB allowed",
        peak / MIB,
        BOUND / MIB
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn a_peer_that_sends_requests_and_never_reads_answers_is_not_read_any_more() {
    let broker = start();
    let mut peer = Peer::connect(broker.socket_address());
    for name in 0..50 {
        peer.create_topic(
            &format!("topic-{name:03}-{}", "x".repeat(150)),
            1,
            Vec::new(),
        );
    }
    peer.socket
        .set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .expect("valid");
    let request = ListTopics {
        after: None,
        rows_max: 1000,
    };
    let frame = Frame::request(Kind::ListTopics, 1, encode(&request).expect("encodes")).to_bytes();
    let burst = frame.repeat(1000);
    let mut sent = 0_u64;
    let mut is_stopped = false;
    for _ in 0..1000 {
        if peer.socket.write_all(&burst).is_err() {
            is_stopped = true;
            break;
        }
        sent += burst.len() as u64;
    }
    assert!(
        is_stopped,
        "the broker read {sent} bytes of requests whose answers nobody took"
    );
    assert!(
        broker.anonymous_bytes() < BOUND,
        "{} MiB",
        broker.anonymous_bytes() / MIB
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn a_deaf_subscriber_slows_only_itself() {
    let broker = start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let _deaf = subscribe_and_stop_reading(&broker, topic);
    let mut reader = subscribe_and_stop_reading(&broker, topic);
    let sent = batch(1024, 1000);
    const FRAMES: u32 = 40;
    let mut records = 0;
    for correlation in 0..FRAMES {
        peer.send(&publish_frame(correlation, topic, &sent));
        assert_eq!(peer.receive().expect("an ack").error(), None);
    }
    while records < u64::from(FRAMES) * 1024 {
        let frame = reader.receive().expect("a delivery");
        assert_eq!(frame.header.kind, Kind::Deliver.number());
        let mut batches = Delivery::decode(frame.body).expect("valid").batches;
        while !batches.is_empty() {
            let batch = Batch::split_from(&mut batches).expect("whole");
            batch
                .verify_in(PartitionId {
                    topic,
                    partition: Partition(0),
                })
                .expect("intact");
            assert_eq!(batch.header().base_offset, Offset(records));
            records += u64::from(batch.header().record_count);
        }
    }
}

#[test]
fn fetches_that_ask_for_little_and_get_large_batches_stay_within_the_budget() {
    let broker = start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    peer.publish(1, topic, &batch(1, 1 << 20));
    assert_eq!(peer.receive().expect("an ack").error(), None);
    let partition = PartitionId {
        topic,
        partition: Partition(0),
    };
    let fetch = Fetch {
        partition,
        offset: Offset(0),
        bytes_max: 1,
        wait_ms: 0,
    };
    let mut burst = Vec::new();
    for correlation in 0..2_000 {
        let frame = Frame::request(Kind::Fetch, correlation, fetch.encode());
        burst.extend_from_slice(&frame.to_bytes());
    }
    peer.socket.write_all(&burst).expect("the broker reads");
    // Answered one after the other, as fast as they are read, and never many at a time.
    for _ in 0..2_000 {
        let answer = peer.receive().expect("an answer");
        assert_eq!(answer.error(), None);
        assert!(
            broker.anonymous_bytes() < BOUND,
            "{} MiB",
            broker.anonymous_bytes() / MIB
        );
    }
}
