//! Subscribing: positions, reconnects, damage, endings.

use std::time::Duration;

use falcon_client::{
    ErrorCode, LostReason, Offset, Partition, Reset, Start, SubscribeError, Subscription,
    SubscriptionEvent, TopicChange,
};
use falcon_protocol::message::StartPosition;
use futures_util::StreamExt;

use crate::peer::{Peer, TOPIC};
use crate::within;

async fn values(records: &mut Subscription, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let record = within(records.next()).await.unwrap().unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    values
}

fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

#[tokio::test]
async fn a_start_is_where_reading_begins_in_each_partition() {
    let peer = Peer::start(3).await;
    peer.with(|world| (0..3).for_each(|partition| world.fill(partition, numbers(0..10))));
    let client = peer.client().await;
    let builder = client
        .subscribe(TOPIC)
        .from(Start::Last(2))
        .partition(0)
        .partition_from(2, Offset(7));
    let mut records = builder.open().await.unwrap();
    assert_eq!(records.partitions(), [Partition(0), Partition(2)]);
    assert_eq!(records.position(0), Offset(8));
    assert_eq!(records.position(2), Offset(7));
    let mut found = values(&mut records, 5).await;
    found.sort_unstable();
    assert_eq!(found, ["7", "8", "8", "9", "9"]);
    assert_eq!(records.position(0), Offset(10));
}

#[tokio::test]
async fn a_reconnect_resumes_at_the_exact_offset() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        for batch in 0..10 {
            world.fill(0, numbers(batch * 10..batch * 10 + 10));
        }
    });
    let client = peer.client().await;
    let mut records = client
        .subscribe(TOPIC)
        .from(Start::Earliest)
        .open()
        .await
        .unwrap();
    let mut events = records.events();
    let mut read = values(&mut records, 34).await;
    assert_eq!(records.position(0), Offset(34));
    for round in 0..3 {
        peer.kill_connections();
        loop {
            let event = within(events.next()).await.unwrap();
            if matches!(event, SubscriptionEvent::Connected { .. }) {
                break;
            }
        }
        let more = if round == 2 { 100 - read.len() } else { 7 };
        read.extend(values(&mut records, more).await);
    }
    assert_eq!(read, numbers(0..100).collect::<Vec<_>>());
    let resumed = peer.with(|world| world.subscribes[1].partitions[0].start);
    // The batch of record 34 was being read, and is not asked for again.
    assert_eq!(resumed, StartPosition::Offset(Offset(40)));
    peer.with(|world| world.fill(0, ["new".to_owned()]));
    assert_eq!(values(&mut records, 1).await, ["new"]);
}

#[tokio::test]
async fn deliveries_that_come_twice_are_read_once() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.repeats_deliveries = true;
        for batch in 0..5 {
            world.fill(0, numbers(batch * 3..batch * 3 + 3));
        }
    });
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Offset(1));
    let mut records = builder.open().await.unwrap();
    let read = values(&mut records, 14).await;
    assert_eq!(read, numbers(1..15).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_corrupt_delivery_is_an_error_and_never_data() {
    let peer = Peer::start(2).await;
    peer.with(|world| {
        world.fill(0, numbers(0..3));
        world.corrupts_deliveries = true;
    });
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    let error = within(records.next()).await.unwrap().unwrap_err();
    let SubscribeError::Corrupt {
        partition,
        position,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*partition, *position), (Partition(0), Offset(0)));
    assert!(error.is_retryable());
    // The other partition goes on.
    peer.with(|world| world.fill(1, ["other".to_owned()]));
    assert_eq!(values(&mut records, 1).await, ["other"]);
    assert_eq!(records.partitions(), [Partition(1)]);
    assert_eq!(records.position(0), Offset(0), "to subscribe from again");
}

