//! Who publishes for the groups, who looks at their committed offsets, and the full read in the end.
//!
//! Owns the topics of a run and the tasks of these clients. Promises: when [`Load::stop_publishing`] returned, every
//! publish has an outcome; the looker writes down what it sees until [`Load::finish`].

mod publish;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falcon_client::{Client, Offset, Start, TopicOptions};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::member::{GROUPS, OUTPUT, group_name, topic_name, topic_number};
use crate::error::CrashError;
use crate::history::{Entry, GroupPlace, HistoryWriter, NO_OFFSET, Op, Outcome, ValueId, now_ns};
use crate::payload;
use publish::publish_on;

/// Longest time between two records of the full read.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often committed offsets are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Records that the slower group may be behind before publishers wait.
const BACKLOG_MAX: u64 = 3_000;
const OUTPUT_PARTITIONS: u16 = 4;

#[derive(Debug)]
struct Shared {
    address: String,
    folder: PathBuf,
    /// Records a second for each partition.
    rate: u32,
    publishers: AtomicU32,
    /// Publishes acknowledged.
    acked: AtomicU64,
    files: Mutex<Vec<PathBuf>>,
    complaints: Mutex<Vec<String>>,
    /// What groups have committed, as seen last.
    committed: Mutex<BTreeMap<GroupPlace, u64>>,
}

/// Clients beside the members.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    runtime: Handle,
    client: Client,
    /// Of each topic, by number.
    partitions: Vec<u16>,
    publishing: (TaskTracker, CancellationToken),
    looking: (TaskTracker, CancellationToken),
    /// When partitions appeared.
    pub(super) appeared: Vec<Entry>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: &falcon_client::Error) -> CrashError {
    CrashError::Program(format!("a client of the rig: {error}"))
}

impl Load {
    /// Creates the output of steps, and starts to look at committed offsets.
    pub(super) fn new(
        runtime: Handle,
        address: String,
        folder: PathBuf,
        rate: u32,
    ) -> Result<Self, CrashError> {
        let shared = Arc::new(Shared {
            address,
            folder,
            rate,
            publishers: AtomicU32::new(0),
            acked: AtomicU64::new(0),
            files: Mutex::default(),
            complaints: Mutex::default(),
            committed: Mutex::default(),
        });
        let client = runtime.block_on(Client::connect(&shared.address));
        let client = client.map_err(|error| failed(&error))?;
        let output = client.create_topic(OUTPUT, TopicOptions::new(OUTPUT_PARTITIONS.into()));
        runtime.block_on(output).map_err(|error| failed(&error))?;
        let load = Self {
            shared,
            runtime,
            client,
            partitions: Vec::new(),
            publishing: Default::default(),
            looking: Default::default(),
            appeared: Vec::new(),
        };
        let notes = load.shared.notes("looker")?;
        let (shared, client) = (Arc::clone(&load.shared), load.client.clone());
        let (tasks, stop) = &load.looking;
        let stop = stop.clone();
        let task = async move {
            let looked = look_on(&shared, &client, (notes, stop)).await;
            shared.note_end(looked);
        };
        tasks.spawn_on(task, &load.runtime);
        Ok(load)
    }

    /// Creates one more topic, which the patterns of members fit, and publishes to it.
    pub(super) fn add_topic(&mut self, partitions: u16) -> Result<(), CrashError> {
        let number = u16::try_from(self.partitions.len()).unwrap_or(u16::MAX);
        let name = topic_name(number);
        let created = self
            .client
            .ensure_topic(&name, TopicOptions::new(partitions.into()));
        self.runtime
            .block_on(created)
            .map_err(|error| failed(&error))?;
        self.partitions.push(partitions);
        let now = now_ns();
        for partition in 0..partitions {
            self.appeared.push(Entry {
                partition: GroupPlace::log(number, partition).0,
                invoked_ns: now,
                completed_ns: now,
                ..blank(Op::Exists)
            });
        }
        let notes = self.shared.notes("publisher")?;
        let (shared, client) = (Arc::clone(&self.shared), self.client.clone());
        let (tasks, stop) = &self.publishing;
        let stop = stop.clone();
        let task = async move {
            let rate = shared.rate * u32::from(partitions);
            let published = publish_on(&shared, &client, (number, rate), (notes, stop)).await;
            shared.note_end(published);
        };
        tasks.spawn_on(task, &self.runtime);
        Ok(())
    }

    pub(super) fn topics(&self) -> usize {
        self.partitions.len()
    }

    /// Waits for the outcome of everything that was sent.
    pub(super) fn stop_publishing(&self) {
        self.end(&self.publishing);
    }

    fn end(&self, (tasks, stop): &(TaskTracker, CancellationToken)) {
        stop.cancel();
        tasks.close();
        self.runtime.block_on(tasks.wait());
    }

    /// Whether every group has committed everything.
    pub(super) fn is_drained(&self) -> bool {
        let committed = lock(&self.shared.committed).clone();
        let places = (0..).zip(&self.partitions);
        places.into_iter().all(|(topic, _)| {
            let name = topic_name(topic);
            let ends = self.client.latest_offsets(&name);
            let Ok(ends) = self.runtime.block_on(ends) else {
                return false;
            };
            ends.iter().all(|end| {
                let log = GroupPlace::log(topic, small(end.partition.0));
                let of = |group| committed.get(&log.of(group)).copied().unwrap_or_default();
                (0..GROUPS).all(|group| of(group) >= end.offset.get())
            })
        })
    }

