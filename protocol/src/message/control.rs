//! Control messages. The order of fields and variants is the wire format: never change it within
//! a protocol version.

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, Partition, ProducerId, TopicId};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        )*
    };
}

messages! {
    /// A body without content: the answer of requests that only succeed or fail.
    Empty {}

    /// Asks who owns what. Answer: [`MetadataResponse`].
    MetadataRequest {
        /// Topic names; `None`: none, only the brokers.
        topics: Option<Vec<String>>,
    }
    /// Brokers, and the topics asked for that exist.
    MetadataResponse {
        /// Every broker that owns something.
        brokers: Vec<BrokerAddress>,
        /// Topics found; one that is missing does not exist.
        topics: Vec<TopicMetadata>,
    }
    /// Where a broker is reached.
    BrokerAddress {
        /// Its number.
        broker_id: u32,
        /// `HOST:PORT`.
        address: String,
    }
    /// A topic and who owns its partitions.
    TopicMetadata {
        /// Its name.
        name: String,
        /// Its number.
        topic_id: TopicId,
        /// Its partitions, by number.
        partitions: Vec<PartitionMetadata>,
    }
    /// Who owns a partition.
    PartitionMetadata {
        /// The partition.
        partition: Partition,
        /// The broker that owns it.
        owner: u32,
        /// The owner's epoch.
        epoch: u32,
    }

    /// Creates a topic. Answer: [`TopicCreated`].
    CreateTopic {
        /// Its name.
        name: String,
        /// How many partitions, 1..=4096.
        partitions: u32,
        /// Settings that differ from the default.
        config: Vec<ConfigEntry>,
    }
    /// The topic exists and survives power loss.
    TopicCreated {
        /// Its number.
        topic_id: TopicId,
    }
    /// One setting by name. See [`TopicConfig`] for the names.
    ConfigEntry {
        /// Name of the setting.
        key: String,
        /// Its value in text; `None`: the default.
        value: Option<String>,
    }
    /// Asks for one topic in full. Answer: [`TopicDescription`].
    DescribeTopic {
        /// Its name.
        name: String,
    }
    /// One topic in full.
    TopicDescription {
        /// Its name.
        name: String,
        /// Its number.
        topic_id: TopicId,
        /// When it was created, milliseconds since the Unix epoch.
        created_ms: i64,
        /// Settings that differ from the default.
        config: Vec<ConfigEntry>,
        /// Its partitions, by number.
        partitions: Vec<PartitionDescription>,
    }
    /// What a partition holds.
    PartitionDescription {
        /// The partition.
        partition: Partition,
        /// First offset still kept.
        log_start: Offset,
        /// First offset not yet durable.
        high_watermark: Offset,
        /// Bytes of the batches kept.
        bytes: u64,
    }
    /// Asks for topics by name, after a name. Answer: [`TopicPage`].
    ListTopics {
        /// Only names behind this one; `None`: from the first.
        after: Option<String>,
        /// At most this many, 1..=1000.
        rows_max: u32,
    }
    /// Topics in order of their names.
    TopicPage {
        /// The topics.
        topics: Vec<TopicSummary>,
        /// Whether there are more behind the last.
        has_more: bool,
    }
    /// One topic in a line.
    TopicSummary {
        /// Its name.
        name: String,
        /// Its number.
        topic_id: TopicId,
        /// How many partitions.
        partitions: u32,
        /// Settings that differ from the default.
        config: Vec<ConfigEntry>,
    }
    /// Changes a topic. Answer: [`Empty`].
    AlterTopic {
        /// Its name.
        name: String,
        /// Settings to change; those not named stay.
        config: Vec<ConfigEntry>,
        /// New number of partitions; not fewer than before.
        partitions: Option<u32>,
    }
    /// Deletes a topic. Answer: [`Empty`].
    DeleteTopic {
        /// Its name.
        name: String,
    }

    /// Asks for a producer id. Answer: [`ProducerGranted`].
    InitProducer {
        /// A named publisher takes over from its older self, which is fenced.
        name: Option<String>,
    }
    /// Identity for idempotent publishing.
    ProducerGranted {
        /// The id.
        producer_id: ProducerId,
        /// The epoch.
        epoch: u32,
    }

    /// Opens a subscription, whose number is the request's correlation. Answer: [`Subscribed`],
    /// then `Deliver` frames while there is credit.
    Subscribe {
        /// The topic.
        topic_id: TopicId,
        /// Partitions and where to start in each; no partition twice, at least one.
        partitions: Vec<PartitionStart>,
        /// First grant, bytes.
        credit_bytes: u64,
        /// First grant, records.
        credit_records: u64,
    }
    /// Where to start in a partition.
    PartitionStart {
        /// The partition.
        partition: Partition,
        /// The first record wanted.
        start: StartPosition,
    }
    /// The subscription is open.
    Subscribed {
        /// Where each partition starts.
        partitions: Vec<SubscribedPartition>,
    }
    /// Where a partition of a subscription starts.
    SubscribedPartition {
        /// The partition.
        partition: Partition,
        /// Offset of the first record that will be delivered.
        offset: Offset,
        /// First offset still kept.
        log_start: Offset,
        /// First offset not yet durable.
        high_watermark: Offset,
    }
    /// Ends a subscription. Answer: [`Empty`], after the last `Deliver`.
    Unsubscribe {
        /// Its number.
        subscription: u32,
    }

    /// Asks for the offsets of positions. Answer: a list of [`ListedOffset`] in the same order.
    ListOffsets {
        /// The topic.
        topic_id: TopicId,
        /// What to look up.
        queries: Vec<OffsetQuery>,
    }
    /// A position in a partition.
    OffsetQuery {
        /// The partition.
        partition: Partition,
        /// The position.
        at: StartPosition,
    }
    /// Offset of a position.
    ListedOffset {
        /// The partition.
        partition: Partition,
        /// The offset; the high watermark when no record matches.
        offset: Offset,
        /// First offset still kept.
        log_start: Offset,
        /// First offset not yet durable.
        high_watermark: Offset,
    }

    /// Stores offsets under a group name, all or nothing. Answer: [`Empty`], once durable.
    CommitOffsets {
        /// The group.
        group: String,
        /// What to store.
        offsets: Vec<OffsetCommit>,
    }
    /// The next offset that a group wants to read from a partition.
    OffsetCommit {
        /// The topic.
        topic_id: TopicId,
        /// The partition.
        partition: Partition,
        /// The next offset to read, at most the high watermark.
        offset: Offset,
        /// Anything, at most 256 bytes.
        note: String,
    }
    /// Asks for a group's offsets. Answer: a list of [`CommittedOffset`].
    FetchOffsets {
        /// The group.
        group: String,
        /// Only this topic; `None`: every topic.
        topic: Option<String>,
    }
    /// An offset that was stored.
    CommittedOffset {
        /// Name of the topic.
        topic: String,
        /// Its number.
        topic_id: TopicId,
        /// The partition.
        partition: Partition,
        /// The next offset to read.
        offset: Offset,
        /// First offset not yet durable: lag is this minus `offset`.
        high_watermark: Offset,
        /// As given.
        note: String,
        /// When it was stored, milliseconds since the Unix epoch.
        commit_time_ms: i64,
    }
    /// Asks for group names, after a name. Answer: [`GroupPage`].
    ListGroups {
        /// Only names behind this one; `None`: from the first.
        after: Option<String>,
        /// At most this many, 1..=1000.
        rows_max: u32,
    }
    /// Group names in order.
    GroupPage {
        /// The names.
        groups: Vec<String>,
        /// Whether there are more behind the last.
        has_more: bool,
    }
    /// Forgets a group's offsets. Answer: [`Empty`], once durable.
    DeleteOffsets {
        /// The group.
        group: String,
        /// Only this topic; `None`: every topic.
        topic: Option<String>,
    }
}

