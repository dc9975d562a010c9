//! The topic of a benchmark and its connections.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use falcon_client::{Client, Error, Publisher, TopicOptions};
use falcon_protocol::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Load;
use super::tally::Tally;
use crate::cli::Global;
use crate::cli::connect::{close, connect};
use crate::cli::failure::{CliError, Exit};

/// A topic to load, and how to reach its broker.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) tally: Tally,
    partitions: OnceLock<u32>,
    /// Whether the topic is made for the benchmark, and goes with it.
    is_fresh: bool,
    global: Global,
    /// Those that carry the load.
    clients: Mutex<Vec<Client>>,
}

/// How long the topic may take to go. A broker that is slower is not waited for: whoever interrupts wants an end.
const DELETE_MAX: Duration = Duration::from_secs(3);
/// How long all goodbyes may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

impl Stage {
    /// Connects; nothing is made yet.
    pub(super) async fn connect_first(load: &Load, global: &Global) -> Result<Self, CliError> {
        let fresh = || format!("bench-{:08x}", fastrand::u32(..));
        Ok(Self {
            client: connect(global).await?,
            topic: load.topic.clone().unwrap_or_else(fresh),
            tally: Tally::new(),
            partitions: OnceLock::new(),
            is_fresh: load.topic.is_none(),
            global: global.clone(),
            clients: Mutex::default(),
        })
    }

    /// Makes the topic, unless it is there.
    pub(super) async fn prepare(&self, partitions: u32) -> Result<(), CliError> {
        let failure = |error| CliError::from_client("bench", &error);
        if self.is_fresh {
            let options = TopicOptions::new(partitions);
            let created = self.client.create_topic(&self.topic, options).await;
            created.map_err(failure)?;
        }
        let described = self.client.describe_topic(&self.topic).await;
        let described = described.map_err(|error| self.undescribed(&error))?;
        let count = described.partitions.len();
        self.partitions
            .get_or_init(|| u32::try_from(count).unwrap_or(u32::MAX));
        Ok(())
    }

    fn undescribed(&self, error: &Error) -> CliError {
        let mut failed = CliError::from_client("bench", error);
        if let CliError::Failure(failure) = &mut failed
            && failure.code == Some(ErrorCode::UnknownTopic)
        {
            let create = format!("falcon topic create {} --partitions N", self.topic);
            failure.remedy = format!("create it: {create}, or leave --topic out");
        }
        failed
    }

    /// A topic that was there before and stays, once it was found.
    pub(super) fn kept_topic(&self) -> Option<&str> {
        let is_kept = !self.is_fresh && self.partitions.get().is_some();
        is_kept.then_some(self.topic.as_str())
    }

    /// Partitions of the topic.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.get().copied().unwrap_or(1)
    }

    /// A connection of its own, which is watched.
    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        let client = self.connect_aside().await?;
        self.clients().push(client.clone());
        Ok(client)
    }

    /// A connection that may come and go.
    pub(super) async fn connect_aside(&self) -> Result<Client, CliError> {
        connect(&self.global).await
    }

    /// Every connection that should be there.
    pub(super) fn watched(&self) -> Vec<Client> {
        let mut clients = vec![self.client.clone()];
        clients.extend_from_slice(&self.clients());
        clients
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn publisher(&self, client: &Client) -> Result<Publisher, CliError> {
        let built = client.publisher(&self.topic).build().await;
        built.map_err(|error| CliError::from_publish("bench", &error.into()))
    }

    /// Deletes what was made for the benchmark, and says goodbye. Fails with what is left behind.
    pub(super) async fn close(&self) -> Result<(), String> {
        let clients: Vec<_> = self.clients().drain(..).collect();
        let mut closing = JoinSet::new();
        for client in clients {
            closing.spawn(async move { close(&client).await });
        }
        // The connections of those that are not waited for are closed without a word.
        timeout(CLOSE_MAX, closing.join_all()).await.ok();
        let deleted = self.delete().await;
        timeout(CLOSE_MAX, close(&self.client)).await.ok();
        let topic = &self.topic;
        deleted.map_err(|why| {
            format!("the topic {topic} stays: {why}; `falcon topic delete {topic}` deletes it")
        })
    }

    async fn delete(&self) -> Result<(), String> {
        if !self.is_fresh {
            return Ok(());
        }
        if !self.client.is_connected() {
            return Err("there is no connection to its broker".into());
        }
        let deleting = self.client.delete_topic(&self.topic);
        // CANCEL SAFETY: the request may be carried out all the same, which is what is wanted.
        match timeout(DELETE_MAX, deleting).await {
            Ok(Ok(())) => Ok(()),
            // An interrupted run may not have come to make it.
            Ok(Err(error)) if error.code() == Some(ErrorCode::UnknownTopic) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its broker does not answer".into()),
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
