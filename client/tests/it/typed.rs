//! Topics of values of one type.

use falcon_client::{Bincode, Record, Start, SubscribeError};
use serde::{Deserialize, Serialize};

use crate::peer::{Peer, TOPIC};
use crate::within;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: String,
    cents: u64,
}

fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        cents: 1_250,
    }
}

#[tokio::test]
async fn values_go_in_and_come_out_with_their_keys() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.topic::<Order>(TOPIC).key(|order| order.id.clone());
    let publisher = orders.publisher().await.unwrap();
    within(publisher.publish(&order("17"))).await.unwrap();
    let mut events = orders
        .subscribe()
        .from(Start::Earliest)
        .open()
        .await
        .unwrap();
    let event = within(events.next()).await.unwrap().unwrap();
    assert_eq!(event.key.as_deref(), Some(&b"17"[..]));
    assert_eq!(event.value, Some(order("17")));
    assert_eq!(event.next_offset(), events.position(0));
    let json = peer.with(|world| world.values(0));
    assert_eq!(json, [r#"{"id":"17","cents":1250}"#]);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_an_error_of_one_record() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.topic::<Order>(TOPIC).with_codec(Bincode);
    let publisher = orders.publisher().await.unwrap();
    within(publisher.publish(&order("1"))).await.unwrap();
    within(publisher.inner().publish("no order")).await.unwrap();
    within(publisher.inner().publish(Record::tombstone("1")))
        .await
        .unwrap();
    within(publisher.publish(&order("2"))).await.unwrap();

    let mut events = orders
        .subscribe()
        .from(Start::Earliest)
        .open()
        .await
        .unwrap();
    let first = within(events.next()).await.unwrap().unwrap();
    assert_eq!(first.value, Some(order("1")));
    let error = within(events.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, SubscribeError::Decode { .. }), "{error}");
    let gone = within(events.next()).await.unwrap().unwrap();
    assert_eq!(gone.value, None);
    let last = within(events.next()).await.unwrap().unwrap();
    assert_eq!(last.value, Some(order("2")));
}
