//! `falcon bench fanout`.

use std::hint::black_box;
use std::sync::Arc;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Start, Subscription};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::stage::{Stage, broken};
use super::tally::{Phase, Span};
use super::{Load, Phases, mark_of, value};
use crate::cli::failure::CliError;

/// Arguments of `falcon bench fanout`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    phases: Phases,
    /// Subscribers, each on a connection of its own; each reads everything.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) subscribers: u32,
}

/// LIMIT: news of the reader that the publisher waits for.
const PROGRESS_MAX: usize = 1024;
/// Publishes no faster than the slowest subscriber reads.
const AHEAD: u64 = 16_384;

/// A subscriber counts after so many records, and then reads the clock.
const COUNT_EVERY: u64 = 64;

/// Publishes, and reads many times over.
pub(super) async fn run(args: &FanoutArgs, stage: &Arc<Stage>) -> Result<(), CliError> {
    let (progress, slowest) = mpsc::channel(PROGRESS_MAX);
    let mut subscriptions = Vec::new();
    for _ in 0..args.subscribers {
        let client = stage.connect().await?;
        let builder = client.subscribe(&stage.topic).from(Start::Latest);
        let opened = builder.open().await;
        subscriptions.push(opened.map_err(|error| CliError::from_subscribe("bench", &error))?);
    }
    let publisher = stage.publisher(&stage.client).await?;
    let span = Span::new(args.phases.warm_up, args.phases.duration);
    stage.tally.enter(Phase::Timed(span));
    let mut tasks = JoinSet::new();
    let mut progress = Some(progress);
    for records in subscriptions {
        let reader = Reader {
            records,
            // One of them speaks for all.
            progress: progress.take(),
            ends: stage.partitions(),
            size: args.load.size,
        };
        tasks.spawn(reader.run(span, Arc::clone(stage)));
    }
    let sent = publish(
        &publisher,
        args.load.size,
        (span, stage.partitions()),
        slowest,
    )
    .await;
    sent.map_err(|error| CliError::from_publish("bench", &error))?;
    while let Some(task) = tasks.join_next().await {
        task.map_err(|error| broken(&error))??;
    }
    stage.tally.end();
    Ok(())
}

/// Publishes until the end, and says it in every partition.
async fn publish(
    publisher: &Publisher,
    size: u64,
    (span, partitions): (Span, u32),
    mut slowest: mpsc::Receiver<u64>,
) -> Result<(), PublishError> {
    let (mut sent, mut read) = (0_u64, 0_u64);
    let mut turns = (0..partitions).cycle();
    while Instant::now() < span.until {
        let partition = turns.next().unwrap_or_default();
        let record = Record::new(value(size, sent));
        drop(publisher.send_to(partition, record).await?);
        sent += 1;
        while sent.saturating_sub(read) > AHEAD {
            match slowest.recv().await {
                Some(count) => read = count,
                None => break,
            }
        }
    }
    publisher.flush().await?;
    for partition in 0..partitions {
        let last = Record::new(value(size, u64::MAX));
        publisher.send_to(partition, last).await?.await?;
    }
    Ok(())
}

struct Reader {
    records: Subscription,
    progress: Option<mpsc::Sender<u64>>,
    /// Partitions that have not ended.
    ends: u32,
    size: u64,
}

impl Reader {
    /// Reads until the mark of the end in every partition; counts what comes while it is measured.
    async fn run(mut self, span: Span, stage: Arc<Stage>) -> Result<(), CliError> {
        let (mut all, mut counted) = (0, 0);
        while self.ends > 0 {
            let Some(batch) = self.records.next_batch().await else {
                break;
            };
            let batch = batch.map_err(|error| CliError::from_subscribe("bench", &error))?;
            for record in &batch {
                let record = black_box(record);
                if record.value().and_then(mark_of) == Some(u64::MAX) {
                    self.ends -= 1;
                }
            }
            all += batch.len() as u64;
            let new = all - counted;
            if new >= COUNT_EVERY {
                counted = all;
                let is_measured = span.has(Instant::now());
                stage.tally.count(new, new * self.size, is_measured);
                if let Some(progress) = &self.progress {
                    // A publisher that has not taken the last ones in needs no more.
                    progress.try_send(all).ok();
                }
            }
        }
        Ok(())
    }
}
