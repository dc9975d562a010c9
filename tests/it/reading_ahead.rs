//! What a subscription reads ahead: in order, within its credit, and through a budget that is too small for it.

use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::peer::{Peer, batch};

const BATCHES: u32 = 40;
const RECORDS: u32 = 200;

/// A broker that has next to nothing in memory, and a topic of so many partitions with all batches in each.
fn filled(partitions: u32, budget: &str) -> (Broker, Peer, TopicId) {
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_DELIVERY_BYTES_PER_CONNECTION", budget),
        ("FALCON_STORAGE_CACHE_BYTES", "1MiB"),
    ]);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("ahead", partitions, Vec::new());
    let records = batch(RECORDS, 1024);
    for number in 0..BATCHES * partitions {
        let mut publish = crate::peer::publish_frame(number, topic, &records);
        let mut body = publish.body.to_vec();
        let partition = PartitionId {
            topic,
            partition: Partition(number % partitions),
        };
        let header = PublishHeader {
            partition,
            timeout_ms: 0,
        };
        let mut head = bytes::BytesMut::new();
        header.encode(&mut head);
        body[..head.len()].copy_from_slice(&head);
        publish.body = body.into();
        peer.send(&publish);
        assert_eq!(peer.receive().expect("an ack").error(), None);
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
            granted = Credit {
                bytes_total: got_bytes.saturating_add(bytes),
                records_total: got_records.saturating_add(records),
            };
            peer.send(&Frame::request(Kind::Credit, number, granted.encode()));
        }
    }
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
    let last = peer.ask(
        Kind::ListTopics,
        &ListTopics {
            after: None,
            rows_max: 1,
        },
    );
    assert_eq!(last.error(), None);
}

#[test]
fn batches_larger_than_the_budget_come_from_every_partition() {
    let (_broker, peer, topic) = filled(3, "64KiB");
    let mut reader = Peer::connect(peer.socket.peer_addr().expect("connected"));
    read_all(&mut reader, topic, 3, (u64::MAX, u64::MAX));
}
