//! Publishing: receipts, batching, order, and what happens when answers are lost.

use std::time::Duration;

use falcon_client::{Compression, Partition, PublishError, Record};

use crate::peer::{OnPublish, Peer, TOPIC};
use crate::within;

#[tokio::test]
async fn a_receipt_says_where_the_record_is() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    for expected in 0..3 {
        let receipt = within(orders.publish(format!("{expected}"))).await.unwrap();
        assert_eq!(receipt.offset.get(), expected);
        assert_eq!(receipt.partition, Partition(0));
        assert!(!receipt.is_duplicate);
    }
    assert_eq!(peer.with(|world| world.values(0)), ["0", "1", "2"]);
}

#[tokio::test]
async fn what_arrives_while_a_batch_is_in_flight_goes_into_the_next() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    peer.with(|world| world.is_holding = true);
    let first = orders.send("first").await.unwrap();
    peer.until("the first batch", |world| world.publishes.len() == 1)
        .await;
    let mut tickets = Vec::new();
    for index in 0..1_000 {
        tickets.push(orders.send(format!("{index}")).await.unwrap());
    }
    peer.with(|world| world.is_holding = false);
    within(first).await.unwrap();
    for (index, ticket) in tickets.into_iter().enumerate() {
        let receipt = within(ticket).await.unwrap();
        assert_eq!(receipt.offset.get(), index as u64 + 1);
    }
    assert_eq!(peer.with(|world| world.publishes.len()), 2);
}

#[tokio::test]
async fn a_lost_answer_leads_to_the_same_bytes_again_and_one_receipt() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client
        .publisher(TOPIC)
        .compression(Compression::Zstd)
        .build()
        .await
        .unwrap();
    within(orders.publish("before")).await.unwrap();
    peer.script([OnPublish::DropAfter]);
    let receipt = within(orders.publish(vec![b'x'; 10_000])).await.unwrap();
    assert_eq!(receipt.offset.get(), 1);
    assert!(receipt.is_duplicate);
    let after = within(orders.publish("after")).await.unwrap();
    assert_eq!(after.offset.get(), 2);
    assert!(!after.is_duplicate);
    peer.with(|world| {
        assert_eq!(world.publishes.len(), 4);
        assert_eq!(world.publishes[1], world.publishes[2], "not the same bytes");
        assert_eq!(world.end(0), 3);
    });
}

/// Batches of a partition that may be unanswered.
pub(crate) const IN_FLIGHT: usize = 8;
const RECORDS: usize = 16;

/// Puts as many batches in flight as may be, one record each, and more behind them.
async fn all_in_flight(
    peer: &Peer,
    orders: &falcon_client::Publisher,
) -> Vec<falcon_client::Ticket> {
    peer.with(|world| world.is_holding = true);
    let mut tickets = Vec::new();
    for index in 0..RECORDS {
        // Each record fills a batch.
        let value = format!("{index:0>300}");
        tickets.push(orders.send(value).await.unwrap());
    }
    peer.until("batches", |world| world.publishes.len() >= IN_FLIGHT)
        .await;
    peer.with(|world| {
        let found = world.publishes.len();
        assert_eq!(found, IN_FLIGHT, "more in flight than allowed");
    });
    tickets
}

async fn small_batches(peer: &Peer) -> falcon_client::Publisher {
    let client = peer.client().await;
    let builder = client.publisher(TOPIC).batch_bytes(500);
    builder.build().await.unwrap()
}

async fn assert_in_order(peer: &Peer, tickets: Vec<falcon_client::Ticket>) {
    for (index, ticket) in tickets.into_iter().enumerate() {
        let receipt = within(ticket).await.unwrap();
        assert_eq!(receipt.offset.get(), index as u64);
    }
    let expected: Vec<String> = (0..RECORDS).map(|index| format!("{index:0>300}")).collect();
    assert_eq!(peer.with(|world| world.values(0)), expected);
}

#[tokio::test]
async fn order_holds_across_a_reconnect_with_all_in_flight() {
    for step in [OnPublish::DropBefore, OnPublish::DropAfter] {
        for position in 0..IN_FLIGHT {
            let peer = Peer::start(1).await;
            let orders = small_batches(&peer).await;
            let tickets = all_in_flight(&peer, &orders).await;
            peer.script(std::iter::repeat_n(OnPublish::Ack, position).chain([step]));
            peer.with(|world| world.is_holding = false);
            assert_in_order(&peer, tickets).await;
        }
    }
}

