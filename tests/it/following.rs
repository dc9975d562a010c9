//! What subscriptions get at the end of a log, whoever sends it: all of it, once, in order, within the credit.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use falcon_protocol::message::*;
use falcon_protocol::*;
use fastrand::Rng;

use crate::broker::{Broker, background};
use crate::peer::{Peer, batch, publish_frame};

const PARTITIONS: u32 = 3;
const PUBLISHES: u32 = 600;

/// A publish frame for any partition.
fn publish_to(partition: u32, number: u32, topic: TopicId, batch: &[u8]) -> Frame {
    let frame = publish_frame(number, topic, batch);
    let mut head = bytes::BytesMut::new();
    let header = PublishHeader {
        partition: PartitionId {
            topic,
            partition: Partition(partition),
        },
        timeout_ms: 0,
    };
    header.encode(&mut head);
    let mut body = frame.body.to_vec();
    body[..head.len()].copy_from_slice(&head);
    Frame::request(Kind::Publish, number, body.into())
}

/// Subscribes to the end of all partitions.
fn subscribe(peer: &mut Peer, number: u32, topic: TopicId, credit: Credit) {
    let starts = (0..PARTITIONS).map(|partition| PartitionStart {
        partition: Partition(partition),
        start: StartPosition::Latest,
    });
    let request = Subscribe {
        topic_id: topic,
        partitions: starts.collect(),
        credit_bytes: credit.bytes_total,
        credit_records: credit.records_total,
    };
    let body = encode(&request).expect("encodes");
    peer.send(&Frame::request(Kind::Subscribe, number, body));
    assert_eq!(peer.receive().expect("an answer").error(), None);
}

/// What a subscription has got so far.
struct Got {
    topic: TopicId,
    next: Vec<Offset>,
    bytes: u64,
    records: u64,
}

impl Got {
    fn new(topic: TopicId) -> Self {
        Self {
            topic,
            next: vec![Offset::ZERO; PARTITIONS as usize],
            bytes: 0,
            records: 0,
        }
    }

    /// Takes a delivery, which must go on where the one before it ended.
    fn take(&mut self, frame: Frame) {
        assert_eq!(frame.header.kind, Kind::Deliver.number());
        let delivery = Delivery::decode(frame.body).expect("valid");
        self.bytes += delivery.batches.len() as u64;
        let partition = PartitionId {
            topic: self.topic,
            partition: delivery.partition,
        };
        let next = &mut self.next[delivery.partition.0 as usize];
        let mut rest = delivery.batches;
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest).expect("valid");
            batch.verify_in(partition).expect("as stored");
            assert_eq!(batch.header().base_offset, *next);
            self.records += batch.header().end_offset().since(*next);
            *next = batch.header().end_offset();
        }
    }
}

/// Reads `total` records as fast or slowly as `seed` says, with credit that runs out again and again.
fn read(address: SocketAddr, topic: TopicId, total: u64, seed: u64, ready: &AtomicU64) {
    let mut random = Rng::with_seed(seed);
    let mut peer = Peer::connect(address);
    let mut credit = Credit {
        bytes_total: 1,
        records_total: 1,
    };
    subscribe(&mut peer, 5, topic, credit);
    ready.fetch_add(1, Ordering::SeqCst);
    let mut got = Got::new(topic);
    while got.records < total {
        let frame = peer.receive().expect("a delivery");
        assert!(got.bytes < credit.bytes_total && got.records < credit.records_total);
        got.take(frame);
        let is_used_up = got.bytes >= credit.bytes_total || got.records >= credit.records_total;
        if is_used_up || random.u8(0..10) < 3 {
            let (bytes, records) = match random.u8(0..3) {
                0 => (1, 1),
                1 => (random.u64(1..30_000), random.u64(1..50)),
                _ => (1 << 20, 1 << 20),
            };
            credit = Credit {
                bytes_total: credit.bytes_total.max(got.bytes + bytes),
                records_total: credit.records_total.max(got.records + records),
            };
            peer.send(&Frame::request(Kind::Credit, 5, credit.encode()));
        }
        for _ in 0..random.u8(0..3) {
            std::thread::yield_now();
        }
    }
}

/// Publishes batches of all sizes to all partitions, one at a time or many at once, and follows them itself.
fn publish_all(peer: &mut Peer, topic: TopicId, seed: u64, sizes: &[(u32, usize)]) {
    let mut random = Rng::with_seed(seed);
    let mut got = Got::new(topic);
    let endless = Credit {
        bytes_total: u64::MAX,
        records_total: u64::MAX,
    };
    subscribe(peer, 1_000_000, topic, endless);
    let total: u64 = sizes.iter().map(|(count, _)| u64::from(*count)).sum();
    let (mut acked, mut sent) = (0, 0);
    while acked < sizes.len() || got.records < total {
        let burst = [1, 1, 1, 2, 5, 40][random.usize(0..6)];
        for (count, bytes) in sizes.iter().skip(sent).take(burst) {
            let partition = random.u32(0..PARTITIONS);
            let number = u32::try_from(sent).expect("few");
            peer.send(&publish_to(
                partition,
                number,
                topic,
                &batch(*count, *bytes),
            ));
            sent += 1;
        }
        while acked < sent || (sent == sizes.len() && got.records < total) {
            let frame = peer.receive().expect("an ack or a delivery");
            if frame.header.kind == Kind::Publish.number() {
                assert_eq!(frame.error(), None);
                assert_eq!(frame.header.correlation as usize, acked);
                acked += 1;
            } else {
                got.take(frame);
            }
        }
    }
}

