//! Peers that make the broker keep things for them: it keeps little, and nothing that others wait for.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::peer::{Peer, batch, publish_frame};

const MIB: u64 = 1 << 20;
const BOUND: u64 = 80 * MIB;

fn start(stall_ms: &str) -> Broker {
    Broker::start_set(&[
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_TOTAL", "8MiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "6MiB"),
        ("FALCON_STORAGE_CACHE_BYTES", "2MiB"),
        ("FALCON_TIMEOUTS_STALL_MS", stall_ms),
        // A peer gives up after ten seconds in which nothing comes at all.
        ("FALCON_TIMEOUTS_HEARTBEAT_MS", "60s"),
        ("FALCON_TIMEOUTS_IDLE_MS", "120s"),
    ])
}

fn assert_bounded(broker: &Broker) {
    let peak = broker.peak_rss_bytes();
    assert!(
        peak < BOUND,
        "{} MiB of {} allowed",
        peak / MIB,
        BOUND / MIB
    );
}

/// Sends almost all of a large publish, as far as it is read.
fn stop_inside_a_body(broker: &Broker, topic: TopicId) -> Peer {
    let mut peer = Peer::connect(broker.socket_address());
    let frame = publish_frame(1, topic, &batch(3, 1 << 19)).to_bytes();
    let patience = Some(Duration::from_millis(200));
    peer.socket.set_write_timeout(patience).expect("valid");
    // What waits for room is not read, and then this takes too long.
    let _waits = peer.socket.write_all(&frame[..frame.len() - 1_000]);
    peer
}

#[test]
fn a_connection_keeps_no_memory_of_its_largest_batch() {
    let broker = start("30s");
    let mut damaged = batch(3, 1 << 20).to_vec();
    damaged[1_000] ^= 1;
    let mut peers = Vec::new();
    for number in 0..50 {
        let mut peer = Peer::connect(broker.socket_address());
        peer.publish(1, TopicId(1), &damaged);
        // Half of them begin another frame.
        let begun: &[u8] = if number % 2 == 0 { &[0] } else { &[] };
        peer.socket.write_all(begun).expect("sent");
        let answer = peer.receive().expect("an answer");
        assert_eq!(answer.error(), Some(ErrorCode::CorruptBatch));
        peers.push(peer);
    }
    assert_bounded(&broker);
}

#[test]
fn lookups_whose_answers_nobody_reads_are_not_read_any_more() {
    let broker = start("30s");
    let mut peer = Peer::connect(broker.socket_address());
    let topic_id = peer.create_topic("t", 4096, Vec::new());
    let queries = (0..4096).map(|partition| OffsetQuery {
        partition: Partition(partition),
        at: StartPosition::Latest,
    });
    let request = ListOffsets {
        topic_id,
        queries: queries.collect(),
    };
    let body = encode(&request).expect("encodes");
    let frame = Frame::request(Kind::ListOffsets, 1, body).to_bytes();
    let patience = Some(Duration::from_millis(500));
    peer.socket.set_write_timeout(patience).expect("valid");
    let mut sent = 0;
    let stopped = (0..3_000).find_map(|_| {
        sent += frame.len();
        peer.socket.write_all(&frame).err()
    });
    let stopped = stopped.map(|error| error.kind());
    assert_eq!(stopped, Some(ErrorKind::WouldBlock), "{sent} bytes");
    assert_bounded(&broker);
}

#[test]
fn peers_that_stop_inside_bodies_keep_nothing_from_those_that_do_not() {
    let broker = start("60s");
    let mut prompt = Peer::connect(broker.socket_address());
    let topic = prompt.create_topic("t", 1, Vec::new());
    let large = batch(3, 100_000);
    prompt.publish(1, topic, &large);
    assert_eq!(prompt.receive().expect("an ack").error(), None);
    let _stuck: Vec<Peer> = (0..8).map(|_| stop_inside_a_body(&broker, topic)).collect();
    prompt.publish(2, topic, &large);
    assert_eq!(prompt.receive().expect("an ack").error(), None);
}

#[test]
fn a_newcomer_with_a_large_body_waits_briefly_for_those_that_stopped() {
    let broker = start("60s");
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let mut stuck: Vec<Peer> = (0..3).map(|_| stop_inside_a_body(&broker, topic)).collect();
    peer.publish(2, topic, &batch(3, 100_000));
    assert_eq!(peer.receive().expect("an ack").error(), None);
    let first = stuck.first_mut().and_then(Peer::receive);
    let code = first.and_then(|frame| frame.error());
    assert_eq!(code, Some(ErrorCode::StallTimeout));
}

#[test]
fn a_batch_larger_than_half_of_all_publishes_may_hold_is_taken() {
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_TOTAL", "5MiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "5MiB"),
        ("FALCON_TIMEOUTS_QUEUE_MS", "1s"),
    ]);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    peer.publish(1, topic, &batch(3, 1 << 20));
    assert_eq!(peer.receive().expect("an ack").error(), None);
}

#[test]
fn what_grows_when_it_is_decoded_is_refused_before() {
    let broker = start("30s");
    let mut peer = Peer::connect(broker.socket_address());
    let entry = ConfigEntry {
        key: String::new(),
        value: None,
    };
    let request = CreateTopic {
        name: "t".into(),
        partitions: 1,
        config: vec![entry; 400_000],
    };
    let answer = peer.ask(Kind::CreateTopic, &request);
    assert_eq!(answer.error(), Some(ErrorCode::InvalidTopicConfig));
    let body = ErrorBody::decode(&answer.body).expect("an error body");
    assert_eq!(body.low, 64 * 1024);
}