/// A position in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartPosition {
    /// The first record still kept.
    Earliest,
    /// Behind the last record that is durable now.
    Latest,
    /// This offset, which must lie in `log start ..= high watermark`.
    Offset(Offset),
    /// The first record, in order of offsets, whose time is this or later (milliseconds since the
    /// Unix epoch); behind the last when there is none.
    Timestamp(i64),
    /// The last so many records of the partition, or all when there are fewer.
    Last(u64),
}

/// A topic's settings. `None` everywhere: keep all records for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Records older than this (by append time) may be trimmed, milliseconds.
    pub retention_age_ms: Option<u64>,
    /// When a partition holds more bytes than this, its oldest records may be trimmed.
    pub retention_bytes: Option<u64>,
}

impl TopicConfig {
    /// Name of [`retention_age_ms`](Self::retention_age_ms) on the wire.
    pub const RETENTION_AGE_MS: &'static str = "retention_age_ms";
    /// Name of [`retention_bytes`](Self::retention_bytes) on the wire.
    pub const RETENTION_BYTES: &'static str = "retention_bytes";

    /// The settings that differ from the default.
    pub fn to_entries(&self) -> Vec<ConfigEntry> {
        let settings = [
            (Self::RETENTION_AGE_MS, self.retention_age_ms),
            (Self::RETENTION_BYTES, self.retention_bytes),
        ];
        let set = settings
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        set.map(|(key, value)| ConfigEntry {
            key: key.into(),
            value: Some(value.to_string()),
        })
        .collect()
    }

    /// Applies changes; the error names the setting and what is wrong with it.
    pub fn apply(&mut self, entries: &[ConfigEntry]) -> Result<(), String> {
        for entry in entries {
            let value = entry.value.as_deref().map(|text| {
                text.parse::<u64>().map_err(|_| {
                    format!(
                        "{}: {text:?} is not a whole number from 0 to 2^64-1",
                        entry.key
                    )
                })
            });
            let value = value.transpose()?;
            match entry.key.as_str() {
                Self::RETENTION_AGE_MS => self.retention_age_ms = value,
                Self::RETENTION_BYTES => self.retention_bytes = value,
                other => {
                    let known = [Self::RETENTION_AGE_MS, Self::RETENTION_BYTES].join(", ");
                    return Err(format!(
                        "{other:?} is not a topic setting; known are {known}"
                    ));
                }
            }
        }
        Ok(())
    }
}
