//! `falcon bench scale`.

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record};
use tokio::task::JoinSet;

use super::report::{Report, Times};
use super::stage::{Stage, broken};
use super::{Load, Phases, value};
use crate::cli::Global;
use crate::cli::failure::CliError;

/// Arguments of `falcon bench scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    phases: Phases,
    /// Tasks; each publishes a record, waits for its ack, and publishes the next.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// Connections that the tasks share.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

/// Publishes.
pub(super) async fn run(args: ScaleArgs, global: &Global) -> Result<(), CliError> {
    let stage = Stage::open(&args.load, global).await?;
    let mut publishers = Vec::new();
    for _ in 0..args.connections.max(1) {
        let client = stage.connect().await?;
        publishers.push(stage.publisher(&client).await?);
    }
    let begun = Instant::now();
    let from = begun.after(args.phases.warm_up);
    let until = from.after(args.phases.duration);
    let mut tasks = JoinSet::new();
    for (number, publisher) in (0..args.tasks).zip(publishers.iter().cycle()) {
        let partition = number % stage.partitions;
        let (publisher, size) = (publisher.clone(), args.load.size);
        tasks.spawn(one_by_one(publisher, partition, size, (from, until)));
    }
    let mut times = Times::new();
    while let Some(task) = tasks.join_next().await {
        let ran = task.map_err(|error| broken(&error))?;
        times.add(&ran.map_err(|error| CliError::from_publish("bench", &error))?);
    }
    let ack = times.summary();
    let report = Report {
        bench: "scale",
        load: vec![
            ("size", args.load.size),
            ("tasks", u64::from(args.tasks)),
            ("connections", u64::from(args.connections)),
            ("partitions", u64::from(stage.partitions)),
        ],
        records: ack.count(),
        value_bytes: ack.count() * args.load.size,
        seconds: args.phases.duration.as_secs_f64(),
        ack: Some(ack),
        delivery: None,
        rebalance: None,
    };
    drop(publishers);
    stage.close().await?;
    report.print(global.json)
}

/// Counts what began and ended while it is measured.
async fn one_by_one(
    publisher: Publisher,
    partition: u32,
    size: u64,
    (from, until): (Instant, Instant),
) -> Result<Times, PublishError> {
    let mut times = Times::new();
    let mut sent = u64::from(partition);
    loop {
        let at = Instant::now();
        if at >= until {
            return Ok(times);
        }
        let record = Record::new(value(size, sent));
        publisher.send_to(partition, record).await?.await?;
        sent += 1;
        let now = Instant::now();
        if at >= from && now <= until {
            times.note(now.since(at));
        }
    }
}
