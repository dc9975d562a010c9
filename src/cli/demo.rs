//! `falcon demo`: the whole job on a day of real flights, checked at every step.
//!
//! Owns the story; [`flights`] knows the data, [`log`] what was published and what came back.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use falcon::broker::Broker;
use falcon::clock::Instant;
use falcon::config::Config;
use falcon_client::{Client, Start, TopicOptions};
use falcon_protocol::{Offset, Partition};
use serde::Serialize;

use super::Global;
use super::arguments::show_time;
use super::failure::{CliError, Exit};
use super::output::Output;

mod flights;
mod log;

use flights::Flight;
use log::{Copy, Published};

const TOPIC: &str = "flights";
const GROUP: &str = "demo";
const PARTITIONS: u32 = 3;
/// The longest any step may take, unless `--timeout` says otherwise.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Arguments of `falcon demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the data folder and say where it is.
    #[arg(long)]
    keep: bool,
}

/// Plays the demo in a fresh folder.
pub(crate) async fn run(args: DemoArgs, global: Global) -> Result<(), CliError> {
    let folder = Folder::create(args.keep)
        .map_err(|error| CliError::failed("demo", &error, "check TMPDIR"))?;
    let deadline = global.timeout.unwrap_or(STEP_MAX);
    let story = Story {
        folder: &folder.path,
        is_json: global.json,
        output: Output::new(),
        start: Instant::now(),
        checks: Vec::new(),
        deadline,
    };
    story.play().await
}

/// A folder that is gone afterwards, unless it was asked to stay.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn create(keep: bool) -> io::Result<Self> {
        let name = format!("falcon-demo-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            // There is nobody left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "kept {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the demo's folder");
        }
    }
}

struct Story<'a> {
    folder: &'a Path,
    is_json: bool,
    output: Output,
    start: Instant,
    checks: Vec<Check>,
    deadline: Duration,
}

/// A broker and a client of it.
struct Stage {
    broker: Broker,
    client: Client,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    passed: bool,
}

