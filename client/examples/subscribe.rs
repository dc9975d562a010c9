//! Prints a topic from its beginning: `cargo run -p falcon-client --example subscribe orders`

use falcon_client::{Client, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = std::env::args().nth(1).unwrap_or("orders".to_owned());
    let server = std::env::var("FALCON_SERVER").unwrap_or("falcon://127.0.0.1:7420".to_owned());
    let falcon = Client::connect(&server).await?;
    let mut records = falcon.subscribe(topic).from(Start::Earliest).open().await?;

    while let Some(record) = records.next().await {
        match record {
            Ok(record) => {
                let value = record.value.unwrap_or_default();
                let text = String::from_utf8_lossy(&value);
                println!("{}/{} {text}", record.partition, record.offset);
            }
            // One partition has a problem; the others go on.
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
