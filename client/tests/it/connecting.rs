//! Making a connection, losing it, noticing that it is dead.

use std::time::Duration;

use falcon_client::{
    Client, ConnectReason, Error, ErrorCode, LostReason, Start, SubscriptionEvent,
};
use tokio::net::TcpListener;

use crate::peer::{Hello, Peer, TOPIC};
use crate::within;

async fn refusal_of(hello: Hello) -> Error {
    let peer = Peer::start(1).await;
    peer.with(|world| world.hello = hello);
    let connecting = peer
        .builder()
        .connect_timeout(Duration::from_millis(200))
        .connect();
    within(connecting).await.unwrap_err()
}

#[tokio::test]
async fn a_wrong_address_is_one_line_that_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = within(Client::connect(&format!("falcon://{address}")))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot connect to {address}: connection refused; is the broker running there?")
    );
    assert!(error.is_retryable() && !error.may_have_happened());
}

#[tokio::test]
async fn a_refused_handshake_has_the_brokers_code() {
    let error = refusal_of(Hello::Refuse(ErrorCode::TooManyConnections)).await;
    assert_eq!(error.code(), Some(ErrorCode::TooManyConnections));
    assert!(error.is_retryable());
    let error = refusal_of(Hello::Refuse(ErrorCode::UnsupportedVersion)).await;
    assert!(!error.is_retryable());
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn a_handshake_that_makes_no_sense_or_never_ends_is_an_error() {
    let reason = |error| match error {
        Error::Connect { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let garbage = reason(refusal_of(Hello::Garbage).await);
    assert_eq!(garbage, ConnectReason::NotFalcon);
    let silence = reason(refusal_of(Hello::Silence).await);
    assert_eq!(silence, ConnectReason::Timeout(Duration::from_millis(200)));
    let close = reason(refusal_of(Hello::Close).await);
    assert!(matches!(close, ConnectReason::Lost(_)), "{close:?}");
}

#[tokio::test]
async fn several_addresses_are_tried_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let peer = Peer::start(1).await;
    let live = peer.url().replace("falcon://", "");
    let client = within(Client::connect(&format!("falcon://{dead},{live}")))
        .await
        .unwrap();
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_by_its_heartbeats() {
    let peer = Peer::start(1).await;
    peer.with(|world| world.granted.heartbeat_ms = 50);
    let client = peer.client().await;
    let records = within(client.subscribe(TOPIC).from(Start::Earliest).open());
    let records = records.await.unwrap();
    let mut events = records.events();
    peer.until("heartbeats", |world| world.pings > 1).await;

    peer.with(|world| world.is_silent = true);
    let lost = within(events.next()).await.unwrap();
    let SubscriptionEvent::Disconnected { reason } = lost else {
        panic!("{lost:?}");
    };
    assert_eq!(reason, LostReason::Silent(Duration::from_millis(150)));

    peer.with(|world| world.is_silent = false);
    loop {
        let event = within(events.next()).await.unwrap();
        if matches!(event, SubscriptionEvent::Connected { .. }) {
            break;
        }
    }
    assert!(peer.with(|world| world.connections) >= 2);
}

#[tokio::test]
async fn a_draining_broker_gets_no_more_requests_and_is_left_when_it_closes() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    within(orders.publish("one")).await.unwrap();
    let records = client.subscribe(TOPIC).open().await.unwrap();
    let mut events = records.events();

    peer.with(|world| world.announces_draining = true);
    // What is sent from the moment the announcement arrives waits for the next broker.
    while client.is_connected() {
        tokio::task::yield_now().await;
    }
    let ticket = orders.send("two").await.unwrap();
    peer.with(|world| world.announces_draining = false);
    peer.kill_connections();
    let receipt = within(ticket).await.unwrap();
    assert_eq!(receipt.offset.get(), 1);
    assert!(!receipt.is_duplicate);
    let event = within(events.next()).await.unwrap();
    assert!(matches!(event, SubscriptionEvent::Disconnected { .. }));
    assert_eq!(peer.with(|world| world.publishes.len()), 2);
}
