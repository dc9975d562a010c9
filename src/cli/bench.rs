//! `falcon bench`: how fast a broker is, seen through the public client.
//!
//! Owns what the kinds of load have in common: the topic, phases, histograms, what can end a run, and the report.
//! Promises: records are built and sent one by one, and each is decoded on the way out, as a program would; every record counted
//! as published is durable before the clock stops; with a rate, times count from when a record was due
//! and not from when there was room for it, so a broker that stands still is not flattered (coordinated
//! omission); a run ends soon after its broker is gone, and deletes what it made however it ends. Must not know: the
//! broker's inside.

mod fanout;
mod latency;
mod open_loop;
mod publish;
mod rebalance;
mod replay;
mod report;
mod scale;
mod schedule;
mod stage;
mod tally;
mod times;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use falcon_protocol::limits::{BATCH_BYTES_MAX, TOPIC_PARTITIONS_MAX};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::Global;
use super::arguments;
use super::failure::{CliError, Exit};
use super::notice;
use super::signals::Signals;
use report::Report;
use stage::{Stage, broken};
use watch::Watch;

/// The commands of `falcon bench`.
#[derive(Debug, Subcommand, Serialize)]
#[serde(untagged)]
pub(crate) enum BenchCommand {
    /// Publish as fast as the broker makes records durable, or at a rate.
    Publish(publish::PublishArgs),
    /// Read a topic from its beginning, as fast as it comes; each record is decoded.
    Replay(replay::ReplayArgs),
    /// One record after the other, or at a rate: time until the ack, and until a subscriber has it.
    Latency(latency::LatencyArgs),
    /// One publisher, many subscribers that all read everything.
    Fanout(fanout::FanoutArgs),
    /// One member of a consumer group joins and leaves: time until every partition has its owner again.
    Rebalance(rebalance::RebalanceArgs),
    /// Many tasks on few connections, each waiting for the ack of its record before the next.
    Scale(scale::ScaleArgs),
}

/// LIMIT: workers of the runtime for tasks that keep a pace.
const PACERS_MAX: u32 = 64;

impl BenchCommand {
    /// Tasks that keep a pace, each by sleeping on a worker of the runtime.
    pub(super) fn pacers(&self) -> usize {
        let pacers = match self {
            Self::Publish(args) if args.rate.is_some() => args.publishers.min(PACERS_MAX),
            Self::Latency(args) if args.rate.is_some() => 1,
            Self::Publish(_)
            | Self::Replay(_)
            | Self::Latency(_)
            | Self::Fanout(_)
            | Self::Rebalance(_)
            | Self::Scale(_) => 0,
        };
        pacers as usize
    }
}

/// What all kinds of load need.
#[derive(Debug, Clone, Args, Serialize)]
struct Load {
    /// A topic that exists; records that are published stay in it. Default: a fresh one, deleted in the end.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Partitions of the fresh topic.
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "topic", value_parser = partitions())]
    partitions: u32,
    /// Bytes of each record's value.
    #[arg(long, default_value = "100", value_name = "SIZE", value_parser = record_bytes)]
    size: u64,
}

/// How long it is measured.
#[derive(Debug, Clone, Copy, Args, Serialize)]
struct Phases {
    /// How long it is measured.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = arguments::duration_above_zero)]
    #[serde(rename = "duration_ms", serialize_with = "as_millis")]
    duration: Duration,
    /// How long it runs before that.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = arguments::duration)]
    #[serde(rename = "warm_up_ms", serialize_with = "as_millis")]
    warm_up: Duration,
}

fn as_millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn partitions() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(TOPIC_PARTITIONS_MAX))
}

