//! Consumers and steps of the client crate against the real binary.

mod running;
mod sharing;
mod stepping;

use std::collections::BTreeSet;
use std::time::Duration;

use falcon_client::{
    Client, Consumer, ConsumerBuilder, ConsumerError, Delivered, Record, TopicOptions,
};

use crate::broker::Broker;

/// No wait of a test may take longer. Generous, because tests run in parallel on small machines.
const DEADLINE: Duration = Duration::from_secs(100);
/// Short, so that what waits for its end does not take long.
const SESSION: Duration = Duration::from_secs(2);

async fn within<F: Future>(future: F) -> F::Output {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.expect("it hangs")
}

async fn client(broker: &Broker) -> Client {
    let address = format!("falcon://{}", broker.address());
    Client::connect(&address).await.expect("it is up")
}

/// A client, and topic `orders` of so many partitions with records `0..records`, keyed by number.
async fn with_orders(broker: &Broker, partitions: u32, records: usize) -> Client {
    let client = client(broker).await;
    let options = TopicOptions::new(partitions);
    let created = client.create_topic("orders", options).await;
    created.expect("a fresh broker");
    publish(&client, "orders", 0..records).await;
    client
}

async fn publish(client: &Client, topic: &str, numbers: std::ops::Range<usize>) {
    let publisher = client.publisher(topic).build().await.expect("it is there");
    for number in numbers {
        let record = Record::new(number.to_string()).key(number.to_string());
        drop(publisher.send(record).await.expect("there is room"));
    }
    publisher.close().await.expect("all are durable");
}

fn billing(client: &Client) -> ConsumerBuilder {
    let consumer = client.consumer("billing").topics(["orders"]);
    consumer.session_timeout(SESSION)
}

fn number(record: &Delivered) -> usize {
    let value = record.value.as_deref().expect("it has a value");
    let text = std::str::from_utf8(value).expect("digits");
    text.parse().expect("digits")
}

async fn next(consumer: &mut Consumer) -> Delivered {
    let next = within(consumer.next()).await.expect("it is open");
    next.expect("a record")
}

/// Takes and commits until these are all seen.
async fn take(consumer: &mut Consumer, count: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let record = next(consumer).await;
        assert!(seen.insert(number(&record)), "twice: {record:?}");
        within(consumer.commit(&record)).await.expect("it is held");
    }
    seen
}

/// Waits until a consumer holds so many partitions.
async fn holds(consumer: &Consumer, partitions: usize) {
    let mut events = consumer.events();
    within(async {
        while consumer.assignment().len() != partitions {
            events.next().await.expect("it is open");
        }
    })
    .await;
}

/// What comes within a while, committed at once.
async fn drain(consumer: &mut Consumer, seen: &mut Vec<usize>) -> Result<(), ConsumerError> {
    let pause = Duration::from_millis(300);
    while let Ok(Some(record)) = tokio::time::timeout(pause, consumer.next()).await {
        let record = record?;
        if consumer.commit(&record).await.is_ok() {
            seen.push(number(&record));
        }
    }
    Ok(())
}