    /// Looks a last time, and reads everything from the first record to the last.
    pub(super) fn finish(&self) -> Result<(), CrashError> {
        self.end(&self.looking);
        let mut notes = self.shared.notes("final")?;
        let read = async {
            if let Err(trouble) = look(&self.shared, &self.client, &mut notes).await? {
                self.shared.complain(format!("the last look: {trouble}"));
            }
            let names = (0..).zip(&self.partitions);
            let names = names.map(|(number, _)| (topic_name(number), Op::FinalRead));
            for (name, op) in names.chain([(OUTPUT.to_owned(), Op::Output)]) {
                if let Err(trouble) = read(&self.client, (&name, op), &mut notes).await? {
                    self.shared
                        .complain(format!("the full read of {name}: {trouble}"));
                }
            }
            Ok(())
        };
        self.runtime.block_on(read)?;
        notes.finish()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        lock(&self.shared.files).clone()
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }
}

impl Shared {
    /// Whether members are as far behind as they may be: who has too much to do makes the others' times look long.
    fn is_backed_up(&self) -> bool {
        let committed = lock(&self.committed);
        let of = |group| {
            let rows = committed.iter();
            let rows = rows.filter(|(place, _)| place.group() == group);
            rows.map(|(_, offset)| *offset).sum::<u64>()
        };
        let slowest = (0..GROUPS).map(of).min().unwrap_or_default();
        self.acked.load(Ordering::Relaxed) > slowest + BACKLOG_MAX
    }

    fn notes(&self, who: &str) -> Result<HistoryWriter, CrashError> {
        let mut files = lock(&self.files);
        let number = files.len();
        let path = self.folder.join(format!("{number:03}-{who}.history"));
        files.push(path.clone());
        HistoryWriter::create(&path)
    }

    fn complain(&self, complaint: String) {
        lock(&self.complaints).push(complaint);
    }

    fn note_end(&self, ended: Result<(), CrashError>) {
        if let Err(error) = ended {
            self.complain(format!("a client of the rig ended: {error}"));
        }
    }
}

const fn blank(op: Op) -> Entry {
    Entry {
        op,
        outcome: Outcome::Ok,
        partition: 0,
        actor: 0,
        value: ValueId::FOREIGN,
        offset: NO_OFFSET,
        invoked_ns: 0,
        completed_ns: 0,
    }
}

/// Numbers of a run are small.
fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

type Notes = (HistoryWriter, CancellationToken);

/// What kept a client of the rig from its end.
type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn look_on(
    shared: &Shared,
    client: &Client,
    (mut notes, stop): Notes,
) -> Result<(), CrashError> {
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        // The broker may be away.
        look(shared, client, &mut notes).await?.ok();
    }
    notes.finish()
}

/// Writes down what all groups have committed.
async fn look(
    shared: &Shared,
    client: &Client,
    notes: &mut HistoryWriter,
) -> Result<Result<(), Trouble>, CrashError> {
    for group in 0..GROUPS {
        let invoked_ns = now_ns();
        let rows = match client.offsets(group_name(group)).fetch_all().await {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error.into())),
        };
        let completed_ns = now_ns();
        for row in rows {
            let Some(topic) = topic_number(&row.topic) else {
                return Ok(Err(format!("{row:?} is of no topic of the run").into()));
            };
            let place = GroupPlace::log(topic, small(row.partition.0)).of(group);
            notes.push(&Entry {
                partition: place.0,
                offset: row.offset.get(),
                invoked_ns,
                completed_ns,
                ..blank(Op::FetchOwned)
            })?;
            lock(&shared.committed).insert(place, row.offset.get());
        }
    }
    Ok(Ok(()))
}

/// Reads a topic to its end.
async fn read(
    client: &Client,
    (topic, op): (&str, Op),
    notes: &mut HistoryWriter,
) -> Result<Result<(), Trouble>, CrashError> {
    let ends = match client.latest_offsets(topic).await {
        Ok(ends) => ends,
        Err(error) => return Ok(Err(error.into())),
    };
    let ends = ends.iter().filter(|end| end.offset > Offset::ZERO);
    let mut left: BTreeMap<_, _> = ends.map(|end| (end.partition, end.offset)).collect();
    let mut records = match client.subscribe(topic).from(Start::Earliest).open().await {
        Ok(records) => records,
        Err(error) => return Ok(Err(error.into())),
    };
    while !left.is_empty() {
        let record = match timeout(PATIENCE, records.next()).await {
            Ok(Some(Ok(record))) => record,
            Ok(Some(Err(error))) => return Ok(Err(error.into())),
            Ok(None) => return Ok(Err("the stream ended".into())),
            Err(_) => return Ok(Err(format!("it waits for the ends of {left:?}").into())),
        };
        let value = record.value.as_deref().and_then(payload::decode_small);
        let topic = topic_number(&record.topic).unwrap_or_default();
        let now = now_ns();
        notes.push(&Entry {
            partition: GroupPlace::log(topic, small(record.partition.0)).0,
            value: value.unwrap_or(ValueId::FOREIGN),
            offset: record.offset.get(),
            invoked_ns: now,
            completed_ns: now,
            ..blank(op)
        })?;
        if left.get(&record.partition) == Some(&record.next_offset()) {
            left.remove(&record.partition);
        }
    }
    Ok(Ok(()))
}
