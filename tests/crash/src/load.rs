//! Clients under way while brokers come and go: publishers, subscribers, groups.
//!
//! Owns their tasks and what they write down. Half of them last for the whole run and reconnect by
//! themselves; the others are given up with each fault and begin anew. Promises: when
//! [`Load::finish`] returned, every history is complete.
//!
//! Must not know: how brokers end, and what histories prove.

mod final_read;
mod groups;
mod notes;
mod publishers;
mod subscribers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use falcon_client::{Client, Offset, Reset, Start, SubscriptionBuilder, TopicOptions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::CrashError;
use notes::Notes;
use publishers::Plan;

pub(crate) const TOPIC: &str = "crash";
/// Pause between attempts to reach a broker that is away.
const RETRY: Duration = Duration::from_millis(20);
/// How many records before the end a subscriber begins that starts anew.
const TAIL_RECORDS: u64 = 500;

/// What all clients of a run share.
#[derive(Debug)]
struct Shared {
    address: String,
    partitions: u16,
    /// Whether old records go, so that a subscriber may come too late.
    retention_bytes: Option<u64>,
    folder: PathBuf,
    publishers: AtomicU32,
    actors: AtomicU32,
    files: Mutex<Vec<PathBuf>>,
    complaints: Mutex<Vec<String>>,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    runtime: Handle,
    lasting: Group,
    fresh: Group,
}

#[derive(Debug, Default)]
struct Group {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Group {
    /// Tells its tasks to end, and waits for them.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Load {
    /// Creates the topic; nothing runs yet.
    pub(crate) fn new(
        runtime: Handle,
        address: String,
        folder: PathBuf,
        (partitions, retention_bytes): (u16, Option<u64>),
    ) -> Result<Self, CrashError> {
        let shared = Shared {
            address,
            partitions,
            retention_bytes,
            folder,
            publishers: AtomicU32::new(0),
            actors: AtomicU32::new(0),
            files: Mutex::default(),
            complaints: Mutex::default(),
        };
        runtime.block_on(shared.create_topic())?;
        Ok(Self {
            shared: Arc::new(shared),
            runtime,
            lasting: Group::default(),
            fresh: Group::default(),
        })
    }

    /// Starts the clients that last.
    pub(crate) fn start_lasting(&self) -> Result<(), CrashError> {
        for in_flight in [1, 16, 128] {
            self.publish(&self.lasting, Plan::lasting(in_flight))?;
        }
        self.subscribe(&self.lasting, Start::Earliest)?;
        self.consume(&self.lasting, 0)
    }

    /// Starts clients that are given up at the next fault.
    pub(crate) fn start_fresh(&mut self) -> Result<(), CrashError> {
        self.fresh = Group::default();
        for (in_flight, name) in [(16, None), (64, Some("named"))] {
            self.publish(&self.fresh, Plan::fresh(in_flight, name))?;
        }
        self.subscribe(&self.fresh, Start::Last(TAIL_RECORDS))?;
        self.consume(&self.fresh, 1)
    }

    /// Ends the fresh ones as they are.
    pub(crate) fn abandon_fresh(&self) {
        self.runtime.block_on(self.fresh.end());
    }

    /// Ends all; publishers that last wait until everything they sent has an outcome.
    pub(crate) fn finish(&self) {
        self.runtime.block_on(async {
            self.fresh.end().await;
            self.lasting.end().await;
        });
    }

    /// Reads everything from the first offset to the last, and what the groups have stored.
    pub(crate) fn read_all(&self) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "final")?;
        let read = final_read::read_all(&self.shared, notes);
        self.runtime.block_on(read)
    }

    /// The histories.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let files = self.shared.files.lock();
        files.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What clients were told that they must never be told.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaints = self.shared.complaints.lock();
        complaints.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, group: &Group, plan: Plan) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "publisher")?;
        let (shared, stop) = (Arc::clone(&self.shared), group.stop.clone());
        let task = async move {
            let ended = publishers::run(&shared, plan, notes, stop).await;
            shared.note_end("publisher", ended);
        };
        group.tasks.spawn_on(task, &self.runtime);
        Ok(())
    }

    fn subscribe(&self, group: &Group, start: Start) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "subscriber")?;
        let (shared, stop) = (Arc::clone(&self.shared), group.stop.clone());
        let task = async move {
            let ended = subscribers::run(&shared, start, notes, stop).await;
            shared.note_end("subscriber", ended);
        };
        group.tasks.spawn_on(task, &self.runtime);
        Ok(())
    }

    fn consume(&self, group: &Group, number: u32) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "group")?;
        let (shared, stop) = (Arc::clone(&self.shared), group.stop.clone());
        let task = async move {
            let ended = groups::run(&shared, number, notes, stop).await;
            shared.note_end("group", ended);
        };
        group.tasks.spawn_on(task, &self.runtime);
        Ok(())
    }
}

impl Shared {
    async fn create_topic(&self) -> Result<(), CrashError> {
        let failed = |error: falcon_client::Error| {
            CrashError::Program(format!("the topic cannot be created: {error}"))
        };
        let client = Client::connect(&self.address).await.map_err(failed)?;
        let mut options = TopicOptions::new(self.partitions.into());
        if let Some(bytes) = self.retention_bytes {
            options = options.retention_bytes(bytes);
        }
        let created = client.create_topic(TOPIC, options).await;
        created.map(drop).map_err(failed)
    }

    fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock();
        match &mut complaints {
            Ok(complaints) => complaints.push(complaint),
            Err(poisoned) => poisoned.get_mut().push(complaint),
        }
    }

    fn note_end(&self, who: &str, ended: Result<(), CrashError>) {
        if let Err(error) = ended {
            self.complain(format!("a {who} ended: {error}"));
        }
    }

    /// A connection, as soon as there is a broker; `None` when told to stop before.
    async fn connect(&self, stop: &CancellationToken) -> Option<Client> {
        retry(stop, || async { Client::connect(&self.address).await.ok() }).await
    }

    fn partition_numbers(&self) -> std::ops::Range<u32> {
        0..u32::from(self.partitions)
    }
}

/// Tries until there is a result; `None` when told to stop before.
async fn retry<T, F: Future<Output = Option<T>>>(
    stop: &CancellationToken,
    work: impl Fn() -> F,
) -> Option<T> {
    let attempts = async {
        loop {
            if let Some(done) = work().await {
                return done;
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(attempts).await
}

/// A subscription that goes on where retention overtook it.
fn subscribe(client: &Client) -> SubscriptionBuilder {
    client.subscribe(TOPIC).on_out_of_range(Reset::Earliest)
}

/// The offset to begin with where a group has none stored.
fn first_offset(stored: Option<u64>) -> Offset {
    Offset::ZERO.advance(stored.unwrap_or_default())
}
