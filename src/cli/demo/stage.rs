//! What the demo plays on: a fresh folder, a broker in this process, a client of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use falcon::broker::Broker;
use falcon::config::{AdminListen, Config};
use falcon_client::{Client, Start};
use falcon_protocol::{Offset, Partition};

use super::log::Copy;
use super::{GROUP, TOPIC, client_failure};
use crate::cli::failure::{CliError, Exit};

/// A folder that is gone afterwards, unless it was asked to stay.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn create(keep: bool) -> io::Result<Self> {
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

/// A broker and a client of it. No step may take longer than the deadline.
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) client: Client,
    deadline: Duration,
}

impl Stage {
    /// Starts a broker on `folder` and a free port, and connects to it.
    pub(super) async fn open(folder: &Path, deadline: Duration) -> Result<Self, CliError> {
        let mut config = Config {
            data_dir: folder.to_path_buf(),
            ..Config::default()
        };
        config.listen.set_port(0);
        config.admin.listen = AdminListen::Off;
        let broker = within(deadline, "start", Broker::start(config)).await?;
        let broker = broker.map_err(|error| CliError::failed("demo", &error, ""))?;
        let address = format!("falcon://{}", broker.address());
        let client = within(deadline, "connect", Client::connect(&address)).await?;
        let client = client.map_err(|error| client_failure(&error))?;
        Ok(Self {
            broker,
            client,
            deadline,
        })
    }

    /// Stops both, the client first.
    pub(super) async fn close(self) {
        let report = self.client.shutdown().await;
        tracing::info!(?report, "the demo's client is closed");
        let report = self.broker.shutdown().await;
        tracing::info!(?report, "the demo's broker is stopped");
    }

    /// Waits for `work`, but not longer than a step may take.
    pub(super) async fn within<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, CliError> {
        within(self.deadline, step, work).await
    }

    /// Reads so many records.
    pub(super) async fn read(
        &self,
        from: Start,
        partition: Option<Partition>,
        count: usize,
    ) -> Result<Copy, CliError> {
        let mut copy = Copy::default();
        if count == 0 {
            return Ok(copy);
        }
        let builder = self.client.subscribe(TOPIC);
        let builder = match partition {
            Some(partition) => builder.partition_from(partition, from),
            None => builder.from(from),
        };
        let failed = |error| CliError::from_subscribe("demo", &error);
        let mut records = builder.open().await.map_err(failed)?;
        let reading = async {
            while copy.records() < count {
                let Some(record) = records.next().await else {
                    break;
                };
                let record = record?;
                copy.push(record.partition, record.offset, record.value);
            }
            Ok(())
        };
        self.within("read", reading).await?.map_err(failed)?;
        records.close().await;
        Ok(copy)
    }

    /// The offset that the demo's group committed for a partition.
    pub(super) async fn committed(&self, partition: Partition) -> Result<Option<Offset>, CliError> {
        let offsets = self.client.offsets(GROUP);
        let fetched = self.within("fetch offsets", offsets.fetch(TOPIC)).await?;
        let fetched = fetched.map_err(|error| client_failure(&error))?;
        let found = fetched.iter().find(|found| found.partition == partition);
        Ok(found.map(|found| found.offset))
    }
}

async fn within<T>(
    deadline: Duration,
    step: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    // CANCEL SAFETY: a step that takes too long ends the demo.
    tokio::time::timeout(deadline, work).await.map_err(|_| {
        let why = format!("{step} took longer than {} s", deadline.as_secs());
        CliError::new(Exit::TimedOut, "demo", why, "allow a longer --timeout")
    })
}
