//! Shares a topic with every other process of the group, and prints what it gets:
//! `cargo run -p falcon-client --example consumer orders billing`

use std::time::Duration;

use falcon_client::{AutoCommit, Client, RunOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let topic = args.next().unwrap_or("orders".to_owned());
    let group = args.next().unwrap_or("billing".to_owned());
    let server = std::env::var("FALCON_SERVER").unwrap_or("falcon://127.0.0.1:7420".to_owned());
    let falcon = Client::connect(&server).await?;
    let every = Duration::from_secs(1);
    let consumer = falcon.consumer(group).topics([topic]);
    let consumer = consumer.auto_commit(AutoCommit::Handled { every });
    let mut consumer = consumer.join().await?;

    let run = consumer.run(RunOptions::new(), |record| async move {
        let value = record.value.unwrap_or_default();
        let text = String::from_utf8(value.to_vec())?;
        println!("{}/{} {text}", record.partition, record.offset);
        Ok::<(), std::string::FromUtf8Error>(())
    });
    let report = run.await?;
    println!("{report}");
    consumer.close().await?;
    Ok(())
}