#[tokio::test]
async fn order_holds_when_one_in_flight_is_refused_for_a_while() {
    use falcon_client::ErrorCode::{OutcomeUnknown, QueueFull, StorageFull};
    for code in [QueueFull, StorageFull, OutcomeUnknown] {
        for position in 0..IN_FLIGHT {
            let peer = Peer::start(1).await;
            let orders = small_batches(&peer).await;
            let tickets = all_in_flight(&peer, &orders).await;
            let refusals = [OnPublish::Refuse(code)];
            peer.script(std::iter::repeat_n(OnPublish::Ack, position).chain(refusals));
            peer.with(|world| world.is_holding = false);
            assert_in_order(&peer, tickets).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_after_all_that_stored_the_batch_is_found_out() {
    let peer = Peer::start(1).await;
    let orders = small_batches(&peer).await;
    let code = falcon_client::ErrorCode::OutcomeUnknown;
    peer.script([OnPublish::RefuseStored(code)]);
    let receipt = within(orders.publish("once")).await.unwrap();
    assert!(receipt.is_duplicate);
    assert_eq!(peer.with(|world| world.values(0)), ["once"]);
}

#[tokio::test]
async fn keys_meet_in_one_partition_and_named_partitions_are_kept() {
    let peer = Peer::start(8).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    for _ in 0..3 {
        let record = Record::new("x").key("N14228");
        let receipt = within(orders.publish(record)).await.unwrap();
        assert_eq!(receipt.partition, Partition(2));
    }
    let ticket = orders.send_to(5, "y").await.unwrap();
    assert_eq!(within(ticket).await.unwrap().partition, Partition(5));
    let refused = orders.send_to(Partition(8), "z").await.unwrap_err();
    assert!(matches!(
        refused,
        PublishError::UnknownPartition { partitions: 8, .. }
    ));
}

#[tokio::test]
async fn records_without_a_key_take_partitions_in_turn_by_batch() {
    let peer = Peer::start(4).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let receipt = within(orders.publish("x")).await.unwrap();
        seen.push(receipt.partition);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3].map(Partition));
}

#[tokio::test]
async fn a_linger_collects_and_a_flush_does_not_wait_for_it() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let builder = client.publisher(TOPIC).linger(Duration::from_secs(3600));
    let orders = builder.build().await.unwrap();
    for index in 0..10 {
        drop(orders.send(format!("{index}")).await.unwrap());
    }
    assert_eq!(peer.with(|world| world.publishes.len()), 0);
    within(orders.flush()).await.unwrap();
    assert_eq!(peer.with(|world| world.publishes.len()), 1);
    assert_eq!(peer.with(|world| world.end(0)), 10);
}

#[tokio::test]
async fn a_dropped_ticket_does_not_withdraw_the_record() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    drop(orders.send("kept").await.unwrap());
    drop(orders);
    peer.until("the record", |world| world.end(0) == 1).await;
}

#[tokio::test]
async fn a_record_larger_than_a_batch_travels_alone_and_a_huge_one_is_refused() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let builder = client
        .publisher(TOPIC)
        .batch_bytes(1_000)
        .window_bytes(2_000);
    let orders = builder.build().await.unwrap();
    let small = orders.send("small").await.unwrap();
    let large = orders.send(vec![b'l'; 100_000]).await.unwrap();
    let last = orders.send("last").await.unwrap();
    assert_eq!(within(small).await.unwrap().offset.get(), 0);
    assert_eq!(within(large).await.unwrap().offset.get(), 1);
    assert_eq!(within(last).await.unwrap().offset.get(), 2);
    let huge = within(orders.send(vec![b'h'; 5 << 20])).await.unwrap_err();
    assert!(
        matches!(huge, PublishError::RecordTooLarge { .. }),
        "{huge}"
    );
    assert_eq!(
        orders.window_used_bytes(),
        0,
        "a refused record keeps its room"
    );
    within(orders.publish("goes on")).await.unwrap();
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_is_an_error_that_may_have_happened() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let builder = client.publisher(TOPIC).idempotent(false);
    let orders = builder.build().await.unwrap();
    peer.script([OnPublish::DropAfter]);
    let error = within(orders.publish("once")).await.unwrap_err();
    assert!(error.may_have_happened() && error.is_retryable(), "{error}");
    within(orders.publish("next")).await.unwrap();
    assert_eq!(peer.with(|world| world.values(0)), ["once", "next"]);
}
