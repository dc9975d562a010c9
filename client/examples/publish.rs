//! Publishes its arguments: `cargo run -p falcon-client --example publish orders one two three`

use falcon_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or("orders".to_owned());
    let server = std::env::var("FALCON_SERVER").unwrap_or("falcon://127.0.0.1:7420".to_owned());
    let falcon = Client::connect(&server).await?;
    let publisher = falcon.publisher(topic).build().await?;

    for value in arguments {
        // Waits when the broker is slower than this loop. The ticket need not be awaited.
        drop(publisher.send(value).await?);
    }
    publisher.flush().await?;
    println!("{}", falcon.shutdown().await);
    Ok(())
}
