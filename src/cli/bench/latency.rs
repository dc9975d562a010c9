//! `falcon bench latency`.

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Start, Subscription};
use tokio::task::JoinSet;

use super::open_loop::OpenLoop;
use super::report::{Latency, Report, Times};
use super::stage::{Pace, Stage, broken};
use super::{Load, MARK_BYTES, Phases, mark_of, value};
use crate::cli::Global;
use crate::cli::failure::{CliError, Exit};

/// Arguments of `falcon bench latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    phases: Phases,
    /// Records a second, at even times (open loop). Default: the next when the ack of the one before is here.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Measure too until a subscriber, on a connection of its own, has the record.
    #[arg(long)]
    delivery: bool,
}

/// Publishes, and reads.
pub(super) async fn run(args: LatencyArgs, global: &Global) -> Result<(), CliError> {
    if args.delivery && args.load.size < MARK_BYTES as u64 {
        return Err(CliError::new(
            Exit::Usage,
            "bench",
            format!(
                "records of {} bytes cannot say when they were sent",
                args.load.size
            ),
            format!("use --size {MARK_BYTES} or more"),
        ));
    }
    let stage = Stage::open(&args.load, global).await?;
    let client = stage.connect().await?;
    let publisher = stage.publisher(&client).await?;
    let reading = if args.delivery {
        let client = stage.connect().await?;
        let opened = client
            .subscribe(&stage.topic)
            .from(Start::Latest)
            .open()
            .await;
        let records = opened.map_err(|error| CliError::from_subscribe("bench", &error))?;
        Some(records)
    } else {
        None
    };
    let epoch = Instant::now();
    let from = epoch.after(args.phases.warm_up);
    let until = from.after(args.phases.duration);
    let span = Span { epoch, from, until };
    let mut readers = JoinSet::new();
    if let Some(records) = reading {
        readers.spawn(read(records, span));
    }
    let sent = match args.rate {
        None => closed(&publisher, args.load.size, span).await,
        Some(rate) => open(publisher.clone(), args.load.size, rate, span).await,
    };
    let ack = sent.map_err(|error| CliError::from_publish("bench", &error))?;
    // The last record says that there are no more.
    let last = Record::new(value(args.load.size, u64::MAX));
    let ended = publisher.publish(last).await;
    ended.map_err(|error| CliError::from_publish("bench", &error))?;
    let delivery = match readers.join_next().await {
        Some(read) => Some(read.map_err(|error| broken(&error))??),
        None => None,
    };
    let mut load = vec![("size", args.load.size)];
    load.extend(args.rate.map(|rate| ("rate", rate)));
    let ack = ack.summary();
    let report = Report {
        bench: "latency",
        load,
        records: ack.count(),
        value_bytes: ack.count() * args.load.size,
        seconds: args.phases.duration.as_secs_f64(),
        ack: Some(ack),
        delivery,
        rebalance: None,
    };
    drop(publisher);
    stage.close().await?;
    report.print(global.json)
}

/// What is measured: what was due in between.
#[derive(Debug, Clone, Copy)]
struct Span {
    epoch: Instant,
    from: Instant,
    until: Instant,
}

impl Span {
    /// A time as a mark: nanoseconds since the epoch.
    fn mark(self, at: Instant) -> u64 {
        u64::try_from(at.since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn has(self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }
}

async fn closed(publisher: &Publisher, size: u64, span: Span) -> Result<Times, PublishError> {
    let mut times = Times::new();
    loop {
        let at = Instant::now();
        if at >= span.until {
            return Ok(times);
        }
        let record = Record::new(value(size, span.mark(at)));
        publisher.publish(record).await?;
        if span.has(at) {
            times.note(at.elapsed());
        }
    }
}

async fn open(
    publisher: Publisher,
    size: u64,
    rate: u64,
    span: Span,
) -> Result<Times, PublishError> {
    let open = OpenLoop {
        publisher,
        pace: Pace::new(rate),
        until: span.until,
    };
    let record = move |due, _| (0, Record::new(value(size, span.mark(due))));
    let ran = open.run(record, move |due| span.has(due)).await?;
    Ok(ran.times)
}

async fn read(mut records: Subscription, span: Span) -> Result<Latency, CliError> {
    let mut times = Times::new();
    while let Some(record) = records.next().await {
        let now = Instant::now();
        let record = record.map_err(|error| CliError::from_subscribe("bench", &error))?;
        let Some(mark) = record.value.as_deref().and_then(mark_of) else {
            continue;
        };
        if mark == u64::MAX {
            break;
        }
        let due = span.epoch.after(std::time::Duration::from_nanos(mark));
        if span.has(due) {
            times.note(now.since(due));
        }
    }
    Ok(times.summary())
}