#[tokio::test]
async fn a_gap_is_an_error_with_the_offsets_that_are_missing() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.fill(0, numbers(0..3));
        world.fill(0, numbers(3..5));
        world.skips_records = 1;
    });
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    let error = within(records.next()).await.unwrap().unwrap_err();
    let missing = Offset(0)..Offset(3);
    let partition = Partition(0);
    assert_eq!(error, SubscribeError::Gap { partition, missing });
    let left = within(records.next()).await.unwrap().unwrap_err();
    assert_eq!(left, SubscribeError::NothingLeft);
}

#[tokio::test]
async fn a_partition_that_ended_surfaces_and_the_others_go_on() {
    let peer = Peer::start(2).await;
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    let mut events = records.events();
    peer.end_partition(0, ErrorCode::DamagedRange, 3, 9);
    let error = within(records.next()).await.unwrap().unwrap_err();
    let range = Offset(3)..Offset(9);
    let partition = Partition(0);
    assert_eq!(error, SubscribeError::DamagedRange { partition, range });
    assert_eq!(error.code(), Some(ErrorCode::DamagedRange));
    let event = within(events.next()).await.unwrap();
    assert_eq!(event, SubscriptionEvent::PartitionEnded { partition });
    peer.with(|world| world.fill(1, ["other".to_owned()]));
    assert_eq!(values(&mut records, 1).await, ["other"]);

    peer.end_partition(1, ErrorCode::MalformedRequest, 0, 0);
    let error = within(records.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, SubscribeError::PartitionEnded { .. }),
        "{error}"
    );
    let error = within(records.next()).await.unwrap().unwrap_err();
    assert_eq!(error, SubscribeError::NothingLeft);
    let silence = tokio::time::timeout(Duration::from_millis(50), records.next()).await;
    assert!(
        silence.is_err(),
        "the end is told once, and the stream does not end"
    );
}

#[tokio::test]
async fn a_partition_that_failed_for_a_while_is_reported_and_goes_on() {
    let peer = Peer::start(1).await;
    peer.with(|world| world.fill(0, numbers(0..3)));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    assert_eq!(values(&mut records, 3).await, ["0", "1", "2"]);
    peer.end_partition(0, ErrorCode::ReadFailed, 0, 0);
    let error = within(records.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ReadFailed));
    peer.with(|world| world.fill(0, ["3".to_owned()]));
    assert_eq!(values(&mut records, 1).await, ["3"]);
}

#[tokio::test]
async fn retention_that_overtakes_is_told_and_the_reset_is_followed() {
    for (reset, next) in [(Reset::Earliest, "5"), (Reset::Latest, "8")] {
        let peer = Peer::start(1).await;
        peer.with(|world| (0..8).for_each(|n| world.fill(0, [n.to_string()])));
        let client = peer.client().await;
        let builder = client.subscribe(TOPIC).from(Offset(2)).partition(0);
        let mut records = builder.on_out_of_range(reset).open().await.unwrap();
        peer.until("the first", |world| world.delivered_bytes > 0)
            .await;
        assert_eq!(values(&mut records, 1).await, ["2"]);
        peer.with(|world| world.log_start = 5);
        peer.end_partition(0, ErrorCode::OffsetOutOfRange, 5, 8);
        // What was delivered before is read before.
        let read = values(&mut records, 5).await;
        assert_eq!(read, ["3", "4", "5", "6", "7"]);
        let error = within(records.next()).await.unwrap().unwrap_err();
        assert!(
            matches!(error, SubscribeError::OffsetOutOfRange { .. }),
            "{error}"
        );
        peer.until("a new start", |world| world.subscribes.len() == 2)
            .await;
        peer.with(|world| world.fill(0, ["8".to_owned()]));
        assert_eq!(values(&mut records, 1).await, [next]);
    }
}

#[tokio::test]
async fn an_offset_that_does_not_exist_is_refused_or_reset_at_opening() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        world.fill(0, numbers(0..10));
        world.log_start = 0;
    });
    let client = peer.client().await;
    let open = |reset| {
        let builder = client.subscribe(TOPIC).from(Offset(50));
        builder.on_out_of_range(reset).open()
    };
    let error = within(open(Reset::Stop)).await.unwrap_err();
    let expected = SubscribeError::OffsetOutOfRange {
        partition: Partition(0),
        position: Offset(50),
        available: Offset(0)..Offset(10),
    };
    assert_eq!(error, expected);
    let mut records = within(open(Reset::Earliest)).await.unwrap();
    let error = within(records.next()).await.unwrap().unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(values(&mut records, 1).await, ["0"]);
}

