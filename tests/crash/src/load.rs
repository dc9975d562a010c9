//! Clients under way while brokers come and go: publishers, subscribers, groups, owners of topics.
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
mod topics;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use falcon_client::{Client, Offset, Reset, Start, SubscriptionBuilder, TopicOptions};
use fastrand::Rng;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::CrashError;
use crate::history::{NO_OFFSET, Op, now_ns};
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
    has_topics: bool,
    publishers: AtomicU32,
    actors: AtomicU32,
    files: Mutex<Vec<PathBuf>>,
    complaints: Mutex<Vec<String>>,
}

/// What clients work on.
#[derive(Debug)]
pub(crate) struct LoadOptions {
    /// Where the broker is.
    pub(crate) address: String,
    /// For the histories.
    pub(crate) folder: PathBuf,
    /// Of the lasting topic.
    pub(crate) partitions: u16,
    /// What a partition of the lasting topic keeps.
    pub(crate) retention_bytes: Option<u64>,
    /// Decides what becomes of short-lived topics; none: there are none. Their judge takes a broker at its
    /// word about what is there, which does not fit one that refuses changes and has yet to find out,
    /// at its next start, what became of the last.
    pub(crate) topics: Option<u64>,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    runtime: Handle,
    lasting: Group,
    fresh: Group,
    random: Rng,
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
    /// Creates the lasting topic; nothing runs yet.
    pub(crate) fn new(runtime: Handle, options: LoadOptions) -> Result<Self, CrashError> {
        let shared = Shared {
            address: options.address,
            partitions: options.partitions,
            retention_bytes: options.retention_bytes,
            folder: options.folder,
            has_topics: options.topics.is_some(),
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
            random: Rng::with_seed(options.topics.unwrap_or_default()),
        })
    }

    /// Starts the clients that last.
    pub(crate) fn start_lasting(&mut self) -> Result<(), CrashError> {
        for in_flight in [1, 16, 128] {
            self.publish(&self.lasting, Plan::lasting(in_flight))?;
        }
        self.subscribe(&self.lasting, Start::Earliest)?;
        let seed = self.random.u64(..);
        for name in (2..=topics::NAMES).filter(|_| self.shared.has_topics) {
            self.own(&self.lasting, name, seed)?;
        }
        self.consume(&self.lasting, 0)
    }

    /// Starts clients that are given up at the next fault.
    pub(crate) fn start_fresh(&mut self) -> Result<(), CrashError> {
        self.fresh = Group::default();
        for (in_flight, name) in [(16, None), (64, Some("named"))] {
            self.publish(&self.fresh, Plan::fresh(in_flight, name))?;
        }
        self.subscribe(&self.fresh, Start::Last(TAIL_RECORDS))?;
        let seed = self.random.u64(..);
        if self.shared.has_topics {
            self.own(&self.fresh, 1, seed)?;
        }
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
        let read = final_read::read_all(&self.shared, notes, Op::FinalRead);
        self.runtime.block_on(read)
    }

    /// The same in the middle of it all, by one more subscriber.
    pub(crate) fn read_now(&self) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "reader")?;
        let read = final_read::read_all(&self.shared, notes, Op::Read);
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

    /// Owns the name of a short-lived topic; the owner before must have ended.
    fn own(&self, group: &Group, name: u32, seed: u64) -> Result<(), CrashError> {
        let notes = Notes::create(&self.shared, "topics")?;
        let (shared, stop) = (Arc::clone(&self.shared), group.stop.clone());
        let task = async move {
            let ended = topics::run(&shared, (name, seed ^ u64::from(name)), notes, stop).await;
            shared.note_end("topic owner", ended);
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
        let mut entry = topics::entry(Op::CreateTopic, topics::LASTING);
        let created = client.create_topic(TOPIC, options).await;
        if !self.has_topics {
            return created.map(drop).map_err(failed);
        }
        let mut notes = Notes::create(self, "topics")?;
        entry.value.publisher = created.map_err(failed)?.0;
        entry.partition = self.partitions;
        entry.offset = self.retention_bytes.unwrap_or(NO_OFFSET);
        entry.completed_ns = now_ns();
        notes.push(&entry)?;
        notes.finish()
    }

    /// A number that no publisher has had.
    fn next_publisher(&self) -> u32 {
        self.publishers.fetch_add(1, Ordering::Relaxed)
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
