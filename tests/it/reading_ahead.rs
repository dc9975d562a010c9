//! What a subscription reads ahead: in order, within its credit, through a budget that is too small for it, and
//! up to damage.

use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::folder::{flip, segment};
use crate::peer::{Peer, batch, publish_frame};

const BATCHES: u32 = 40;
const RECORDS: u32 = 200;

fn publish(peer: &mut Peer, topic: TopicId, partition: u32, records: &[u8]) {
    let mut frame = publish_frame(7, topic, records);
    let mut body = frame.body.to_vec();
    let header = PublishHeader {
        partition: PartitionId {
            topic,
            partition: Partition(partition),
        },
        timeout_ms: 0,
    };
    let mut head = bytes::BytesMut::new();
    header.encode(&mut head);
    body[..head.len()].copy_from_slice(&head);
    frame.body = body.into();
    peer.send(&frame);
    assert_eq!(peer.receive().expect("an ack").error(), None);
}

/// The next frames would be deliveries if there were more.
fn expect_nothing(peer: &mut Peer) {
    for _ in 0..10 {
        let rows = ListTopics {
            after: None,
            rows_max: 1,
        };
        assert_eq!(peer.ask(Kind::ListTopics, &rows).error(), None);
    }
}

/// A broker that has next to nothing in memory, and a topic of so many partitions with all batches in each.
fn filled(partitions: u32, budget: &str) -> (Broker, Peer, TopicId) {
    filled_with_cache("1MiB", partitions, budget)
}

fn filled_with_cache(cache: &str, partitions: u32, budget: &str) -> (Broker, Peer, TopicId) {
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_DELIVERY_BYTES_PER_CONNECTION", budget),
        ("FALCON_STORAGE_CACHE_BYTES", cache),
    ]);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("ahead", partitions, Vec::new());
    let records = batch(RECORDS, 1024);
    for number in 0..BATCHES * partitions {
        publish(&mut peer, topic, number % partitions, &records);
    }
    (broker, peer, topic)
}

/// Reads everything, granting `bytes` and `records` at a time; what comes must be due, and follow what came.
fn read_all(peer: &mut Peer, topic: TopicId, partitions: u32, (bytes, records): (u64, u64)) {
    let starts = (0..partitions).map(|partition| PartitionStart {
        partition: Partition(partition),
        start: StartPosition::Earliest,
    });
    let mut granted = Credit {
        bytes_total: bytes,
        records_total: records,
    };
    let request = Subscribe {
        topic_id: topic,
        partitions: starts.collect(),
        credit_bytes: granted.bytes_total,
        credit_records: granted.records_total,
    };
    let number = 1_000;
    let body = encode(&request).expect("encodes");
    peer.send(&Frame::request(Kind::Subscribe, number, body));
    assert_eq!(peer.receive().expect("an answer").error(), None);
    let mut next = vec![Offset::ZERO; partitions as usize];
    let (mut got_bytes, mut got_records) = (0, 0);
    while next
        .iter()
        .any(|next| next.0 < u64::from(BATCHES * RECORDS))
    {
        let frame = peer.receive().expect("a delivery");
        assert_eq!(frame.header.kind, Kind::Deliver.number());
        let delivery = Delivery::decode(frame.body).expect("valid");
        assert!(got_bytes < granted.bytes_total && got_records < granted.records_total);
        got_bytes += delivery.batches.len() as u64;
        let mut rest = delivery.batches;
        let next = &mut next[delivery.partition.0 as usize];
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest).expect("valid");
            let partition = PartitionId {
                topic,
                partition: delivery.partition,
            };
            batch.verify_in(partition).expect("as stored");
            assert_eq!(batch.header().base_offset, *next);
            *next = batch.header().end_offset();
            got_records += u64::from(RECORDS);
        }
        if got_bytes >= granted.bytes_total || got_records >= granted.records_total {
            expect_nothing(peer);
            granted = Credit {
                bytes_total: got_bytes.saturating_add(bytes),
                records_total: got_records.saturating_add(records),
            };
            peer.send(&Frame::request(Kind::Credit, number, granted.encode()));
        }
    }
}