#[tokio::test]
async fn caught_up_is_told_each_time_the_end_is_reached() {
    let peer = Peer::start(1).await;
    peer.with(|world| world.fill(0, numbers(0..3)));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    let mut events = records.events();
    values(&mut records, 3).await;
    // The end is noticed when more is asked for.
    for round in 0..2 {
        let more = tokio::time::timeout(Duration::from_millis(1), records.next()).await;
        assert!(more.is_err());
        assert_eq!(
            within(events.next()).await,
            Some(SubscriptionEvent::CaughtUp)
        );
        if round == 0 {
            peer.with(|world| world.fill(0, ["more".to_owned()]));
            assert_eq!(values(&mut records, 1).await, ["more"]);
        }
    }
}

#[tokio::test]
async fn partitions_added_to_the_topic_are_read_from_their_beginning() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let mut records = client.subscribe(TOPIC).open().await.unwrap();
    let mut events = records.events();
    let change = TopicChange::new().partitions(3);
    client.alter_topic(TOPIC, change).await.unwrap();
    peer.with(|world| world.fill(2, ["unseen".to_owned()]));
    peer.kill_connections();
    assert_eq!(values(&mut records, 1).await, ["unseen"]);
    assert_eq!(records.partitions().len(), 3);
    let lost = within(events.next()).await.unwrap();
    assert!(matches!(
        lost,
        SubscriptionEvent::Disconnected {
            reason: LostReason::ClosedByBroker | LostReason::Io(_)
        }
    ));
    let added = within(events.next()).await.unwrap();
    assert_eq!(added, SubscriptionEvent::PartitionsAdded { partitions: 3 });
}

#[tokio::test]
async fn a_topic_created_anew_is_another_topic() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let mut records = client.subscribe(TOPIC).open().await.unwrap();
    peer.with(|world| world.topic_id = falcon_client::TopicId(99));
    peer.kill_connections();
    let error = within(records.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, SubscribeError::TopicDeleted { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn close_ends_the_stream_and_nothing_else_does() {
    let peer = Peer::start(1).await;
    peer.with(|world| world.fill(0, numbers(0..3)));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.open().await.unwrap();
    assert_eq!(values(&mut records, 1).await, ["0"]);
    let mut events = records.events();
    peer.kill_connections();
    assert_eq!(values(&mut records, 2).await, ["1", "2"]);
    let waiting = tokio::time::timeout(Duration::from_millis(50), records.next()).await;
    assert!(waiting.is_err(), "it ended by itself");
    // What the peer has seen is not enough: only an answer that came makes something to unsubscribe from.
    while !matches!(
        within(events.next()).await,
        Some(SubscriptionEvent::Connected { .. })
    ) {}
    within(records.close()).await;
    assert!(within(records.next()).await.is_none());
    assert_eq!(peer.with(|world| world.unsubscribes), 1);
    within(records.close()).await;
}

#[tokio::test]
async fn a_dropped_subscription_is_ended_at_the_broker() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    drop(client.subscribe(TOPIC).open().await.unwrap());
    peer.until("the end", |world| world.unsubscribes == 1).await;
}

#[tokio::test]
async fn it_is_a_stream_of_owned_records() {
    let peer = Peer::start(1).await;
    peer.with(|world| world.fill(0, numbers(0..100)));
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let records = builder.open().await.unwrap();
    let first: Vec<_> = within(records.take(60).collect()).await;
    let tracker = tokio_util::task::TaskTracker::new();
    let moved = tracker.spawn(async move { first.into_iter().map(Result::unwrap).count() });
    assert_eq!(within(moved).await.unwrap(), 60);
}
