//! `falcon bench`: how fast a broker is, seen through the public client.
//!
//! Owns what the kinds of load have in common: the topic, phases, histograms and the report. Promises:
//! records are built and sent one by one and read one by one, as a program would; every record counted
//! as published is durable before the clock stops; with a rate, times count from when a record was due
//! and not from when there was room for it, so a broker that stands still is not flattered (coordinated
//! omission). Must not know: the broker's inside.

mod fanout;
mod latency;
mod open_loop;
mod publish;
mod rebalance;
mod replay;
mod report;
mod scale;
mod stage;

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;

use super::Global;
use super::arguments;
use super::failure::CliError;
use super::progress::Progress;

/// The commands of `falcon bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Publish as fast as the broker makes records durable, or at a rate.
    Publish(publish::PublishArgs),
    /// Read a topic from its beginning, as fast as it comes.
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

/// What all kinds of load need.
#[derive(Debug, Clone, Args)]
struct Load {
    /// The topic; it must exist. Default: a fresh one, deleted in the end.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Partitions of the fresh topic.
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: u32,
    /// Bytes of each record's value.
    #[arg(long, default_value = "100", value_name = "SIZE", value_parser = arguments::bytes)]
    size: u64,
}

/// How long it is measured.
#[derive(Debug, Clone, Copy, Args)]
struct Phases {
    /// How long it is measured.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = arguments::duration)]
    duration: Duration,
    /// How long it runs before that.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = arguments::duration)]
    warm_up: Duration,
}

/// Runs a benchmark. As a task, like the work of a service: the thread that waits for all would have to be woken for
/// every ack.
pub(crate) async fn run(command: BenchCommand, global: Global) -> Result<(), CliError> {
    let _progress = Progress::time("measuring");
    let mut task = JoinSet::new();
    task.spawn(measure(command, global));
    match task.join_next().await {
        Some(ended) => ended.map_err(|error| stage::broken(&error))?,
        None => Ok(()),
    }
}

async fn measure(command: BenchCommand, global: Global) -> Result<(), CliError> {
    match command {
        BenchCommand::Publish(args) => publish::run(args, &global).await,
        BenchCommand::Replay(args) => replay::run(args, &global).await,
        BenchCommand::Latency(args) => latency::run(args, &global).await,
        BenchCommand::Fanout(args) => fanout::run(args, &global).await,
        BenchCommand::Rebalance(args) => rebalance::run(args, &global).await,
        BenchCommand::Scale(args) => scale::run(args, &global).await,
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
}
