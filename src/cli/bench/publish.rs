//! `falcon bench publish`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Ticket};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::open_loop::{OpenLoop, Pace};
use super::stage::{Stage, broken};
use super::tally::{Kind, Phase, Span};
use super::{Load, Phases, value};
use crate::cli::failure::CliError;

/// One ticket in so many is awaited in a closed loop: enough for a histogram, too few to matter.
const SAMPLE: u64 = 64;
/// Or one in so many bytes.
const SAMPLE_BYTES: u64 = 256 * 1024;
/// LIMIT: sampled acks awaited at a time; the publisher's window bounds their bytes.
const SAMPLED_MAX: usize = 65_536;

/// Arguments of `falcon bench publish`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    phases: Phases,
    /// Publishers, each on a connection of its own; publisher P of N takes partitions P, P + N, ... in turns.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) publishers: u32,
    /// Records a second of all publishers together, at even times (open loop). Default: as fast as it goes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,
}

/// Publishes.
pub(super) async fn run(args: &PublishArgs, stage: &Arc<Stage>) -> Result<(), CliError> {
    let count = args.publishers;
    let mut lines = Vec::new();
    for number in 0..count {
        let client = stage.connect().await?;
        let publisher = stage.publisher(&client).await?;
        let partitions = (0..stage.partitions()).skip(number as usize);
        let mut partitions: Vec<u32> = partitions.step_by(count as usize).collect();
        if partitions.is_empty() {
            partitions.push(number % stage.partitions());
        }
        lines.push(Line {
            publisher,
            partitions,
            size: args.load.size,
            sent: 0,
        });
    }
    let rate = args.rate.map(|rate| (rate, count));
    let (warm_up, length) = (args.phases.warm_up, args.phases.duration);
    let whole = Span::new(warm_up, length);
    if !warm_up.is_zero() {
        stage.tally.enter(Phase::Timed(whole));
        let until = whole.from;
        lines = all(lines, Span { until, ..whole }, rate, stage).await?;
    }
    for line in &mut lines {
        line.sent = 0;
    }
    let span = Span {
        begun: whole.begun,
        ..Span::new(Duration::ZERO, length)
    };
    stage.tally.enter(Phase::Drained(span));
    let done = all(lines, span, rate, stage).await?;
    stage.tally.end();
    if args.rate.is_none() {
        let records = done.iter().map(|line| line.sent).sum();
        stage.tally.settle(records, records * args.load.size);
    }
    Ok(())
}

/// All publishers beside each other; ends when everything is durable. What happens after `span.from` is measured.
async fn all(
    lines: Vec<Line>,
    span: Span,
    rate: Option<(u64, u32)>,
    stage: &Arc<Stage>,
) -> Result<Vec<Line>, CliError> {
    let mut tasks = JoinSet::new();
    for (number, mut line) in (0..).zip(lines) {
        let stage = Arc::clone(stage);
        tasks.spawn(async move {
            let ran = match rate {
                None => line.closed(span, &stage).await,
                Some((rate, count)) => {
                    let start = if is_measured(span) {
                        span.from
                    } else {
                        span.begun
                    };
                    let pace = Pace::new(start, rate, (number, count));
                    line.open(span, pace, &stage).await
                }
            };
            ran.map(|()| line)
        });
    }
    let mut done = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let ran = task.map_err(|error| broken(&error))?;
        done.push(ran.map_err(|error| CliError::from_publish("bench", &error))?);
    }
    Ok(done)
}

/// The warm-up ends where measuring would begin.
fn is_measured(span: Span) -> bool {
    span.from < span.until
}

struct Line {
    publisher: Publisher,
    partitions: Vec<u32>,
    size: u64,
    sent: u64,
}

/// A ticket that is awaited, for so many records.
struct Sampled {
    at: Instant,
    ticket: Ticket,
    records: u64,
}

impl Line {
    /// As fast as there is room.
    async fn closed(&mut self, span: Span, stage: &Arc<Stage>) -> Result<(), PublishError> {
        let (to, sampled) = mpsc::channel(SAMPLED_MAX);
        let mut sampler = JoinSet::new();
        sampler.spawn(sample(
            sampled,
            Arc::clone(stage),
            self.size,
            is_measured(span),
        ));
        let records = SAMPLE.min(SAMPLE_BYTES / self.size.max(1)).max(1);
        let mut turns = self.partitions.clone().into_iter().cycle();
        loop {
            let partition = turns.next().unwrap_or_default();
            if Instant::now() >= span.until {
                break;
            }
            // The clock is read for one record in so many.
            for _ in 0..records - 1 {
                let record = Record::new(value(self.size, self.sent));
                let next = turns.next().unwrap_or(partition);
                drop(self.publisher.send_to(next, record).await?);
                self.sent += 1;
            }
            let at = Instant::now();
            let record = Record::new(value(self.size, self.sent));
            let ticket = self.publisher.send_to(partition, record).await?;
            self.sent += 1;
            let sampled = Sampled {
                at,
                ticket,
                records,
            };
            // The sampler lives until this end is dropped.
            to.send(sampled).await.ok();
        }
        drop(to);
        self.publisher.flush().await?;
        // It only waited for what is durable now.
        sampler.join_next().await;
        Ok(())
    }

    /// At even times, whatever the broker does.
    async fn open(
        &mut self,
        span: Span,
        pace: Pace,
        stage: &Arc<Stage>,
    ) -> Result<(), PublishError> {
        let (partitions, size) = (self.partitions.clone(), self.size);
        let open = OpenLoop {
            publisher: self.publisher.clone(),
            pace,
            span,
            size,
        };
        let mut turns = partitions.into_iter().cycle();
        let record = move |_, number| {
            let record = Record::new(value(size, number));
            (turns.next().unwrap_or_default(), record)
        };
        open.run(stage, record).await
    }
}

async fn sample(
    mut sampled: mpsc::Receiver<Sampled>,
    stage: Arc<Stage>,
    size: u64,
    is_measured: bool,
) {
    while let Some(Sampled {
        at,
        ticket,
        records,
    }) = sampled.recv().await
    {
        // A failure is the flush's to report.
        if ticket.await.is_ok() {
            if is_measured {
                stage.tally.note(Kind::Ack, at.elapsed());
            }
            stage.tally.count(records, records * size, is_measured);
        }
    }
}