/// Reads from `from` on, as far as it comes in order; answers how far that is, and the frame that ended it.
fn read_until_it_ends(
    peer: &mut Peer,
    number: u32,
    topic: TopicId,
    from: Offset,
) -> (Offset, Frame) {
    let request = Subscribe {
        topic_id: topic,
        partitions: vec![PartitionStart {
            partition: Partition(0),
            start: StartPosition::Offset(from),
        }],
        credit_bytes: u64::MAX,
        credit_records: u64::MAX,
    };
    let body = encode(&request).expect("encodes");
    peer.send(&Frame::request(Kind::Subscribe, number, body));
    assert_eq!(peer.receive().expect("an answer").error(), None);
    let partition = PartitionId {
        topic,
        partition: Partition(0),
    };
    let mut next = from;
    loop {
        let frame = peer.receive().expect("a delivery, or the end");
        assert_eq!(frame.header.correlation, number);
        if frame.header.kind != Kind::Deliver.number() {
            return (next, frame);
        }
        let mut rest = Delivery::decode(frame.body).expect("valid").batches;
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest).expect("valid");
            batch.verify_in(partition).expect("as stored");
            assert_eq!(batch.header().base_offset, next);
            next = batch.header().end_offset();
        }
        if next.0 == u64::from(BATCHES * RECORDS) {
            let end = Unsubscribe {
                subscription: number,
            };
            let body = encode(&end).expect("encodes");
            peer.send(&Frame::request(Kind::Unsubscribe, number, body));
        }
    }
}

#[test]
fn damage_ends_what_is_read_ahead_too() {
    let (broker, mut peer, topic) = filled(1, "4MiB");
    let batch_bytes = batch(RECORDS, 1024).len() as u64;
    let path = segment(&broker.data_dir(), 1);
    // Whichever of a piece they are.
    let damaged: [u64; 4] = [3, 8, 13, 15];
    for nth in damaged {
        flip(&path, 4096 + nth * batch_bytes + batch_bytes / 2);
    }
    let mut from = Offset::ZERO;
    for (number, nth) in (5..).zip(damaged) {
        let (next, end) = read_until_it_ends(&mut peer, number, topic, from);
        assert_eq!(next.0, nth * u64::from(RECORDS));
        assert_eq!(end.header.kind, Kind::PartitionEnded.number());
        assert_eq!(end.error(), Some(ErrorCode::DamagedRange));
        let body = ErrorBody::decode(&end.body).expect("valid");
        assert_eq!((body.low, body.high), (next.0, next.0 + u64::from(RECORDS)));
        from = Offset(body.high);
        expect_nothing(&mut peer);
    }
    let (next, end) = read_until_it_ends(&mut peer, 99, topic, from);
    assert_eq!(next.0, u64::from(BATCHES * RECORDS));
    assert_eq!(end.header.kind, Kind::Unsubscribe.number());
}

#[test]
fn what_is_read_ahead_comes_in_order_and_within_the_credit() {
    let (_broker, mut peer, topic) = filled(1, "1MiB");
    for credit in [
        (u64::MAX, u64::MAX),
        (600_000, u64::MAX),
        (1, u64::MAX),
        (u64::MAX, 500),
        (1_300_000, 700),
    ] {
        let mut reader = Peer::connect(peer.socket.peer_addr().expect("connected"));
        read_all(&mut reader, topic, 1, credit);
    }
    expect_nothing(&mut peer);
}

#[test]
fn batches_larger_than_the_budget_come_from_every_partition() {
    let (_broker, peer, topic) = filled(3, "64KiB");
    let mut reader = Peer::connect(peer.socket.peer_addr().expect("connected"));
    read_all(&mut reader, topic, 3, (u64::MAX, u64::MAX));
}

#[test]
fn a_batch_that_takes_more_than_was_paid_is_not_passed_over_for_ever() {
    // What is in memory is not read ahead, so one partition comes behind the other.
    let (_broker, mut peer, topic) = filled_with_cache("64MiB", 2, "1MiB");
    // Larger than a piece.
    publish(&mut peer, topic, 1, &batch(700, 1024));
    let starts = [(0, 0), (1, BATCHES * RECORDS)].map(|(partition, offset)| PartitionStart {
        partition: Partition(partition),
        start: StartPosition::Offset(Offset(offset.into())),
    });
    let request = Subscribe {
        topic_id: topic,
        partitions: starts.into(),
        credit_bytes: u64::MAX,
        credit_records: u64::MAX,
    };
    let body = encode(&request).expect("encodes");
    peer.send(&Frame::request(Kind::Subscribe, 5, body));
    assert_eq!(peer.receive().expect("an answer").error(), None);
    let mut small_pieces = 0;
    while small_pieces < 10 {
        let frame = peer.receive().expect("a delivery");
        let delivery = Delivery::decode(frame.body).expect("valid");
        if delivery.partition == Partition(1) {
            return;
        }
        small_pieces += 1;
    }
    panic!("only the other partition is read");
}
