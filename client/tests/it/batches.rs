//! Records taken by batches: the same ones, and the same positions, as one by one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falcon_client::{
    ErrorCode, Header, Offset, Partition, Record, RecordBatch, Reset, Start, SubscribeError,
    Subscription, SubscriptionEvent,
};
use falcon_protocol::message::StartPosition;
use falcon_protocol::{Batch, Codec};

use crate::peer::{Peer, TOPIC};
use crate::within;

fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

fn values(batch: &RecordBatch) -> Vec<String> {
    let values = batch.iter().map(|record| record.value().unwrap().to_vec());
    values.map(|v| String::from_utf8(v).unwrap()).collect()
}

async fn next_batch(records: &mut Subscription) -> RecordBatch {
    within(records.next_batch()).await.unwrap().unwrap()
}

async fn next_value(records: &mut Subscription) -> String {
    let record = within(records.next()).await.unwrap().unwrap();
    String::from_utf8(record.value.unwrap().to_vec()).unwrap()
}

async fn open(peer: &Peer, start: impl Into<Start>) -> Subscription {
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(start);
    builder.open().await.unwrap()
}

/// Three batches of ten records each.
async fn thirty() -> Peer {
    let peer = Peer::start(1).await;
    peer.with(|world| (0..3).for_each(|n| world.fill(0, numbers(n * 10..n * 10 + 10))));
    peer
}

#[tokio::test]
async fn batches_have_the_records_that_come_one_by_one() {
    let all = [
        Record::new("plain"),
        Record::new("").key("empty").timestamp_ms(7),
        Record::tombstone("gone").timestamp_ms(i64::from(u32::MAX)),
        Record::new(vec![7; 70_000])
            .key(vec![1; 300])
            .header("trace", "a-b")
            .header("trace", vec![0xff; 200])
            .header("é", ""),
        Record::default(),
    ];
    for codec in Codec::ALL {
        let peer = Peer::start(1).await;
        peer.with(|world| {
            world.put(0, codec, all.clone());
            world.put(0, codec, all.iter().rev().cloned());
        });
        let (mut by_batch, mut one_by_one) = (
            open(&peer, Start::Earliest).await,
            open(&peer, Start::Earliest).await,
        );
        let mut offset = Offset(0);
        for _ in 0..2 {
            let batch = next_batch(&mut by_batch).await;
            assert_eq!(batch.topic(), TOPIC);
            assert_eq!(batch.offsets(), offset..offset.advance(5));
            assert_eq!((batch.len(), batch.iter().len()), (5, 5));
            offset = batch.next_offset();
            assert_eq!(by_batch.position(0), offset);
            for record in &batch {
                let owned = within(one_by_one.next()).await.unwrap().unwrap();
                assert_eq!(record.to_delivered(), owned);
                assert_eq!(batch.partition(), owned.partition);
                assert_eq!(batch.append_time_ms(), owned.append_time_ms);
                assert_eq!(record.offset(), owned.offset);
                assert_eq!(record.next_offset(), owned.next_offset());
                assert_eq!(record.timestamp_ms(), owned.timestamp_ms);
                assert_eq!(record.key(), owned.key.as_deref());
                assert_eq!(record.value(), owned.value.as_deref());
                let headers = record.headers().iter().map(|header| Header {
                    name: header.name.to_owned(),
                    value: Bytes::copy_from_slice(header.value),
                });
                assert_eq!(headers.collect::<Vec<_>>(), owned.headers);
            }
        }
        assert_eq!(by_batch.position(0), one_by_one.position(0));
    }
}

#[tokio::test]
async fn headers_are_found_by_name() {
    let peer = Peer::start(1).await;
    let record = Record::new("v").header("a", "1").header("b", "2");
    let record = record.header("a", "3");
    peer.with(|world| world.put(0, Codec::None, [record]));
    let mut records = open(&peer, Start::Earliest).await;
    let batch = next_batch(&mut records).await;
    let headers = batch.iter().next().unwrap().headers();
    assert_eq!((headers.len(), headers.is_empty()), (3, false));
    assert_eq!(headers.get("a"), Some(&b"1"[..]));
    assert_eq!(headers.get("b"), Some(&b"2"[..]));
    assert_eq!(headers.get("c"), None);
}

