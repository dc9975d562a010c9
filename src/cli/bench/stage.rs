//! The topic of a benchmark, its connections, and the pace of an open loop.

use std::time::Duration;

use falcon::clock::Instant;
use falcon_client::{Client, Publisher, TopicOptions};

use super::Load;
use crate::cli::Global;
use crate::cli::connect::{close, connect};
use crate::cli::failure::{CliError, Exit};

/// A topic to load, and how to reach its broker.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) partitions: u32,
    is_fresh: bool,
    global: Global,
}

impl Stage {
    pub(super) async fn open(load: &Load, global: &Global) -> Result<Self, CliError> {
        let client = connect(global).await?;
        let failure = |error| CliError::from_client("bench", &error);
        let (topic, is_fresh) = match &load.topic {
            Some(topic) => (topic.clone(), false),
            None => (format!("bench-{:08x}", fastrand::u32(..)), true),
        };
        if is_fresh {
            let options = TopicOptions::new(load.partitions);
            client
                .create_topic(&topic, options)
                .await
                .map_err(failure)?;
        }
        let described = client.describe_topic(&topic).await.map_err(failure)?;
        let partitions = u32::try_from(described.partitions.len()).unwrap_or(u32::MAX);
        Ok(Self {
            client,
            topic,
            partitions,
            is_fresh,
            global: global.clone(),
        })
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        connect(&self.global).await
    }

    pub(super) async fn publisher(&self, client: &Client) -> Result<Publisher, CliError> {
        let built = client.publisher(&self.topic).build().await;
        built.map_err(|error| CliError::from_publish("bench", &error.into()))
    }

    /// Deletes what was made for the benchmark.
    pub(super) async fn close(self) -> Result<(), CliError> {
        if self.is_fresh {
            let deleted = self.client.delete_topic(&self.topic).await;
            deleted.map_err(|error| CliError::from_client("bench", &error))?;
        }
        close(&self.client).await;
        Ok(())
    }
}

/// When records are due: evenly, from a start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    rate: u64,
}

/// LIMIT: acks awaited at a time; the publisher's window bounds their bytes.
pub(super) const TICKETS_MAX: usize = 65_536;

/// A sleeping thread wakes up to so much late; the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(150);

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            start: Instant::now(),
            rate: rate.max(1),
        }
    }

    /// When record `number` is due.
    pub(super) fn due(self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.start.after(Duration::from_nanos(nanos))
    }

    /// Blocks until then: a timer of the runtime rounds to milliseconds.
    pub(super) fn wait(due: Instant) {
        let left = due.since(Instant::now());
        if left > AWAKE {
            std::thread::sleep(left.saturating_sub(AWAKE));
        }
        while due > Instant::now() {
            std::hint::spin_loop();
        }
    }
}

/// A task of the benchmark that ended before its time.
pub(super) fn broken(error: &tokio::task::JoinError) -> CliError {
    CliError::new(
        Exit::Failed,
        "bench",
        error.to_string(),
        "report this as a bug",
    )
}