impl Story<'_> {
    async fn play(mut self) -> Result<(), CliError> {
        let flights = Flight::all().map_err(|why| failure(why, "report this as a bug"))?;
        let stage = self.open().await?;
        let published = self.publish_and_follow(&stage.client, &flights).await?;
        self.replay_middle(&stage.client, &published).await?;
        self.replay_time(&stage.client, &published).await?;
        let (partition, offset) = self.commit(&stage.client, &published).await?;
        let stage = self.restart(stage).await?;
        self.compare_after_restart(&stage.client, &published, partition, offset)
            .await?;
        self.close(stage).await;
        self.finish(&published)
    }

    async fn open(&mut self) -> Result<Stage, CliError> {
        let start = Instant::now();
        let stage = self.start_broker().await?;
        let options = TopicOptions::new(PARTITIONS);
        let created = self.within(
            "create the topic",
            stage.client.create_topic(TOPIC, options),
        );
        created.await?.map_err(|error| client_failure(&error))?;
        self.tell(
            start,
            &format!(
                "broker on {}, topic {TOPIC} with {PARTITIONS} partitions",
                stage.broker.address()
            ),
        )?;
        Ok(stage)
    }

    async fn start_broker(&self) -> Result<Stage, CliError> {
        let mut config = Config {
            data_dir: self.folder.to_path_buf(),
            ..Config::default()
        };
        config.listen.set_port(0);
        let broker = self.within("start", Broker::start(config)).await?;
        let broker = broker
            .map_err(|error| CliError::failed("demo", &error, "check the temporary folder"))?;
        let address = format!("falcon://{}", broker.address());
        let client = self.within("connect", Client::connect(&address)).await?;
        let client = client.map_err(|error| client_failure(&error))?;
        Ok(Stage { broker, client })
    }

    async fn publish_and_follow(
        &mut self,
        client: &Client,
        flights: &[Flight],
    ) -> Result<Published, CliError> {
        let start = Instant::now();
        let follow = read(client, Start::Earliest, None, flights.len());
        let both = async { tokio::try_join!(Published::publish(client, TOPIC, flights), follow) };
        let (published, followed) = self.within("publish and follow", both).await??;
        self.tell(
            start,
            &format!(
                "published {} flights ({} bytes), each on the device before its receipt; a \
                 subscriber read them meanwhile",
                flights.len(),
                published.bytes()
            ),
        )?;
        self.check(
            "offsets are dense and in the order sent",
            published.is_dense(),
        );
        self.check(
            "each aircraft's flights are in one partition, in order",
            published.keeps_keys_together(),
        );
        self.check(
            "the subscriber read what was published",
            followed == *published.copy(),
        );
        self.check(
            "SHA-256 over all records in the order sent equals the file's",
            published.digest_of(&followed) == flights::file_digest(),
        );
        Ok(published)
    }

    async fn replay_middle(
        &mut self,
        client: &Client,
        published: &Published,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        let (partition, records) = published.largest_partition();
        let middle = Offset(records / 2);
        let expected = published.copy().since(&[(partition, middle)].into());
        let replay = read(client, middle.into(), Some(partition), expected.records());
        let replayed = self.within("replay", replay).await??;
        self.tell(
            start,
            &format!(
                "replayed partition {partition} from offset {middle}: {} records",
                replayed.records()
            ),
        )?;
        self.check(
            "the replay from the middle is exactly the rest",
            replayed == expected,
        );
        Ok(())
    }

    async fn replay_time(
        &mut self,
        client: &Client,
        published: &Published,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        let time = flights::EVENING_MS;
        let expected = published.copy().since(&published.positions_at(time));
        let replay = read(client, Start::TimestampMs(time), None, expected.records());
        let replayed = self.within("replay by time", replay).await??;
        self.tell(
            start,
            &format!(
                "replayed everything from {}: {} records",
                show_time(time),
                replayed.records()
            ),
        )?;
        self.check(
            "the replay by time starts at the first record of that time",
            replayed == expected,
        );
        Ok(())
    }

    async fn commit(
        &mut self,
        client: &Client,
        published: &Published,
    ) -> Result<(Partition, Offset), CliError> {
        let start = Instant::now();
        let (partition, records) = published.largest_partition();
        let offset = Offset(records / 2);
        let offsets = client.offsets(GROUP);
        let commit = self.within("commit", offsets.commit(TOPIC, partition, offset));
        commit.await?.map_err(|error| client_failure(&error))?;
        let found = self.committed(client, partition).await?;
        self.tell(
            start,
            &format!("group {GROUP} committed offset {offset} of partition {partition}"),
        )?;
        self.check("the committed offset is read back", found == Some(offset));
        Ok((partition, offset))
    }

    async fn committed(
        &self,
        client: &Client,
        partition: Partition,
    ) -> Result<Option<Offset>, CliError> {
        let offsets = client.offsets(GROUP);
        let fetched = self.within("fetch offsets", offsets.fetch(TOPIC)).await?;
        let fetched = fetched.map_err(|error| client_failure(&error))?;
        let found = fetched.iter().find(|found| found.partition == partition);
        Ok(found.map(|found| found.offset))
    }

    async fn restart(&mut self, stage: Stage) -> Result<Stage, CliError> {
        let start = Instant::now();
        self.close(stage).await;
        let stage = self.start_broker().await?;
        self.tell(
            start,
            "stopped the broker and started it again on the same folder",
        )?;
        Ok(stage)
    }

    async fn close(&self, stage: Stage) {
        let report = stage.client.shutdown().await;
        tracing::info!(?report, "the demo's client is closed");
        let report = stage.broker.shutdown().await;
        tracing::info!(?report, "the demo's broker is stopped");
    }

    async fn compare_after_restart(
        &mut self,
        client: &Client,
        published: &Published,
        partition: Partition,
        offset: Offset,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        let records = published.copy().records();
        let read = self.within("read", read(client, Start::Earliest, None, records));
        let read = read.await??;
        let found = self.committed(client, partition).await?;
        self.tell(start, &format!("read all {records} records once more"))?;
        self.check(
            "after the restart every record is there, byte for byte",
            read == *published.copy(),
        );
        self.check(
            "their SHA-256 equals the file's",
            published.digest_of(&read) == flights::file_digest(),
        );
        self.check(
            "the committed offset survived the restart",
            found == Some(offset),
        );
        Ok(())
    }

    fn finish(mut self, published: &Published) -> Result<(), CliError> {
        let failed: Vec<&str> = self
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| check.check)
            .collect();
        let seconds = self.start.elapsed().as_secs_f64();
        if self.is_json {
            self.output.json(&Figures {
                records: published.copy().records(),
                bytes: published.bytes(),
                sha256: published.digest_of(published.copy()),
                seconds,
                checks: &self.checks,
            })?;
        } else {
            let digest = published.digest_of(published.copy());
            let passed = self.checks.len() - failed.len();
            let lines = format!(
                "\n{passed} of {} checks passed in {seconds:.2} s\nSHA-256 {digest}",
                self.checks.len()
            );
            self.output.line(lines.as_bytes())?;
        }
        self.output.flush()?;
        if failed.is_empty() {
            return Ok(());
        }
        let why = format!("these checks failed: {}", failed.join(", "));
        Err(failure(
            why,
            "run falcon demo --keep -vv and report it with the log",
        ))
    }

    /// A step is over: what happened, and how long it took.
    fn tell(&mut self, start: Instant, text: &str) -> Result<(), CliError> {
        if !self.is_json {
            let millis = start.elapsed().as_secs_f64() * 1e3;
            self.output
                .line(format!("{millis:>8.1} ms  {text}").as_bytes())?;
            self.output.flush()?;
        }
        Ok(())
    }

    fn check(&mut self, check: &'static str, passed: bool) {
        if !self.is_json {
            let mark = if passed { "ok" } else { "FAILED" };
            // A closed pipe shows at the next `tell`, which reports it.
            let _ = self.output.line(format!("{mark:>11}  {check}").as_bytes());
        }
        self.checks.push(Check { check, passed });
    }

    async fn within<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, CliError> {
        // CANCEL SAFETY: a step that takes too long ends the demo.
        tokio::time::timeout(self.deadline, work)
            .await
            .map_err(|_| {
                let why = format!("{step} took longer than {} s", self.deadline.as_secs());
                CliError::new(Exit::TimedOut, "demo", why, "allow a longer --timeout")
            })
    }
}

#[derive(Serialize)]
struct Figures<'a> {
    records: usize,
    bytes: usize,
    sha256: String,
    seconds: f64,
    checks: &'a [Check],
}

/// Reads so many records.
async fn read(
    client: &Client,
    from: Start,
    partition: Option<Partition>,
    count: usize,
) -> Result<Copy, CliError> {
    let mut copy = Copy::default();
    if count == 0 {
        return Ok(copy);
    }
    let builder = client.subscribe(TOPIC);
    let builder = match partition {
        Some(partition) => builder.partition_from(partition, from),
        None => builder.from(from),
    };
    let failed = |error| CliError::from_subscribe("demo", &error);
    let mut records = builder.open().await.map_err(failed)?;
    while copy.records() < count {
        let Some(record) = records.next().await else {
            break;
        };
        let record = record.map_err(failed)?;
        copy.push(record.partition, record.offset, record.value);
    }
    records.close().await;
    Ok(copy)
}

fn failure(why: impl Into<String>, remedy: &str) -> CliError {
    CliError::new(Exit::Failed, "demo", why, remedy)
}

fn client_failure(error: &falcon_client::Error) -> CliError {
    CliError::from_client("demo", error)
}
