//! Publishes a value and reads it back: `cargo run -p falcon-client --example typed`

use falcon_client::{Client, Start, TopicOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FALCON_SERVER").unwrap_or("falcon://127.0.0.1:7420".to_owned());
    let falcon = Client::connect(&server).await?;
    // A topic that exists already is as good.
    if let Err(error) = falcon.create_topic("typed", TopicOptions::new(1)).await {
        eprintln!("{error}");
    }

    let orders = falcon.topic::<Order>("typed").key(|order| order.id.clone());
    let publisher = orders.publisher().await?;
    let order = Order {
        id: "17".to_owned(),
        cents: 1_250,
    };
    let receipt = publisher.publish(&order).await?;

    let start = Start::Offset(receipt.offset);
    let subscription = orders.subscribe().partition_from(receipt.partition, start);
    let mut events = subscription.open().await?;
    if let Some(event) = events.next().await {
        println!("{:?}", event?.value);
    }
    falcon.shutdown().await;
    Ok(())
}
