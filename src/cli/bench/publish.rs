//! `falcon bench publish`.

use std::time::Duration;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Ticket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::open_loop::OpenLoop;
use super::report::{Report, Times};
use super::stage::{Pace, Stage, TICKETS_MAX, broken};
use super::{Load, Phases, value};
use crate::cli::Global;
use crate::cli::failure::CliError;

/// One ticket in so many is awaited in a closed loop: enough for a histogram, too few to matter.
const SAMPLE: u64 = 64;

/// Arguments of `falcon bench publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    phases: Phases,
    /// Publishers, each on a connection of its own; publisher P of N takes partitions P, P + N, ... in turns.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// Records a second of all publishers together, at even times (open loop). Default: as fast as it goes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
}

/// Publishes.
pub(super) async fn run(args: PublishArgs, global: &Global) -> Result<(), CliError> {
    let stage = Stage::open(&args.load, global).await?;
    let count = args.publishers.max(1);
    let mut lines = Vec::new();
    for number in 0..count {
        let client = stage.connect().await?;
        let publisher = stage.publisher(&client).await?;
        let partitions = (0..stage.partitions).skip(number as usize);
        let mut partitions: Vec<u32> = partitions.step_by(count as usize).collect();
        if partitions.is_empty() {
            partitions.push(number % stage.partitions);
        }
        lines.push(Line {
            publisher,
            partitions,
            size: args.load.size,
            sent: 0,
        });
    }
    let rate = args.rate.map(|rate| rate.div_ceil(u64::from(count)));
    lines = all(lines, args.phases.warm_up, rate).await?.lines;
    for line in &mut lines {
        line.sent = 0;
    }
    let begun = Instant::now();
    let done = all(lines, args.phases.duration, rate).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let records: u64 = done.lines.iter().map(|line| line.sent).sum();
    let mut load = vec![
        ("size", args.load.size),
        ("publishers", u64::from(count)),
        ("partitions", u64::from(stage.partitions)),
    ];
    load.extend(args.rate.map(|rate| ("rate", rate)));
    let report = Report {
        bench: "publish",
        load,
        records,
        value_bytes: records * args.load.size,
        seconds,
        ack: Some(done.times.summary()),
        delivery: None,
        rebalance: None,
    };
    drop(done.lines);
    stage.close().await?;
    report.print(global.json)
}

struct Line {
    publisher: Publisher,
    partitions: Vec<u32>,
    size: u64,
    sent: u64,
}

struct Done {
    lines: Vec<Line>,
    times: Times,
}

/// All publishers beside each other; ends when everything is durable.
async fn all(lines: Vec<Line>, length: Duration, rate: Option<u64>) -> Result<Done, CliError> {
    let mut tasks = JoinSet::new();
    for mut line in lines {
        tasks.spawn(async move {
            let ran = match rate {
                None => line.closed(length).await,
                Some(rate) => line.open(length, rate).await,
            };
            ran.map(|times| (line, times))
        });
    }
    let mut done = Done {
        lines: Vec::new(),
        times: Times::new(),
    };
    while let Some(task) = tasks.join_next().await {
        let ran = task.map_err(|error| broken(&error))?;
        let (line, times) = ran.map_err(|error| CliError::from_publish("bench", &error))?;
        done.times.add(&times);
        done.lines.push(line);
    }
    Ok(done)
}

impl Line {
    /// As fast as there is room.
    async fn closed(&mut self, length: Duration) -> Result<Times, PublishError> {
        let (to, mut sampled) = mpsc::channel::<(Instant, Ticket)>(TICKETS_MAX);
        let mut sampler = JoinSet::new();
        sampler.spawn(async move {
            let mut times = Times::new();
            while let Some((at, ticket)) = sampled.recv().await {
                // A failure is the flush's to report.
                if ticket.await.is_ok() {
                    times.note(Instant::elapsed(at));
                }
            }
            times
        });
        let begun = Instant::now();
        let mut turns = self.partitions.clone().into_iter().cycle();
        loop {
            let partition = turns.next().unwrap_or_default();
            let at = Instant::now();
            if at.since(begun) >= length {
                break;
            }
            // The clock is read for one record in so many.
            for _ in 0..SAMPLE - 1 {
                let record = Record::new(value(self.size, self.sent));
                let next = turns.next().unwrap_or(partition);
                drop(self.publisher.send_to(next, record).await?);
                self.sent += 1;
            }
            let at = Instant::now();
            let record = Record::new(value(self.size, self.sent));
            let ticket = self.publisher.send_to(partition, record).await?;
            self.sent += 1;
            // The sampler lives until this end is dropped.
            to.send((at, ticket)).await.ok();
        }
        drop(to);
        self.publisher.flush().await?;
        let sampled = sampler.join_next().await;
        Ok(sampled.and_then(Result::ok).unwrap_or_else(Times::new))
    }

    /// At even times, whatever the broker does.
    async fn open(&mut self, length: Duration, rate: u64) -> Result<Times, PublishError> {
        let until = Instant::now().after(length);
        let (partitions, size) = (self.partitions.clone(), self.size);
        let open = OpenLoop {
            publisher: self.publisher.clone(),
            pace: Pace::new(rate),
            until,
        };
        let mut turns = partitions.into_iter().cycle();
        let record = move |_, number| {
            let record = Record::new(value(size, number));
            (turns.next().unwrap_or_default(), record)
        };
        let ran = open.run(record, |_| true).await?;
        self.sent += ran.sent;
        Ok(ran.times)
    }
}
