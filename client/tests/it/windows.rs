//! Backpressure: nothing queues without a limit, in either direction.

use std::time::Duration;

use falcon_client::{PublishError, Start, TrySendError};
use futures_util::FutureExt;

use crate::peer::{Peer, TOPIC};
use crate::within;

const WINDOW: usize = 10_000;

#[tokio::test]
async fn with_a_slow_broker_send_waits_and_the_window_holds() {
    let peer = Peer::start(3).await;
    let client = peer.client().await;
    let builder = client
        .publisher(TOPIC)
        .window_bytes(WINDOW)
        .batch_bytes(1_000);
    let orders = builder.build().await.unwrap();
    peer.with(|world| world.is_holding = true);
    let mut sent = 0;
    loop {
        let sending = orders.send(vec![b'x'; 100]);
        match sending.now_or_never() {
            Some(ticket) => drop(ticket.unwrap()),
            None => break,
        }
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!(sent * 100 <= WINDOW, "{sent} records were taken");
    assert!(sent * 100 > WINDOW / 2, "only {sent} records were taken");
    assert!(orders.window_used_bytes() <= WINDOW);

    let waiting = orders.send(vec![b'y'; 100]);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    peer.with(|world| world.is_holding = false);
    drop(within(waiting).await.unwrap());
    for _ in 0..1_000 {
        drop(within(orders.send(vec![b'z'; 100])).await.unwrap());
    }
    within(orders.flush()).await.unwrap();
    let most = peer.with(|world| world.unanswered_bytes_max);
    assert!(most <= WINDOW, "{most} bytes were unanswered");
    let stored: u64 = (0..3).map(|p| peer.with(|world| world.end(p))).sum();
    assert_eq!(stored, sent as u64 + 1 + 1_000);
    assert_eq!(orders.window_used_bytes(), 0);
}

#[tokio::test]
async fn a_send_that_is_given_up_is_not_published_and_keeps_no_room() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client
        .publisher(TOPIC)
        .window_bytes(300)
        .build()
        .await
        .unwrap();
    peer.with(|world| world.is_holding = true);
    let first = orders.send(vec![b'1'; 250]).await.unwrap();
    for _ in 0..10 {
        assert!(orders.send(vec![b'2'; 250]).now_or_never().is_none());
    }
    peer.with(|world| world.is_holding = false);
    within(first).await.unwrap();
    within(orders.publish(vec![b'3'; 250])).await.unwrap();
    let values = peer.with(|world| world.values(0));
    assert_eq!(values.len(), 2);
    assert!(values[1].starts_with('3'));
}