#[test]
fn a_group_whose_offsets_fit_no_answer_is_read_topic_by_topic() {
    let broker = start("30s");
    let mut peer = Peer::connect(broker.socket_address());
    for name in ["a", "b", "c", "d"] {
        let topic_id = peer.create_topic(name, 4096, Vec::new());
        let offsets = (0..4096).map(|partition| OffsetCommit {
            topic_id,
            partition: Partition(partition),
            offset: Offset(0),
            note: "n".repeat(256),
        });
        let request = CommitOffsets {
            group: "g".into(),
            offsets: offsets.collect(),
        };
        assert_eq!(peer.ask(Kind::CommitOffsets, &request).error(), None);
    }
    let mut fetch = |topic: Option<&str>| -> (Option<ErrorCode>, Bytes) {
        let request = FetchOffsets {
            group: "g".into(),
            topic: topic.map(str::to_owned),
        };
        let answer = peer.ask(Kind::FetchOffsets, &request);
        (answer.error(), answer.body)
    };
    let (code, body) = fetch(Some("b"));
    assert_eq!(code, None);
    let offsets: Vec<CommittedOffset> = decode(&body).expect("valid");
    assert_eq!(offsets.len(), 4096);
    assert_eq!(fetch(None).0, Some(ErrorCode::FrameTooLarge));
}

fn fetch(correlation: u32, topic: TopicId, bytes_max: u32) -> Frame {
    let fetch = Fetch {
        partition: PartitionId {
            topic,
            partition: Partition(0),
        },
        offset: Offset(0),
        bytes_max,
        wait_ms: 0,
    };
    Frame::request(Kind::Fetch, correlation, fetch.encode())
}

fn lookup(correlation: u32, topic_id: TopicId) -> Frame {
    let query = OffsetQuery {
        partition: Partition(0),
        at: StartPosition::Earliest,
    };
    let request = ListOffsets {
        topic_id,
        queries: vec![query],
    };
    let body = encode(&request).expect("encodes");
    Frame::request(Kind::ListOffsets, correlation, body)
}

/// A consumer with many partitions does this: fetches that want all of the delivery budget wait for each
/// other, and a lookup of a new partition's start comes between them.
#[test]
fn lookups_between_fetches_of_the_whole_budget_hold_nothing_up() {
    let broker = start("30s");
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    peer.publish(1, topic, &batch(3, 1_000));
    assert_eq!(peer.receive().expect("an ack").error(), None);
    let mut open = std::collections::BTreeSet::new();
    let mut frames = Vec::new();
    for correlation in 1..=2_000 {
        let frame = match correlation % 10 {
            0 => lookup(correlation, topic),
            _ => fetch(correlation, topic, u32::MAX),
        };
        frames.extend_from_slice(&frame.to_bytes());
        open.insert(correlation);
    }
    let mut socket = peer.socket.try_clone().expect("another handle");
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || socket.write_all(&frames));
        while !open.is_empty() {
            let answer = peer.receive().expect("an answer");
            assert_eq!(answer.error(), None);
            assert!(open.remove(&answer.header.correlation), "answered twice");
        }
        sender.join().expect("it ends").expect("all is read");
    });
}

/// Subscriptions that may have little, from the middle of what is published at once: each gets one batch of a large
/// commit group, and none is ever read.
#[test]
fn a_deaf_peer_with_many_subscriptions_does_not_keep_the_groups_of_their_batches() {
    const BATCHES: u32 = 150;
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_TOTAL", "8MiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "6MiB"),
        ("FALCON_LIMITS_DELIVERY_BYTES_PER_CONNECTION", "16MiB"),
        ("FALCON_STORAGE_CACHE_BYTES", "2MiB"),
        ("FALCON_TIMEOUTS_STALL_MS", "120s"),
        ("FALCON_TIMEOUTS_HEARTBEAT_MS", "60s"),
        ("FALCON_TIMEOUTS_IDLE_MS", "120s"),
    ]);
    let mut peer = Peer::connect(broker.socket_address());
    let mut deaf = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let part = batch(1, 18 << 10);
    for round in 0..64 {
        // The first ones fill what the system keeps of a connection.
        let (middle, credit_bytes) = match round {
            0..4 => (0, 2 * MIB),
            _ => (
                round * u64::from(BATCHES) + u64::from(BATCHES) / 2,
                19 << 10,
            ),
        };
        let start = PartitionStart {
            partition: Partition(0),
            start: StartPosition::Offset(Offset(middle)),
        };
        let subscribe = Subscribe {
            topic_id: topic,
            partitions: vec![start],
            credit_bytes,
            credit_records: u64::MAX,
        };
        let body = encode(&subscribe).expect("encodes");
        let number = u32::try_from(round).expect("small") + 10;
        let frame = Frame::request(Kind::Subscribe, number, body);
        let mut burst = Vec::new();
        for correlation in 1..=BATCHES {
            let frame = publish_frame(correlation, topic, &part);
            burst.extend_from_slice(&frame.to_bytes());
        }
        peer.socket.write_all(&burst).expect("the broker reads");
        for _ in 0..BATCHES {
            assert_eq!(peer.receive().expect("an ack").error(), None);
        }
        deaf.send(&frame);
    }
    assert_bounded(&broker);
}
