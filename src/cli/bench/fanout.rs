//! `falcon bench fanout`.

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{Record, Start, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::report::Report;
use super::stage::{Stage, broken};
use super::{Load, MARK_BYTES, Phases, mark_of, value};
use crate::cli::Global;
use crate::cli::failure::{CliError, Exit};

/// Arguments of `falcon bench fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    phases: Phases,
    /// Subscribers, each on a connection of its own; each reads everything.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
}

/// LIMIT: news of the reader that the publisher waits for.
const PROGRESS_MAX: usize = 1024;
/// Publishes no faster than the slowest subscriber reads.
const AHEAD: u64 = 16_384;

/// Publishes, and reads many times over.
pub(super) async fn run(args: FanoutArgs, global: &Global) -> Result<(), CliError> {
    if args.load.size < MARK_BYTES as u64 {
        let why = format!("records of {} bytes cannot be told apart", args.load.size);
        let remedy = format!("use --size {MARK_BYTES} or more");
        return Err(CliError::new(Exit::Usage, "bench", why, remedy));
    }
    let stage = Stage::open(&args.load, global).await?;
    let begun = Instant::now();
    let from = begun.after(args.phases.warm_up);
    let until = from.after(args.phases.duration);
    let (progress, mut slowest) = mpsc::channel(PROGRESS_MAX);
    let mut tasks = JoinSet::new();
    for number in 0..args.subscribers {
        let client = stage.connect().await?;
        let opened = client
            .subscribe(&stage.topic)
            .from(Start::Latest)
            .open()
            .await;
        let records = opened.map_err(|error| CliError::from_subscribe("bench", &error))?;
        let to = (number == 0).then(|| progress.clone());
        tasks.spawn(read(records, to, (from, until)));
    }
    drop(progress);
    let failure = |error| CliError::from_publish("bench", &error);
    let publisher = stage.publisher(&stage.client).await?;
    let (mut sent, mut read) = (0_u64, 0_u64);
    let mut turns = (0..stage.partitions).cycle();
    while Instant::now() < until {
        let partition = turns.next().unwrap_or_default();
        let record = Record::new(value(args.load.size, sent));
        drop(
            publisher
                .send_to(partition, record)
                .await
                .map_err(failure)?,
        );
        sent += 1;
        while sent.saturating_sub(read) > AHEAD {
            match slowest.recv().await {
                Some(count) => read = count,
                None => break,
            }
        }
    }
    publisher.flush().await.map_err(failure)?;
    for partition in 0..stage.partitions {
        let last = Record::new(value(args.load.size, u64::MAX));
        let ended = publisher.send_to(partition, last).await.map_err(failure)?;
        ended.await.map_err(failure)?;
    }
    let mut records = 0;
    while let Some(task) = tasks.join_next().await {
        records += task.map_err(|error| broken(&error))??;
    }
    let report = Report {
        bench: "fanout",
        load: vec![
            ("size", args.load.size),
            ("subscribers", u64::from(args.subscribers)),
            ("partitions", u64::from(stage.partitions)),
        ],
        records,
        value_bytes: records * args.load.size,
        seconds: args.phases.duration.as_secs_f64(),
        ack: None,
        delivery: None,
        rebalance: None,
    };
    drop(publisher);
    stage.close().await?;
    report.print(global.json)
}

/// Reads until the mark of the end; answers how many came while it was measured.
async fn read(
    mut records: Subscription,
    progress: Option<mpsc::Sender<u64>>,
    (from, until): (Instant, Instant),
) -> Result<u64, CliError> {
    let (mut measured, mut all) = (0, 0);
    let mut is_measured = false;
    while let Some(record) = records.next().await {
        let record = record.map_err(|error| CliError::from_subscribe("bench", &error))?;
        // The clock is read for one record in so many.
        if all % 64 == 0 {
            let now = Instant::now();
            is_measured = now >= from && now < until;
            if let Some(progress) = &progress {
                // A publisher that has not taken the last ones in needs no more.
                progress.try_send(all).ok();
            }
        }
        all += 1;
        measured += u64::from(is_measured);
        if record.value.as_deref().and_then(mark_of) == Some(u64::MAX) {
            break;
        }
    }
    Ok(measured)
}
