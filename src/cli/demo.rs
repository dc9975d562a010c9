//! `falcon demo`: the whole job on a day of real flights, checked at every step.
//!
//! Owns the story; [`flights`] knows the data, [`log`] what was published and what came back,
//! [`stage`] the broker and its client, [`report`] what is said about it.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use falcon_client::{Start, TopicOptions};
use falcon_protocol::{Offset, Partition};

use super::Global;
use super::arguments::show_time;
use super::failure::{CliError, Exit};

mod flights;
mod log;
mod report;
mod stage;

use flights::Flight;
use log::Published;
use report::Report;
use stage::{Folder, Stage};

const TOPIC: &str = "flights";
const GROUP: &str = "demo";
const PARTITIONS: u32 = 3;
/// The longest any step may take, unless `--timeout` says otherwise.
const STEP_MAX: Duration = Duration::from_mins(1);

/// Arguments of `falcon demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the data folder and say where it is.
    #[arg(long)]
    keep: bool,
}

/// Plays the demo in a fresh folder.
pub(crate) async fn run(args: DemoArgs, global: Global) -> Result<(), CliError> {
    let folder = Folder::create(args.keep);
    let folder = folder.map_err(|error| CliError::failed("demo", &error, "check TMPDIR"))?;
    let deadline = global.timeout.unwrap_or(STEP_MAX);
    play(&folder.path, deadline, Report::new(global.json)).await
}

async fn play(folder: &Path, deadline: Duration, mut report: Report) -> Result<(), CliError> {
    let flights = Flight::all()
        .map_err(|why| CliError::new(Exit::Failed, "demo", why, "report this as a bug"))?;
    let stage = Stage::open(folder, deadline).await?;
    create_topic(&stage, &mut report).await?;
    let published = publish_and_follow(&stage, &flights, &mut report).await?;
    replay_middle(&stage, &published, &mut report).await?;
    replay_time(&stage, &published, &mut report).await?;
    let (partition, offset) = commit(&stage, &published, &mut report).await?;

    stage.close().await;
    let stage = Stage::open(folder, deadline).await?;
    report.tell("stopped the broker and started it again on the same folder")?;
    read_all(&stage, &published, &mut report).await?;
    report.check(
        "the committed offset survived the restart",
        stage.committed(partition).await? == Some(offset),
    )?;
    stage.close().await;
    report.finish(&published)
}

async fn create_topic(stage: &Stage, report: &mut Report) -> Result<(), CliError> {
    let options = TopicOptions::new(PARTITIONS);
    let create = stage.client.create_topic(TOPIC, options);
    let created = stage.within("create the topic", create).await?;
    created.map_err(|error| client_failure(&error))?;
    report.tell(&format!(
        "started a broker on {}, created topic {TOPIC} with {PARTITIONS} partitions",
        stage.broker.address()
    ))
}

async fn publish_and_follow(
    stage: &Stage,
    flights: &[Flight],
    report: &mut Report,
) -> Result<Published, CliError> {
    let publish = Published::publish(&stage.client, TOPIC, flights);
    let follow = stage.read(Start::Earliest, None, flights.len());
    let both = async { tokio::try_join!(publish, follow) };
    let (published, followed) = stage.within("publish and follow", both).await??;
    report.tell(&format!(
        "published {} flights ({} bytes), each on the device before its receipt, while a \
         subscriber read them",
        flights.len(),
        published.bytes()
    ))?;
    report.check(
        "offsets are dense and in the order sent",
        published.is_dense(),
    )?;
    report.check(
        "each aircraft's flights are in one partition",
        published.keeps_keys_together(),
    )?;
    report.check(
        "the subscriber read what was published, partition by partition",
        followed == *published.copy(),
    )?;
    report.check(
        "SHA-256 of what it read, in the order sent, equals the file's",
        published.digest_of(&followed) == flights::file_digest(),
    )?;
    Ok(published)
}

async fn replay_middle(
    stage: &Stage,
    published: &Published,
    report: &mut Report,
) -> Result<(), CliError> {
    let (partition, records) = published.largest_partition();
    let middle = Offset(records / 2);
    let expected = published.copy().since(&[(partition, middle)].into());
    let replay = stage.read(middle.into(), Some(partition), expected.records());
    let replayed = replay.await?;
    report.tell(&format!(
        "replayed partition {partition} from offset {middle}: {} records",
        replayed.records()
    ))?;
    report.check(
        "the replay from the middle is exactly the rest",
        replayed == expected,
    )
}

async fn replay_time(
    stage: &Stage,
    published: &Published,
    report: &mut Report,
) -> Result<(), CliError> {
    let time = flights::EVENING_MS;
    let expected = published.copy().since(&published.positions_at(time));
    let replay = stage.read(Start::TimestampMs(time), None, expected.records());
    let replayed = replay.await?;
    report.tell(&format!(
        "replayed everything from {}: {} records",
        show_time(time),
        replayed.records()
    ))?;
    report.check(
        "the replay by time starts at the first flight of that time",
        replayed == expected,
    )
}

async fn commit(
    stage: &Stage,
    published: &Published,
    report: &mut Report,
) -> Result<(Partition, Offset), CliError> {
    let (partition, records) = published.largest_partition();
    let offset = Offset(records / 2);
    let offsets = stage.client.offsets(GROUP);
    let commit = stage.within("commit", offsets.commit(TOPIC, partition, offset));
    commit.await?.map_err(|error| client_failure(&error))?;
    let found = stage.committed(partition).await?;
    report.tell(&format!(
        "group {GROUP} committed offset {offset} of partition {partition}"
    ))?;
    report.check("the committed offset is read back", found == Some(offset))?;
    Ok((partition, offset))
}

async fn read_all(
    stage: &Stage,
    published: &Published,
    report: &mut Report,
) -> Result<(), CliError> {
    let records = published.copy().records();
    let read = stage.read(Start::Earliest, None, records).await?;
    report.tell(&format!("read all {records} records once more"))?;
    report.check(
        "after the restart every record is there, byte for byte",
        read == *published.copy(),
    )?;
    report.check(
        "their SHA-256 equals the file's",
        published.digest_of(&read) == flights::file_digest(),
    )
}

fn client_failure(error: &falcon_client::Error) -> CliError {
    CliError::from_client("demo", error)
}
