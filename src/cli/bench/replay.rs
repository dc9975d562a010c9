//! `falcon bench replay`.

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{Client, Record, Start};
use tokio::task::JoinSet;

use super::report::Report;
use super::stage::{Stage, broken};
use super::{Load, value};
use crate::cli::Global;
use crate::cli::failure::CliError;

/// Arguments of `falcon bench replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    load: Load,
    /// Records that the fresh topic is filled with first; an existing one is read as it is.
    #[arg(long, default_value_t = 5_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Subscribers, each on a connection of its own; each reads everything.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
}

/// Fills a topic and reads it.
pub(super) async fn run(args: ReplayArgs, global: &Global) -> Result<(), CliError> {
    let stage = Stage::open(&args.load, global).await?;
    if args.load.topic.is_none() {
        fill(&stage, args.records, args.load.size).await?;
    }
    let ends = stage.client.latest_offsets(&stage.topic).await;
    let ends = ends.map_err(|error| CliError::from_client("bench", &error))?;
    let count: u64 = ends.iter().map(|end| end.offset.since(end.log_start)).sum();
    let mut clients = Vec::new();
    for _ in 0..args.subscribers {
        clients.push(stage.connect().await?);
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        let topic = stage.topic.clone();
        tasks.spawn(async move { read(&client, &topic, count).await });
    }
    let mut bytes = 0;
    while let Some(task) = tasks.join_next().await {
        bytes += task.map_err(|error| broken(&error))??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report {
        bench: "replay",
        load: vec![
            ("size", args.load.size),
            ("subscribers", u64::from(args.subscribers)),
            ("partitions", u64::from(stage.partitions)),
        ],
        records: count * u64::from(args.subscribers),
        value_bytes: bytes,
        seconds,
        ack: None,
        delivery: None,
        rebalance: None,
    };
    stage.close().await?;
    report.print(global.json)
}

async fn fill(stage: &Stage, records: u64, size: u64) -> Result<(), CliError> {
    let failure = |error| CliError::from_publish("bench", &error);
    let publisher = stage.publisher(&stage.client).await?;
    for number in 0..records {
        let partition = u32::try_from(number % u64::from(stage.partitions)).unwrap_or_default();
        let record = Record::new(value(size, number));
        let sent = publisher.send_to(partition, record).await;
        drop(sent.map_err(failure)?);
    }
    publisher.flush().await.map_err(failure)
}

/// Reads so many records; answers the bytes of their values.
async fn read(client: &Client, topic: &str, count: u64) -> Result<u64, CliError> {
    let failure = |error| CliError::from_subscribe("bench", &error);
    let opened = client.subscribe(topic).from(Start::Earliest).open().await;
    let mut records = opened.map_err(failure)?;
    let mut bytes = 0;
    for _ in 0..count {
        match records.next().await {
            Some(Ok(record)) => bytes += record.value.as_ref().map_or(0, |v| v.len() as u64),
            Some(Err(error)) => return Err(failure(error)),
            None => break,
        }
    }
    records.close().await;
    Ok(bytes)
}
