//! A topic whose every record is known: what was acknowledged, and where.
//!
//! Owns one idempotent publisher and its exact account. Promises that [`Ledger::compare`] names every
//! acknowledged record that is missing, twice, elsewhere or changed, and every one that nobody sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use falcon_client::{
    Client, Compression, ErrorCode, Offset, Partition, PublishError, Publisher, Receipt, Record,
    Start, TopicOptions,
};
use tokio::time::timeout;

use crate::error::CrashError;

/// A publish that was refused is tried again for so long.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(1000);
/// Longest time between two records that are there.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    Acked,
    /// Refused for want of space, and not stored.
    Full,
    /// Not answered in time: it may be stored.
    Unanswered,
    /// Neither: in words.
    Otherwise(String),
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) read: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// What is wrong besides, in words.
    pub(crate) wrong: Vec<String>,
}

/// The topic and its account.
#[derive(Debug)]
pub(crate) struct Ledger {
    client: Client,
    publisher: Publisher,
    pub(crate) topic: String,
    value_bytes: usize,
    next: u64,
    acked: BTreeMap<(u32, u64), u64>,
    uncertain: BTreeSet<u64>,
}

impl Ledger {
    /// Creates the topic.
    pub(crate) async fn create(
        client: &Client,
        topic: &str,
        (partitions, value_bytes): (u32, usize),
    ) -> Result<Self, CrashError> {
        let failed = |error| CrashError::Program(format!("the topic {topic}: {error}"));
        let created = client.create_topic(topic, TopicOptions::new(partitions));
        created.await.map_err(failed)?;
        let publisher = publisher(client, topic).await.map_err(failed)?;
        Ok(Self {
            client: client.clone(),
            publisher,
            topic: topic.to_owned(),
            value_bytes,
            next: 0,
            acked: BTreeMap::new(),
            uncertain: BTreeSet::new(),
        })
    }

    /// Goes on with another connection and another publisher.
    pub(crate) async fn reconnect(&mut self, client: &Client) -> Result<(), falcon_client::Error> {
        self.publisher = publisher(client, &self.topic).await?;
        self.client = client.clone();
        Ok(())
    }

    /// Records acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.len() as u64
    }

    /// Publishes one record.
    pub(crate) async fn publish(&mut self) -> Published {
        let number = self.take_number();
        let ended = self.publisher.publish(self.record(number)).await;
        self.note(number, &ended)
    }

    /// Publishes `bytes`, many records at a time, or until the first is refused; answers how that one
    /// ended.
    pub(crate) async fn fill(&mut self, bytes: u64) -> Published {
        let records = bytes / self.value_bytes as u64;
        let mut tickets = std::collections::VecDeque::new();
        let mut end = Published::Acked;
        for _ in 0..records {
            let number = self.take_number();
            match self.publisher.send(self.record(number)).await {
                Ok(ticket) => tickets.push_back((number, ticket)),
                Err(error) => end = self.note(number, &Err(error)),
            }
            if tickets.len() > 32
                && let Some((number, ticket)) = tickets.pop_front()
            {
                let ended = ticket.await;
                end = self.note(number, &ended);
            }
            if !matches!(end, Published::Acked | Published::Unanswered) {
                break;
            }
        }
        for (number, ticket) in tickets {
            let ended = ticket.await;
            let ended = self.note(number, &ended);
            if matches!(end, Published::Acked | Published::Unanswered) {
                end = ended;
            }
        }
        end
    }

    /// Reads everything, and compares.
    pub(crate) async fn compare(&self) -> Compared {
        let mut compared = Compared::default();
        if let Err(error) = self.read(&mut compared).await {
            let topic = &self.topic;
            compared
                .wrong
                .push(format!("{topic} cannot be read: {error}"));
        }
        compared
    }

    async fn read(
        &self,
        compared: &mut Compared,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ends = self.client.latest_offsets(&self.topic).await?;
        let left: u64 = ends.iter().map(|end| end.offset.get()).sum();
        let subscription = self.client.subscribe(&self.topic).from(Start::Earliest);
        let mut records = subscription.open().await?;
        let mut due: BTreeMap<u32, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for _ in 0..left {
            let next = timeout(PATIENCE, records.next()).await;
            let next = next.map_err(|_| format!("{} of {left} came", compared.read))?;
            let record = next.ok_or("the stream ended")??;
            compared.read += 1;
            let (partition, offset) = (record.partition.0, record.offset.get());
            let due = due.entry(partition).or_default();
            if offset != *due {
                let wrong = format!("{partition}: offset {offset} came, {due} was due");
                compared.wrong.push(wrong);
            }
            *due = offset + 1;
            let value = record.value.as_deref().unwrap_or_default();
            let number = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let number = number.filter(|number| self.value(*number) == value);
            match (number, self.acked.get(&(partition, offset))) {
                (Some(number), acked) if !seen.insert(number) => {
                    compared.duplicates += 1;
                    let wrong = format!("{number} is there twice, acknowledged here: {acked:?}");
                    compared.wrong.push(wrong);
                }
                (Some(number), Some(acked)) if number == *acked => {}
                (Some(number), None) if self.uncertain.contains(&number) => {}
                (number, acked) => {
                    let wrong = format!("{partition} at {offset}: {number:?}, not {acked:?}");
                    compared.wrong.push(wrong);
                }
            }
        }
        let lost = self.acked.values().filter(|number| !seen.contains(number));
        compared.lost += lost.count() as u64;
        Ok(())
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The record of a number; its bytes follow from it, and do not compress.
    fn record(&self, number: u64) -> Record {
        Record::new(self.value(number)).key(number.to_le_bytes().to_vec())
    }

    fn value(&self, number: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(number);
        let mut bytes = vec![0; self.value_bytes];
        random.fill(&mut bytes);
        if let Some(name) = bytes.first_chunk_mut() {
            *name = number.to_le_bytes();
        }
        bytes
    }

    fn note(&mut self, number: u64, ended: &Result<Receipt, PublishError>) -> Published {
        let error = match ended {
            Ok(Receipt {
                partition: Partition(partition),
                offset: Offset(offset),
                ..
            }) => {
                self.acked.insert((*partition, *offset), number);
                return Published::Acked;
            }
            Err(error) => error,
        };
        if error.may_have_happened() {
            self.uncertain.insert(number);
        }
        if is_full(error) {
            return Published::Full;
        }
        if is_unanswered(error) {
            return Published::Unanswered;
        }
        Published::Otherwise(error.to_string())
    }
}

/// Whether the last that was heard is that the disk is full.
fn is_full(error: &PublishError) -> bool {
    if let PublishError::EarlierFailed { cause } = error {
        return is_full(cause);
    }
    if let PublishError::DeliveryTimeout { last, .. } = error {
        return last.contains("storage_full");
    }
    error.code() == Some(ErrorCode::StorageFull)
}

/// Whether a slow machine is all that is known of.
fn is_unanswered(error: &PublishError) -> bool {
    if let PublishError::EarlierFailed { cause } = error {
        return is_unanswered(cause);
    }
    matches!(error, PublishError::DeliveryTimeout { last, .. } if last == "no answer")
}

async fn publisher(client: &Client, topic: &str) -> Result<Publisher, falcon_client::Error> {
    let builder = client.publisher(topic).compression(Compression::None);
    let builder = builder.batch_bytes(96 << 10).window_bytes(1 << 20);
    builder.delivery_timeout(DELIVERY_TIMEOUT).build().await
}