fn record_bytes(text: &str) -> Result<u64, String> {
    let bytes = arguments::bytes(text)?;
    if bytes > u64::from(BATCH_BYTES_MAX) {
        return Err(format!("no batch is larger than {BATCH_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// Runs a benchmark, and leaves nothing behind.
pub(crate) async fn run(command: BenchCommand, global: Global) -> Result<(), CliError> {
    command.check()?;
    let mut signals = Signals::new()
        .map_err(|error| CliError::failed("signals", &error, "report this as a bug"))?;
    // CANCEL SAFETY: nothing is made while it connects.
    let stage = tokio::select! {
        stage = Stage::connect_first(command.load(), &global) => Arc::new(stage?),
        _ = signals.next() => return Err(CliError::Interrupted),
    };
    let command = Arc::new(command);
    let mut watch = Watch::new(global.timeout, global.json);
    // As a task, like the work of a service: the thread that waits for all would have to be woken for every ack.
    let mut task = JoinSet::new();
    task.spawn(measure(Arc::clone(&command), Arc::clone(&stage)));
    // CANCEL SAFETY: what was measured is in the tally, whatever becomes of the task.
    let result = tokio::select! {
        ended = task.join_next() => match ended {
            Some(ended) => ended.unwrap_or_else(|error| Err(broken(&error))),
            None => Ok(()),
        },
        error = watch.until_it_fails(&stage) => Err(error),
        _ = signals.next() => Err(CliError::Interrupted),
    };
    stage.tally.end();
    task.shutdown().await;
    let reconnects = watch.end(&stage);
    let report = Report::new(&command, &stage, reconnects, &result);
    let printed = report.print(global.json);
    if command.publishes()
        && let Some(topic) = stage.kept_topic()
    {
        let text = format!("the records of this run stay in the topic {topic}");
        notice::say(global.json, "records_stay", &text);
    }
    // CANCEL SAFETY: a second signal is a wish not to wait for the topic to go.
    let closed = tokio::select! {
        closed = stage.close() => closed,
        _ = signals.next() => return Err(CliError::Interrupted),
    };
    match (result.and(printed), closed) {
        (Ok(()), Err(left)) => Err(CliError::new(Exit::Failed, "bench", left, "")),
        (Err(error), Err(left)) => {
            notice::say(global.json, "topic_stays", &left);
            Err(error)
        }
        (result, Ok(())) => result,
    }
}

async fn measure(command: Arc<BenchCommand>, stage: Arc<Stage>) -> Result<(), CliError> {
    stage.prepare(command.load().partitions).await?;
    match &*command {
        BenchCommand::Publish(args) => publish::run(args, &stage).await,
        BenchCommand::Replay(args) => replay::run(args, &stage).await,
        BenchCommand::Latency(args) => latency::run(args, &stage).await,
        BenchCommand::Fanout(args) => fanout::run(args, &stage).await,
        BenchCommand::Rebalance(args) => rebalance::run(args, &stage).await,
        BenchCommand::Scale(args) => scale::run(args, &stage).await,
    }
}

impl BenchCommand {
    const fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Replay(_) => "replay",
            Self::Latency(_) => "latency",
            Self::Fanout(_) => "fanout",
            Self::Rebalance(_) => "rebalance",
            Self::Scale(_) => "scale",
        }
    }

    const fn load(&self) -> &Load {
        match self {
            Self::Publish(args) => &args.load,
            Self::Replay(args) => &args.load,
            Self::Latency(args) => &args.load,
            Self::Fanout(args) => &args.load,
            Self::Rebalance(args) => &args.load,
            Self::Scale(args) => &args.load,
        }
    }

    /// Whether it puts records into a topic of the user's.
    const fn publishes(&self) -> bool {
        match self {
            Self::Publish(_) | Self::Latency(_) | Self::Fanout(_) | Self::Scale(_) => true,
            Self::Replay(_) | Self::Rebalance(_) => false,
        }
    }

    /// What it was asked to do: every flag, by its name.
    fn settings(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut settings)) = serde_json::to_value(self) else {
            return Map::new();
        };
        // An existing topic has as many records as it has, of any size.
        if matches!(self, Self::Replay(args) if args.load.topic.is_some()) {
            settings.remove("size");
            settings.remove("records");
        }
        settings
    }

    /// Refuses records that have no room for what they must say.
    fn check(&self) -> Result<(), CliError> {
        let size = self.load().size;
        let why = match self {
            Self::Latency(args) if args.delivery => "cannot say when they were sent",
            Self::Fanout(_) => "cannot be told apart",
            Self::Publish(_)
            | Self::Replay(_)
            | Self::Latency(_)
            | Self::Rebalance(_)
            | Self::Scale(_) => return Ok(()),
        };
        if size >= MARK_BYTES as u64 {
            return Ok(());
        }
        let why = format!("records of {size} bytes {why}");
        let remedy = format!("use --size {MARK_BYTES} or more");
        Err(CliError::new(Exit::Usage, "bench", why, remedy))
    }
}

/// A value of so many bytes that do not compress, and with `mark` in front if there is room.
fn value(bytes: u64, mark: u64) -> Bytes {
    let mut value = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let seed = mark.wrapping_mul(GOLDEN);
    // Generators side by side, which a processor runs at a time.
    let mut lanes = [0, 16, 32, 48].map(|bits| seed.rotate_left(bits) | 1);
    let (blocks, rest) = value.as_chunks_mut::<32>();
    for block in blocks {
        step(&mut lanes);
        let (parts, _) = block.as_chunks_mut();
        for (part, random) in parts.iter_mut().zip(lanes) {
            *part = random.to_le_bytes();
        }
    }
    step(&mut lanes);
    let random = lanes.map(u64::to_le_bytes);
    for (byte, random) in rest.iter_mut().zip(random.as_flattened()) {
        *byte = *random;
    }
    if let Some(front) = value.first_chunk_mut() {
        *front = mark.to_le_bytes();
    }
    Bytes::from(value)
}

/// 2^64 divided by the golden ratio: spreads marks that follow each other.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// xorshift64, Marsaglia 2003: cheap, and no codec finds anything in it.
fn step(lanes: &mut [u64; 4]) {
    for random in lanes {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
    }
}

/// Bytes of a mark in a value.
const MARK_BYTES: usize = 8;

/// The mark of a value that has one.
fn mark_of(value: &[u8]) -> Option<u64> {
    let mark = value.first_chunk::<MARK_BYTES>()?;
    Some(u64::from_le_bytes(*mark))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn values_have_their_size_and_mark() {
        for bytes in [0, 1, 7, 8, 9, 32, 33, 100, 1024] {
            let made = value(bytes, 77);
            assert_eq!(made.len() as u64, bytes);
            assert_eq!(mark_of(&made), (bytes >= 8).then_some(77));
        }
        assert_ne!(value(100, 1), value(100, 2));
    }

    #[derive(clap::Parser)]
    struct Bench {
        #[command(subcommand)]
        command: BenchCommand,
    }

    #[test]
    fn no_flag_is_missing_in_the_settings() {
        for load in Bench::command().get_subcommands() {
            let ran = Bench::parse_from(["bench", load.get_name()]);
            let settings = ran.command.settings();
            assert_eq!(ran.command.name(), load.get_name());
            for flag in load.get_arguments() {
                let name = flag.get_id().as_str();
                let in_millis = format!("{name}_ms");
                let is_there = settings.contains_key(name) || settings.contains_key(&in_millis);
                assert!(is_there, "{} --{name}: {settings:?}", load.get_name());
            }
        }
    }
}