#[tokio::test]
async fn try_send_and_send_timeout_report_a_full_window() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client
        .publisher(TOPIC)
        .window_bytes(300)
        .build()
        .await
        .unwrap();
    peer.with(|world| world.is_holding = true);
    let first = orders.try_send(vec![b'1'; 250]).unwrap();
    let Err(TrySendError::Full(record)) = orders.try_send(vec![b'2'; 250]) else {
        panic!("it was taken");
    };
    assert_eq!(record.value.as_deref(), Some(&[b'2'; 250][..]));
    let limit = Duration::from_millis(20);
    let error = within(orders.send_timeout(record, limit))
        .await
        .unwrap_err();
    assert_eq!(error, PublishError::WindowFull { after: limit });
    assert!(error.is_retryable() && !error.may_have_happened());
    peer.with(|world| world.is_holding = false);
    within(first).await.unwrap();
    within(orders.try_send("3").unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_connections_publish_window_holds_across_publishers() {
    let peer = Peer::start(4).await;
    peer.with(|world| world.granted.publish_window_bytes = 4_000);
    let client = peer.client().await;
    let one = client
        .publisher(TOPIC)
        .batch_bytes(1_000)
        .build()
        .await
        .unwrap();
    let two = client
        .publisher(TOPIC)
        .batch_bytes(1_000)
        .build()
        .await
        .unwrap();
    for _ in 0..200 {
        drop(one.send(vec![b'1'; 300]).await.unwrap());
        drop(two.send(vec![b'2'; 300]).await.unwrap());
    }
    within(one.flush()).await.unwrap();
    within(two.flush()).await.unwrap();
    let most = peer.with(|world| world.unanswered_bytes_max);
    assert!(most <= 4_000, "{most} bytes were unanswered");
}

#[tokio::test]
async fn behind_many_publishes_under_way_batches_grow_until_their_turn() {
    /// As many as leave at once, see `CROWD` in the publisher.
    const CROWD: u32 = 128;
    let peer = Peer::start(200).await;
    peer.with(|world| {
        world.granted.requests_in_flight_max = 4_096;
        world.is_holding = true;
    });
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    for partition in 0..200 {
        drop(orders.send_to(partition, "first").await.unwrap());
    }
    peer.until("the crowd to be under way", |world| {
        world.publishes.len() == CROWD as usize
    })
    .await;
    for _ in 0..5 {
        drop(orders.send_to(150, "more").await.unwrap());
    }
    // A round trip on the same connection: no further publish is under way.
    within(client.list_groups()).await.unwrap();
    peer.with(|world| assert_eq!(world.publishes.len(), CROWD as usize));
    peer.with(|world| world.is_holding = false);
    within(orders.flush()).await.unwrap();
    peer.with(|world| {
        assert!(
            (0..200).all(|partition| world.end(partition) == if partition == 150 { 6 } else { 1 })
        );
        let turns: Vec<u32> = world
            .publishes
            .iter()
            .map(|(partition, _)| partition.0)
            .collect();
        assert_eq!(
            turns,
            (0..200).collect::<Vec<_>>(),
            "each in its turn, and once"
        );
    });
}

#[tokio::test]
async fn a_batch_that_waits_for_its_turn_fails_when_its_time_is_over() {
    let peer = Peer::start(200).await;
    peer.with(|world| {
        world.granted.requests_in_flight_max = 4_096;
        world.is_holding = true;
    });
    let client = peer.client().await;
    let builder = client.publisher(TOPIC);
    let builder = builder.delivery_timeout(Duration::from_millis(300));
    let orders = builder.build().await.unwrap();
    for partition in 0..199 {
        drop(orders.send_to(partition, "first").await.unwrap());
    }
    let last = orders.send_to(199, "last").await.unwrap();
    let error = within(last).await.unwrap_err();
    assert!(
        matches!(error, PublishError::DeliveryTimeout { .. }),
        "{error}"
    );
    assert!(!error.may_have_happened(), "it was never sent");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_sent_its_credit_and_one_delivery() {
    const BUFFER: u64 = 5_000;
    let peer = Peer::start(1).await;
    peer.with(|world| {
        for batch in 0..100 {
            world.fill(
                0,
                (0..10).map(|record| format!("{batch}-{record}-{:x<100}", "")),
            );
        }
    });
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.buffer_bytes(BUFFER).open().await.unwrap();
    peer.until("the buffer to be full", |world| {
        world.delivered_bytes >= BUFFER
    })
    .await;
    // A round trip on the same connection: no grant is under way that was not seen.
    within(client.list_groups()).await.unwrap();
    peer.with(|world| {
        assert_eq!(world.credit_bytes, BUFFER);
        assert!(world.delivered_bytes <= BUFFER + world.last_delivery_bytes);
    });
    for expected in 0..1_000 {
        let record = within(records.next()).await.unwrap().unwrap();
        assert_eq!(record.offset.get(), expected);
        peer.with(|world| {
            assert!(world.delivered_bytes <= world.credit_bytes + world.last_delivery_bytes);
        });
    }
}

#[tokio::test]
async fn a_broker_that_ignores_credit_is_disconnected_and_nothing_is_lost() {
    let peer = Peer::start(1).await;
    peer.with(|world| {
        for batch in 0..50 {
            world.fill(
                0,
                (0..10).map(|record| format!("{batch}-{record}-{:x<100}", "")),
            );
        }
        world.ignores_credit = true;
    });
    let client = peer.client().await;
    let builder = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = builder.buffer_bytes(1_000).open().await.unwrap();
    peer.until("another connection", |world| world.connections > 1)
        .await;
    peer.with(|world| world.ignores_credit = false);
    for expected in 0..500 {
        let record = within(records.next()).await.unwrap().unwrap();
        assert_eq!(record.offset.get(), expected);
    }
}
