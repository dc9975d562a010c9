//! `falcon bench latency`.

use std::sync::Arc;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Start, Subscription};
use serde::Serialize;
use tokio::task::JoinSet;

use super::open_loop::{OpenLoop, Pace};
use super::stage::{Stage, broken};
use super::tally::{Kind, Phase, Span};
use super::{Load, Phases, mark_of, value};
use crate::cli::failure::CliError;

/// Arguments of `falcon bench latency`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    phases: Phases,
    /// Records a second, at even times (open loop). Default: the next when the ack of the one before is here.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,
    /// Measure too until a subscriber, on a connection of its own, has the record.
    #[arg(long)]
    pub(super) delivery: bool,
}

/// Publishes, and reads.
pub(super) async fn run(args: &LatencyArgs, stage: &Arc<Stage>) -> Result<(), CliError> {
    let client = stage.connect().await?;
    let publisher = stage.publisher(&client).await?;
    let reading = if args.delivery {
        let client = stage.connect().await?;
        let builder = client.subscribe(&stage.topic).from(Start::Latest);
        let opened = builder.open().await;
        Some(opened.map_err(|error| CliError::from_subscribe("bench", &error))?)
    } else {
        None
    };
    let span = Span::new(args.phases.warm_up, args.phases.duration);
    // At a rate, what is late counts, so the time that it took does too.
    stage.tally.enter(match args.rate {
        None => Phase::Timed(span),
        Some(_) => Phase::Drained(span),
    });
    let mut readers = JoinSet::new();
    if let Some(records) = reading {
        readers.spawn(read(records, span, Arc::clone(stage)));
    }
    let sent = match args.rate {
        None => closed(&publisher, args.load.size, span, stage).await,
        Some(rate) => {
            let open = OpenLoop {
                publisher: publisher.clone(),
                pace: Pace::new(span.begun, rate, (0, 1)),
                span,
                size: args.load.size,
            };
            let size = args.load.size;
            let record = move |due, _| (0, Record::new(value(size, mark(span, due))));
            open.run(stage, record).await
        }
    };
    sent.map_err(|error| CliError::from_publish("bench", &error))?;
    // The last record says that there are no more.
    let last = Record::new(value(args.load.size, u64::MAX));
    let ended = publisher.publish(last).await;
    ended.map_err(|error| CliError::from_publish("bench", &error))?;
    while let Some(read) = readers.join_next().await {
        read.map_err(|error| broken(&error))??;
    }
    stage.tally.end();
    Ok(())
}

/// A time as a mark: nanoseconds since the start.
fn mark(span: Span, at: Instant) -> u64 {
    u64::try_from(at.since(span.begun).as_nanos()).unwrap_or(u64::MAX)
}

async fn closed(
    publisher: &Publisher,
    size: u64,
    span: Span,
    stage: &Stage,
) -> Result<(), PublishError> {
    loop {
        let at = Instant::now();
        if at >= span.until {
            return Ok(());
        }
        let record = Record::new(value(size, mark(span, at)));
        publisher.publish(record).await?;
        let is_measured = span.has(at);
        if is_measured {
            stage.tally.note(Kind::Ack, at.elapsed());
        }
        stage.tally.count(1, size, is_measured);
    }
}

async fn read(mut records: Subscription, span: Span, stage: Arc<Stage>) -> Result<(), CliError> {
    while let Some(record) = records.next().await {
        let now = Instant::now();
        let record = record.map_err(|error| CliError::from_subscribe("bench", &error))?;
        let Some(mark) = record.value.as_deref().and_then(mark_of) else {
            continue;
        };
        if mark == u64::MAX {
            break;
        }
        let due = span.begun.after(std::time::Duration::from_nanos(mark));
        if span.has(due) {
            stage.tally.note(Kind::Delivery, now.since(due));
        }
    }
    Ok(())
}
