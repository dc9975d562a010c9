//! Ending in order, and ending without.

use std::time::Duration;

use falcon_client::{Error, PublishError, Start};

use crate::peer::{OnPublish, Peer, TOPIC};
use crate::within;

#[tokio::test]
async fn a_shutdown_delivers_what_was_sent_and_reports_it() {
    let peer = Peer::start(2).await;
    peer.with(|world| world.fill(1, ["a".to_owned(), "b".to_owned()]));
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    let mut records = client
        .subscribe(TOPIC)
        .partition_from(1, Start::Earliest)
        .open()
        .await
        .unwrap();
    within(records.next()).await.unwrap().unwrap();
    for _ in 0..100 {
        drop(orders.send_to(0, "x").await.unwrap());
    }
    let report = within(client.shutdown()).await;
    assert_eq!((report.acked, report.failed, report.abandoned), (100, 0, 0));
    assert_eq!(report.delivered, 1);
    assert!(report.is_clean());
    assert_eq!(peer.with(|world| world.end(0)), 100);
    assert_eq!(peer.with(|world| world.goodbyes), 1);

    // The batch that was being read is read to its end.
    within(records.next()).await.unwrap().unwrap();
    assert!(within(records.next()).await.is_none());
    let late = within(orders.send("late")).await.unwrap_err();
    assert_eq!(late, PublishError::Closed);
    let late = within(client.list_groups()).await.unwrap_err();
    assert_eq!(late, Error::Closed);
    let again = within(client.shutdown()).await;
    assert_eq!((again.acked, again.delivered), (100, 2));
}

#[tokio::test]
async fn what_cannot_be_delivered_in_time_is_abandoned_and_reported() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    within(orders.publish("acked")).await.unwrap();
    peer.script([OnPublish::Swallow]);
    let sent = orders.send("swallowed").await.unwrap();
    peer.until("it", |world| world.publishes.len() == 2).await;
    let unsent = orders.send("behind").await.unwrap();
    let report = within(client.shutdown_within(Duration::from_millis(50))).await;
    assert_eq!((report.acked, report.abandoned), (1, 2));
    assert!(!report.is_clean());
    let error = within(sent).await.unwrap_err();
    assert!(matches!(error, PublishError::Abandoned { .. }), "{error}");
    assert!(error.may_have_happened());
    assert!(!within(unsent).await.unwrap_err().may_have_happened());
}

#[tokio::test]
async fn close_flushes_and_refuses_what_comes_after() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    let clone = orders.clone();
    drop(orders.send("in time").await.unwrap());
    within(orders.close()).await.unwrap();
    assert_eq!(peer.with(|world| world.values(0)), ["in time"]);
    assert_eq!(
        within(clone.send("late")).await.unwrap_err(),
        PublishError::Closed
    );
}

#[tokio::test]
async fn a_publisher_keeps_the_connection_and_the_last_handle_closes_it() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    drop(client);
    within(orders.publish("still")).await.unwrap();
    let ticket = orders.send("last").await.unwrap();
    drop(orders);
    within(ticket).await.unwrap();
    assert_eq!(peer.with(|world| world.values(0)), ["still", "last"]);
}