#[tokio::test]
async fn a_start_inside_of_a_batch_begins_there() {
    let peer = thirty().await;
    let mut records = open(&peer, Offset(14)).await;
    assert_eq!(records.position(0), Offset(14));
    let batch = next_batch(&mut records).await;
    assert_eq!(batch.offsets(), Offset(14)..Offset(20));
    assert_eq!(values(&batch), numbers(14..20).collect::<Vec<_>>());
    let batch = next_batch(&mut records).await;
    assert_eq!(batch.offsets(), Offset(20)..Offset(30));
}

#[tokio::test]
async fn one_by_one_and_by_batches_take_turns() {
    let peer = thirty().await;
    let mut records = open(&peer, Start::Earliest).await;
    for value in ["0", "1", "2"] {
        assert_eq!(next_value(&mut records).await, value);
    }
    let rest = next_batch(&mut records).await;
    assert_eq!(values(&rest), numbers(3..10).collect::<Vec<_>>());
    assert_eq!(records.position(0), Offset(10));
    for value in numbers(10..20) {
        assert_eq!(next_value(&mut records).await, value);
    }
    // The last record of a batch was taken: the next batch is a whole one.
    let batch = next_batch(&mut records).await;
    assert_eq!(batch.offsets(), Offset(20)..Offset(30));
}

#[tokio::test]
async fn a_batch_dropped_half_read_was_handed_out() {
    let peer = thirty().await;
    let mut records = open(&peer, Start::Earliest).await;
    let mut events = records.events();
    let batch = next_batch(&mut records).await;
    assert_eq!(batch.iter().take(4).count(), 4);
    drop(batch);
    assert_eq!(records.position(0), Offset(10));
    peer.kill_connections();
    loop {
        let event = within(events.next()).await.unwrap();
        if matches!(event, SubscriptionEvent::Connected { .. }) {
            break;
        }
    }
    let resumed = peer.with(|world| world.subscribes[1].partitions[0].start);
    assert_eq!(resumed, StartPosition::Offset(Offset(10)));
    assert_eq!(next_value(&mut records).await, "10");
}

#[tokio::test]
async fn batches_resume_after_a_reconnect_without_gap_or_repetition() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.repeats_deliveries = true;
        (0..20).for_each(|n| world.fill(0, numbers(n * 7..n * 7 + 7)));
    });
    let mut records = open(&peer, Offset(3)).await;
    let mut read = Vec::new();
    while read.len() < 137 {
        let batch = next_batch(&mut records).await;
        assert_eq!(batch.offsets().start.get(), 3 + read.len() as u64);
        read.extend(values(&batch));
        assert_eq!(records.position(0), batch.next_offset());
        if read.len() % 3 == 0 {
            peer.kill_connections();
        }
    }
    assert_eq!(read, numbers(3..140).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_arrived_damaged_is_an_error_and_never_data() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.fill(0, numbers(0..3));
        world.corrupts_deliveries = true;
    });
    let mut records = open(&peer, Start::Earliest).await;
    let error = within(records.next_batch()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, SubscribeError::Corrupt { position, .. } if position == Offset(0)),
        "{error}"
    );
    assert_eq!(records.position(0), Offset(0));
    let error = within(records.next_batch()).await.unwrap().unwrap_err();
    assert_eq!(error, SubscribeError::NothingLeft);
}

