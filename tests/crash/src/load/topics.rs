//! Owners of names: create topics, publish to them, read them, change them, delete them, again and
//! again under the same name.

use falcon_client::{
    Client, ConfigEntry, Error, Publisher, Start, Ticket, TopicChange, TopicOptions, TopicSummary,
};
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use super::notes::{Notes, number};
use super::{RETRY, Shared, TOPIC, publishers, retry};
use crate::error::CrashError;
use crate::history::{Entry, NO_OFFSET, NO_TOPIC, Op, Outcome, ValueId, now_ns};

/// Number of the lasting topic's name; those of short-lived topics follow.
pub(super) const LASTING: u32 = 0;
/// Names of short-lived topics: from 1.
pub(super) const NAMES: u32 = 3;
/// So much that nothing is trimmed.
const RETENTION_BYTES: u64 = 1 << 40;
/// The setting's name in a topic's description.
const RETENTION: &str = "retention_bytes";
/// Records published at a time.
const RECORDS_MAX: u32 = 40;

/// The name of this number.
pub(super) fn name_of(name: u32) -> String {
    match name {
        LASTING => TOPIC.to_owned(),
        short_lived => format!("short-lived-{short_lived}"),
    }
}

/// An entry about this name that begins now.
pub(super) fn entry(op: Op, name: u32) -> Entry {
    Entry {
        op,
        outcome: Outcome::Ok,
        partition: 0,
        actor: name,
        value: ValueId {
            publisher: NO_TOPIC,
            sequence: 0,
        },
        offset: NO_OFFSET,
        invoked_ns: now_ns(),
        completed_ns: 0,
    }
}

/// What a list of topics says of this name.
pub(super) fn seen(topics: &[TopicSummary], name: u32, invoked_ns: u64) -> Entry {
    let mut entry = entry(Op::SeeTopic, name);
    entry.invoked_ns = invoked_ns;
    entry.completed_ns = now_ns();
    let text = name_of(name);
    if let Some(found) = topics.iter().find(|topic| topic.name == text) {
        entry.value.publisher = found.topic_id.0;
        entry.partition = number(found.partitions);
        entry.offset = setting(&found.config);
    }
    entry
}

fn setting(config: &[ConfigEntry]) -> u64 {
    let found = config.iter().find(|entry| entry.key == RETENTION);
    let value = found.and_then(|entry| entry.value.as_deref());
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(NO_OFFSET)
}

const fn outcome_of<T>(result: Option<&Result<T, Error>>) -> Outcome {
    match result {
        Some(Ok(_)) => Outcome::Ok,
        Some(Err(_)) | None => Outcome::Unknown,
    }
}

/// Owns `name` until told to stop.
pub(super) async fn run(
    shared: &Shared,
    (name, seed): (u32, u64),
    notes: Notes,
    stop: CancellationToken,
) -> Result<(), CrashError> {
    let Some(client) = shared.connect(&stop).await else {
        return notes.finish();
    };
    let mut owner = Owner {
        shared,
        client,
        name,
        topic: name_of(name),
        random: Rng::with_seed(seed),
        notes,
        stop,
    };
    while !owner.stop.is_cancelled() {
        owner.turn().await?;
    }
    // A publisher goes on when it is dropped, and would send what is left to the next topic of the name.
    owner.client.shutdown_within(Duration::ZERO).await;
    owner.notes.finish()
}

struct Owner<'a> {
    shared: &'a Shared,
    client: Client,
    name: u32,
    topic: String,
    random: Rng,
    notes: Notes,
    stop: CancellationToken,
}

