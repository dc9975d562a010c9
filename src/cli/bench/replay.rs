//! `falcon bench replay`.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{Client, Record, Start};
use falcon_protocol::{Offset, Partition};
use serde::Serialize;
use tokio::task::JoinSet;

use super::stage::{Stage, broken};
use super::tally::Phase;
use super::{Load, value};
use crate::cli::failure::{CliError, Exit};

/// Arguments of `falcon bench replay`.
#[derive(Debug, Args, Serialize)]
#[command(mut_arg("topic", |topic| topic.help("A topic that exists, which is read as it is. Default: a fresh one, deleted in the end")))]
#[command(mut_arg("size", |size| size.conflicts_with("topic")))]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    /// Records that the fresh topic is filled with first; an existing one is read as it is.
    #[arg(long, default_value_t = 5_000_000, value_name = "N", conflicts_with = "topic",
        value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Subscribers, each on a connection of its own; each reads everything.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) subscribers: u32,
    /// Take each record as an owned one (`next`), instead of reading batches in place (`next_batch`).
    #[arg(long)]
    owned: bool,
}

/// Records between two looks at what is durable while a topic is filled.
const FILL_LOOK: u64 = 1024;
/// A subscriber that owns its records counts after so many.
const COUNT_EVERY: u64 = 1024;

/// Fills a topic and reads it.
pub(super) async fn run(args: &ReplayArgs, stage: &Arc<Stage>) -> Result<(), CliError> {
    if args.load.topic.is_none() {
        fill(stage, args.records, args.load.size).await?;
    }
    let ends = stage.client.latest_offsets(&stage.topic).await;
    let ends = ends.map_err(|error| CliError::from_client("bench", &error))?;
    let count: u64 = ends.iter().map(|end| end.offset.since(end.log_start)).sum();
    if count == 0 {
        let why = format!("the topic {} has no records", stage.topic);
        let remedy = "publish some, or leave --topic out";
        return Err(CliError::new(Exit::Failed, "bench", why, remedy));
    }
    let ends = Ends {
        offsets: ends.iter().map(|end| end.offset).collect(),
        open: ends.iter().filter(|end| end.offset > end.log_start).count(),
    };
    let mut clients = Vec::new();
    for _ in 0..args.subscribers {
        clients.push(stage.connect().await?);
    }
    stage.tally.enter(Phase::Counted {
        from: Instant::now(),
        total: count * u64::from(args.subscribers),
    });
    let mut tasks = JoinSet::new();
    for client in clients {
        let (stage, ends) = (Arc::clone(stage), ends.clone());
        if args.owned {
            tasks.spawn(read_owned(client, stage, ends));
        } else {
            tasks.spawn(read(client, stage, ends));
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(|error| broken(&error))??;
    }
    stage.tally.end();
    Ok(())
}

async fn fill(stage: &Stage, records: u64, size: u64) -> Result<(), CliError> {
    let failure = |error| CliError::from_publish("bench", &error);
    let publisher = stage.publisher(&stage.client).await?;
    stage.tally.enter(Phase::Filling { records });
    for number in 0..records {
        let partition = u32::try_from(number % u64::from(stage.partitions())).unwrap_or_default();
        let record = Record::new(value(size, number));
        let sent = publisher.send_to(partition, record).await;
        drop(sent.map_err(failure)?);
        // There was room for them, so the broker takes records.
        if number % FILL_LOOK == 0 {
            stage.tally.count(FILL_LOOK, FILL_LOOK * size, false);
        }
    }
    publisher.flush().await.map_err(failure)
}

/// Where the topic ended when it was looked at.
#[derive(Clone)]
struct Ends {
    offsets: Vec<Offset>,
    /// Partitions that have records still to come.
    open: usize,
}

impl Ends {
    fn of(&self, partition: Partition) -> Offset {
        let found = self.offsets.get(partition.0 as usize);
        found.copied().unwrap_or_default()
    }

    /// Records of a partition up to `reached` are read; `true` when that was all.
    fn pass(&mut self, partition: Partition, reached: Range<Offset>) -> bool {
        self.open -= usize::from(reached.contains(&self.of(partition)));
        self.open == 0
    }
}

/// Reads all records before the ends, in place.
async fn read(client: Client, stage: Arc<Stage>, mut ends: Ends) -> Result<(), CliError> {
    let failure = |error| CliError::from_subscribe("bench", &error);
    let builder = client.subscribe(&stage.topic).from(Start::Earliest);
    let mut all = builder.open().await.map_err(failure)?;
    while let Some(batch) = all.next_batch().await {
        let batch = batch.map_err(failure)?;
        let end = ends.of(batch.partition());
        let (mut records, mut bytes) = (0, 0);
        for record in batch.iter().take_while(|record| record.offset() < end) {
            // Every field of it is there, whether something is done with it or not.
            let record = black_box(record);
            records += 1;
            bytes += record.value().map_or(0, <[u8]>::len) as u64;
        }
        stage.tally.count(records, bytes, true);
        let offsets = batch.offsets();
        let passed = offsets.start.advance(1)..offsets.end.advance(1);
        if ends.pass(batch.partition(), passed) {
            break;
        }
    }
    all.close().await;
    Ok(())
}

/// Reads all records before the ends, each owned.
async fn read_owned(client: Client, stage: Arc<Stage>, mut ends: Ends) -> Result<(), CliError> {
    let failure = |error| CliError::from_subscribe("bench", &error);
    let builder = client.subscribe(&stage.topic).from(Start::Earliest);
    let mut all = builder.open().await.map_err(failure)?;
    let (mut records, mut bytes) = (0, 0);
    // Looked up when the partition changes, which it does once in a batch.
    let (mut partition, mut end) = (None, Offset::default());
    loop {
        // Matched in place: a record that is moved once more costs a tenth.
        let record = match all.next().await {
            Some(Ok(record)) => record,
            Some(Err(error)) => return Err(failure(error)),
            None => break,
        };
        if partition != Some(record.partition) {
            partition = Some(record.partition);
            end = ends.of(record.partition);
        }
        let next = record.next_offset();
        if next <= end {
            records += 1;
            bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
        }
        if next == end && ends.pass(record.partition, next..next.advance(1)) {
            break;
        }
        if records == COUNT_EVERY {
            stage.tally.count(records, bytes, true);
            (records, bytes) = (0, 0);
        }
    }
    stage.tally.count(records, bytes, true);
    all.close().await;
    Ok(())
}
