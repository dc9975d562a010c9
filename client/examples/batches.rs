//! Sums up a topic, and goes on where it stopped: `cargo run -p falcon-client --example batches orders`
//!
//! Records are taken by batches and read in place, which costs least where there are very many.

use falcon_client::{Client, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = std::env::args().nth(1).unwrap_or("orders".to_owned());
    let server = std::env::var("FALCON_SERVER").unwrap_or("falcon://127.0.0.1:7420".to_owned());
    let falcon = Client::connect(&server).await?;

    let done = falcon.offsets("totals");
    let mut subscription = falcon.subscribe(topic.clone()).from(Start::Earliest);
    for committed in done.fetch(&topic).await? {
        let start = Start::Offset(committed.offset);
        subscription = subscription.partition_from(committed.partition, start);
    }
    let mut records = subscription.open().await?;

    while let Some(batch) = records.next_batch().await {
        let batch = match batch {
            Ok(batch) => batch,
            // One partition has a problem; the others go on.
            Err(error) => {
                eprintln!("{error}");
                continue;
            }
        };
        let values = batch.iter().filter_map(|record| record.value());
        let bytes: usize = values.map(<[u8]>::len).sum();
        println!(
            "{}: {} records, {bytes} bytes",
            batch.partition(),
            batch.len()
        );
        // The whole batch is done.
        done.commit(&topic, batch.partition(), batch.next_offset())
            .await?;
    }
    Ok(())
}