fn sizes(seed: u64) -> Vec<(u32, usize)> {
    let mut random = Rng::with_seed(seed);
    let mut size = || match random.u8(0..10) {
        0 => (random.u32(1..4), random.usize(8_000..40_000)),
        1..4 => (random.u32(1..30), random.usize(1..500)),
        _ => (1, random.usize(1..300)),
    };
    (0..PUBLISHES).map(|_| size()).collect()
}

#[test]
fn everybody_gets_every_record_once_and_in_order_however_many_follow_and_however_fast() {
    for (readers, seed) in [(1, 1), (2, 2), (3, 3), (9, 4), (1, 5)] {
        let broker = Broker::start();
        let address = broker.socket_address();
        let mut peer = Peer::connect(address);
        let topic = peer.create_topic("followed", PARTITIONS, Vec::new());
        let sizes = sizes(seed);
        let total = sizes.iter().map(|(count, _)| u64::from(*count)).sum();
        let ready = Arc::new(AtomicU64::new(0));
        let threads = (0..readers).map(|reader| {
            let ready = Arc::clone(&ready);
            background(move || read(address, topic, total, seed * 100 + reader, &ready))
        });
        let threads: Vec<_> = threads.collect();
        while ready.load(Ordering::SeqCst) < readers {
            std::thread::yield_now();
        }
        publish_all(&mut peer, topic, seed, &sizes);
        for thread in threads {
            let read = thread.join();
            assert!(read.is_ok(), "with {readers} readers, seed {seed}");
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_gets_all_of_it_later() {
    let broker = Broker::start();
    let mut slow = Peer::connect(broker.socket_address());
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("followed", PARTITIONS, Vec::new());
    let endless = Credit {
        bytes_total: u64::MAX,
        records_total: u64::MAX,
    };
    subscribe(&mut slow, 5, topic, endless);
    // More than the sockets take.
    let records = batch(1, 12_000);
    for number in 0..1_500 {
        peer.send(&publish_to(number % PARTITIONS, number, topic, &records));
        assert_eq!(peer.receive().expect("an ack").error(), None);
    }
    let mut got = Got::new(topic);
    while got.records < 1_500 {
        got.take(slow.receive().expect("a delivery"));
    }
}

#[test]
fn nothing_is_delivered_behind_the_answer_that_ends_a_subscription_or_behind_its_topic() {
    let broker = Broker::start();
    let address = broker.socket_address();
    let mut peer = Peer::connect(address);
    let topic = peer.create_topic("followed", PARTITIONS, Vec::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = background({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut peer = Peer::connect(address);
            for number in 0.. {
                peer.send(&publish_to(
                    number % PARTITIONS,
                    number,
                    topic,
                    &batch(1, 100),
                ));
                let answer = peer.receive().expect("an answer");
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                assert_eq!(answer.error(), None);
            }
        }
    });
    let endless = Credit {
        bytes_total: u64::MAX,
        records_total: u64::MAX,
    };
    for number in 5..45 {
        let mut got = HashMap::new();
        subscribe(&mut peer, number, topic, endless);
        let mut follow = |peer: &mut Peer, until: usize| {
            for _ in 0..until {
                let frame = peer.receive().expect("a frame");
                if frame.header.kind != Kind::Deliver.number() {
                    return Some(frame);
                }
                assert_eq!(frame.header.correlation, number);
                let delivery = Delivery::decode(frame.body).expect("valid");
                let mut rest = delivery.batches;
                while !rest.is_empty() {
                    let batch = Batch::split_from(&mut rest).expect("valid");
                    let next = got
                        .entry(delivery.partition)
                        .or_insert(batch.header().base_offset);
                    assert_eq!(batch.header().base_offset, *next);
                    *next = batch.header().end_offset();
                }
            }
            None
        };
        assert_eq!(follow(&mut peer, 20), None);
        let end = Unsubscribe {
            subscription: number,
        };
        let body = encode(&end).expect("encodes");
        peer.send(&Frame::request(Kind::Unsubscribe, 1_000 + number, body));
        let answer = follow(&mut peer, usize::MAX).expect("an answer");
        assert_eq!(answer.header.kind, Kind::Unsubscribe.number());
        assert_eq!(answer.error(), None);
        // The next frame would be a delivery if there were one more.
        let rows = ListTopics {
            after: None,
            rows_max: 1,
        };
        assert_eq!(peer.ask(Kind::ListTopics, &rows).error(), None);
    }
    subscribe(&mut peer, 99, topic, endless);
    let first = peer.receive().expect("a delivery");
    assert_eq!(first.header.kind, Kind::Deliver.number());
    is_over.store(true, Ordering::SeqCst);
    let mut other = Peer::connect(address);
    let name = DeleteTopic {
        name: "followed".into(),
    };
    assert_eq!(other.ask(Kind::DeleteTopic, &name).error(), None);
    let mut ended = [false; PARTITIONS as usize];
    while ended.contains(&false) {
        let frame = peer.receive().expect("a delivery or an end");
        if frame.header.kind == Kind::Deliver.number() {
            let delivery = Delivery::decode(frame.body).expect("valid");
            assert!(!ended[delivery.partition.0 as usize]);
        } else {
            assert_eq!(frame.header.kind, Kind::PartitionEnded.number());
            let body = ErrorBody::decode(&frame.body).expect("valid");
            ended[body.partition.expect("one").0 as usize] = true;
        }
    }
    publishing.join().expect("it ends");
}