/// A whole batch of the values 0 to 9 whose record 6 has a key of another length than it says.
fn with_a_record_that_cannot_be_read(batch: &Batch) -> Batch {
    let mut bytes = BytesMut::from(batch.bytes().as_ref());
    // Header of the batch, six records of five bytes, the seventh's timestamp.
    bytes[80 + 6 * 5 + 1] = 0xff;
    let crc = crc32fast::hash(&bytes[28..]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    Batch::from_bytes(bytes.freeze()).unwrap()
}

#[tokio::test]
async fn records_in_front_of_one_that_cannot_be_read_come_before_the_error() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.put(0, Codec::None, numbers(0..10).map(Record::new));
        let whole = world.logs[0].pop().unwrap();
        let broken = with_a_record_that_cannot_be_read(&whole);
        world.store(0, &broken).unwrap();
    });
    for is_by_batch in [true, false] {
        let mut records = open(&peer, Offset(2)).await;
        if is_by_batch {
            let batch = next_batch(&mut records).await;
            assert_eq!(values(&batch), numbers(2..6).collect::<Vec<_>>());
        } else {
            for value in numbers(2..6) {
                assert_eq!(next_value(&mut records).await, value);
            }
        }
        assert_eq!(records.position(0), Offset(6));
        let error = if is_by_batch {
            within(records.next_batch()).await.unwrap().unwrap_err()
        } else {
            within(records.next()).await.unwrap().unwrap_err()
        };
        assert!(
            matches!(error, SubscribeError::Corrupt { position, .. } if position == Offset(6)),
            "{error}"
        );
        assert_eq!(records.position(0), Offset(6));
    }
}

#[tokio::test]
async fn retention_that_overtakes_is_told_between_batches() {
    let peer = Peer::start(1).await;
    peer.with(|world| (0..4).for_each(|n| world.fill(0, numbers(n * 2..n * 2 + 2))));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Offset(1)).partition(0);
    let builder = builder.on_out_of_range(Reset::Earliest);
    let mut records = builder.open().await.unwrap();
    peer.until("the first", |world| world.delivered_bytes > 0)
        .await;
    assert_eq!(values(&next_batch(&mut records).await), ["1"]);
    // The log's start lies inside of a batch, which is still there.
    peer.with(|world| world.log_start = 5);
    peer.end_partition(0, ErrorCode::OffsetOutOfRange, 5, 8);
    // What was delivered before is read before.
    for next in [2, 4, 6] {
        let batch = next_batch(&mut records).await;
        assert_eq!(batch.offsets(), Offset(next)..Offset(next + 2));
    }
    let error = within(records.next_batch()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, SubscribeError::OffsetOutOfRange { .. }),
        "{error}"
    );
    let batch = next_batch(&mut records).await;
    assert_eq!(batch.offsets(), Offset(5)..Offset(6));
}

#[tokio::test]
async fn what_batches_took_is_granted_again() {
    let peer = Peer::start(1).await;
    peer.with(|world| (0..50).for_each(|n| world.fill(0, numbers(n * 10..n * 10 + 10))));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.buffer_bytes(1).open().await.unwrap();
    for n in 0..50 {
        let batch = next_batch(&mut records).await;
        assert_eq!(batch.offsets(), Offset(n * 10)..Offset(n * 10 + 10));
    }
}

#[tokio::test]
async fn a_batch_not_returned_stays() {
    let peer = Peer::start(1).await;
    let mut records = open(&peer, Start::Earliest).await;
    for n in 0..20 {
        // Given up while it waits, and while what it waits for arrives.
        let waiting = tokio::time::timeout(Duration::from_millis(n % 3), records.next_batch());
        assert!(waiting.await.is_err(), "nothing is there");
        peer.with(|world| world.fill(0, numbers(n * 2..n * 2 + 2)));
        let batch = next_batch(&mut records).await;
        assert_eq!(batch.offsets(), Offset(n * 2)..Offset(n * 2 + 2));
    }
}

#[tokio::test]
async fn a_batch_and_a_record_of_it_can_be_sent_away() {
    let peer = thirty().await;
    let mut records = open(&peer, Start::Earliest).await;
    let batch = next_batch(&mut records).await;
    let kept = batch.iter().nth(4).unwrap().to_delivered();
    let tracker = tokio_util::task::TaskTracker::new();
    let away = tracker.spawn(async move { (values(&batch), batch.partition()) });
    let expected = (numbers(0..10).collect::<Vec<_>>(), Partition(0));
    assert_eq!(within(away).await.unwrap(), expected);
    drop(records);
    assert_eq!(kept.value.as_deref(), Some(&b"4"[..]));
    assert_eq!(kept.next_offset(), Offset(5));
}

#[tokio::test]
async fn close_ends_batches_too() {
    let peer = thirty().await;
    let mut records = open(&peer, Start::Earliest).await;
    next_batch(&mut records).await;
    within(records.close()).await;
    assert!(within(records.next_batch()).await.is_none());
}