impl Owner<'_> {
    /// Looks, then takes the next step of a topic's life.
    async fn turn(&mut self) -> Result<(), CrashError> {
        let Some(found) = self.look().await? else {
            return Ok(());
        };
        if found.value.publisher == NO_TOPIC {
            return self.create().await;
        }
        match self.random.u8(0..10) {
            0..=3 => self.publish(found.partition, false).await,
            4 | 5 => self.read().await,
            6 => self.alter().await,
            7 => self.delete().await,
            8 => self.publish(found.partition, true).await,
            // A topic may die before anything happened to it, or right after a look.
            9.. => Ok(()),
        }
    }

    /// What is there under the name; `None` when told to stop.
    async fn look(&mut self) -> Result<Option<Entry>, CrashError> {
        let client = &self.client;
        let attempt = || async move {
            let begun = now_ns();
            let topics = client.list_topics().await.ok()?;
            Some((topics, begun))
        };
        let Some((topics, begun)) = retry(&self.stop, attempt).await else {
            return Ok(None);
        };
        let seen = seen(&topics, self.name, begun);
        self.notes.push(&seen)?;
        Ok(Some(seen))
    }

    async fn create(&mut self) -> Result<(), CrashError> {
        let partitions = self.random.u32(1..4);
        let mut entry = entry(Op::CreateTopic, self.name);
        entry.partition = number(partitions);
        let mut options = TopicOptions::new(partitions);
        if self.random.bool() {
            entry.offset = RETENTION_BYTES;
            options = options.retention_bytes(RETENTION_BYTES);
        }
        let creation = self.client.create_topic(&self.topic, options);
        let result = self.stop.run_until_cancelled(creation).await;
        if let Some(Ok(id)) = &result {
            entry.value.publisher = id.0;
        }
        self.end(entry, result).await
    }

    async fn alter(&mut self) -> Result<(), CrashError> {
        let mut entry = entry(Op::AlterTopic, self.name);
        let setting = match self.random.u64(0..4) {
            0 => None,
            more => Some(RETENTION_BYTES + more),
        };
        entry.offset = setting.unwrap_or(NO_OFFSET);
        let change = TopicChange::new().retention_bytes(setting);
        let change = self.client.alter_topic(&self.topic, change);
        let result = self.stop.run_until_cancelled(change).await;
        self.end(entry, result).await
    }

    async fn delete(&mut self) -> Result<(), CrashError> {
        let entry = entry(Op::DeleteTopic, self.name);
        let deletion = self.client.delete_topic(&self.topic);
        let result = self.stop.run_until_cancelled(deletion).await;
        self.end(entry, result).await
    }

    /// Writes down how an operation on the topic ended.
    async fn end<T>(
        &mut self,
        mut entry: Entry,
        result: Option<Result<T, Error>>,
    ) -> Result<(), CrashError> {
        entry.completed_ns = now_ns();
        entry.outcome = match &result {
            Some(Err(error)) if !error.may_have_happened() => Outcome::Failed,
            other => outcome_of(other.as_ref()),
        };
        if entry.outcome != Outcome::Ok {
            // A broker that is away would be asked in a loop.
            let pause = tokio::time::sleep(RETRY);
            self.stop.run_until_cancelled(pause).await;
        }
        self.notes.push(&entry)
    }

    /// Publishes some records, and may delete the topic while they are in flight. All of them have
    /// ended when this returns: none is sent to a later topic of the name.
    async fn publish(&mut self, partitions: u16, is_deleted: bool) -> Result<(), CrashError> {
        let number = self.shared.next_publisher();
        let builder = self.client.publisher(self.topic.as_str());
        let building = builder.batch_bytes(16 << 10).build();
        let Some(Ok(publisher)) = self.stop.run_until_cancelled(building).await else {
            return Ok(());
        };
        let mut sent = self.send(&publisher, number, partitions).await?;
        if is_deleted {
            self.delete().await?;
        }
        for (entry, ticket) in &mut sent {
            let result = self.stop.run_until_cancelled(ticket).await;
            publishers::settle(entry, result.as_ref());
            self.notes.push(entry)?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        publisher: &Publisher,
        number: u32,
        partitions: u16,
    ) -> Result<Vec<(Entry, Ticket)>, CrashError> {
        let mut sent = Vec::new();
        for sequence in 0..self.random.u32(1..RECORDS_MAX) {
            let mut entry = entry(Op::TopicPublish, self.name);
            entry.value = ValueId {
                publisher: number,
                sequence,
            };
            let partition = self.random.u32(0..u32::from(partitions));
            let sending = publisher.send_to(partition, publishers::record(entry.value));
            match self.stop.run_until_cancelled(sending).await {
                Some(Ok(ticket)) => sent.push((entry, ticket)),
                Some(Err(error)) => {
                    publishers::settle(&mut entry, Some(&Err(error)));
                    self.notes.push(&entry)?;
                    break;
                }
                // CANCEL SAFETY: a `send` that is dropped has not published.
                None => break,
            }
        }
        Ok(sent)
    }

    async fn read(&mut self) -> Result<(), CrashError> {
        let (stop, notes) = (self.stop.clone(), &mut self.notes);
        let reading = read_all(self.shared, &self.client, self.name, notes);
        match stop.run_until_cancelled(reading).await {
            Some(read) => read.map(drop),
            // What was read of each partition is judged; that more is missing proves nothing.
            None => give_up(&mut self.notes, self.name),
        }
    }
}

/// Ends a read that did not come to its end.
fn give_up(notes: &mut Notes, name: u32) -> Result<(), CrashError> {
    (0..4).try_for_each(|partition| {
        let mut end = entry(Op::TopicEnd, name);
        (end.partition, end.outcome) = (partition, Outcome::Unknown);
        notes.push(&end)
    })
}

/// Reads all that is in a short-lived topic; answers whether it came to the end.
pub(super) async fn read_all(
    shared: &Shared,
    client: &Client,
    name: u32,
    notes: &mut Notes,
) -> Result<bool, CrashError> {
    let topic = name_of(name);
    let Ok(described) = client.describe_topic(&topic).await else {
        return Ok(false);
    };
    let ends = described.partitions;
    let opened = client.subscribe(&topic).from(Start::Earliest).open().await;
    let Some(mut records) = shared.heard(opened) else {
        return Ok(false);
    };
    let mut left: Vec<_> = ends
        .iter()
        .filter(|end| end.high_watermark.get() > 0)
        .collect();
    while !left.is_empty() {
        let record = match records.next().await {
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                shared.heard::<()>(Err(error));
                give_up(notes, name)?;
                return Ok(false);
            }
            None => {
                give_up(notes, name)?;
                return Ok(false);
            }
        };
        let mut read = entry(Op::TopicRead, name);
        read.partition = number(record.partition.0);
        read.value = Notes::value_of(&record);
        read.offset = record.offset.get();
        read.completed_ns = read.invoked_ns;
        notes.push(&read)?;
        left.retain(|end| {
            end.partition != record.partition
                || end.high_watermark.get() > record.next_offset().get()
        });
    }
    for end in &ends {
        let mut over = entry(Op::TopicEnd, name);
        over.partition = number(end.partition.0);
        over.offset = end.high_watermark.get();
        over.completed_ns = over.invoked_ns;
        notes.push(&over)?;
    }
    Ok(true)
}
