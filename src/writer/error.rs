//! Why the writer refuses a command, one type per operation.

use falcon_protocol::ids::NameError;
use falcon_protocol::limits::{OFFSET_NOTE_BYTES_MAX, TOPIC_PARTITIONS_MAX};
use falcon_protocol::{Offset, OwnerEpoch, Partition, PartitionId, TopicId};
use thiserror::Error;

use crate::partition::AdmitError;

/// The journal did not take the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JournalError {
    /// The write or sync failed with this change in it.
    #[error("the write or sync failed with this change in it, see the broker's log")]
    OutcomeUnknown,
    /// A write or sync failed earlier; nothing was done.
    #[error("a write or sync failed earlier, see the broker's log")]
    Stopped,
    /// Too little space is left; nothing was done.
    #[error("{free_bytes} bytes are free on the device, {floor_bytes} must stay free")]
    Full {
        /// Free now.
        free_bytes: u64,
        /// Configured floor.
        floor_bytes: u64,
    },
    /// The writer has been told to stop; nothing was done.
    #[error("the broker is shutting down")]
    Closed,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// No topic has this number.
    #[error("no topic has the number {0}; was it deleted?")]
    UnknownTopic(TopicId),
    /// The topic has fewer partitions.
    #[error("topic {topic:?} has {partitions} partitions, {partition} is not one of them")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u32,
        /// The one asked for.
        partition: Partition,
    },
    /// The partition's rules refuse it.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// A configured limit is reached.
    #[error("the broker allows {limit} in {what}; close publishers or raise it")]
    Limit {
        /// The configuration key.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a step was refused, all of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// One of its batches cannot be appended.
    #[error("the batch for partition {partition}: {source}")]
    Batch {
        /// Where it was to go.
        partition: PartitionId,
        /// Why not.
        source: PublishError,
    },
    /// A configured limit is reached, or the journal did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Its offsets cannot be stored.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A partition is named twice.
    #[error("partition {0} is named twice")]
    NamedTwice(PartitionId),
    /// The next offset is another than the publisher expects.
    #[error("the next offset of partition {partition} is {next}, not {expected}")]
    OffsetMismatch {
        /// The partition.
        partition: PartitionId,
        /// As given.
        expected: Offset,
        /// As it is.
        next: Offset,
    },
    /// Some of its batches were appended before and some were not: they are of another step.
    #[error("the batch for partition {partition} was appended before, others of the step were not")]
    PartlyKnown {
        /// Where the first known one is.
        partition: PartitionId,
    },
}

impl From<JournalError> for StepError {
    fn from(error: JournalError) -> Self {
        Self::Publish(error.into())
    }
}

/// Why a topic was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicError {
    /// Not a name.
    #[error("{name:?} is no topic name: {source}")]
    Name {
        /// As given.
        name: String,
        /// The rule it breaks.
        source: NameError,
    },
    /// It exists.
    #[error("topic {0:?} exists")]
    Exists(String),
    /// It does not exist.
    #[error("topic {0:?} does not exist")]
    Unknown(String),
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// Too few or too many partitions.
    #[error("{0} partitions were asked for, 1 to {TOPIC_PARTITIONS_MAX} are allowed")]
    Partitions(u32),
    /// Partitions cannot be taken away.
    #[error("the topic has {have} partitions, they cannot become {want}: records would be lost")]
    FewerPartitions {
        /// Now.
        have: u32,
        /// Asked for.
        want: u32,
    },
    /// A configured limit is reached.
    #[error("the broker allows {limit} in {what}")]
    Limit {
        /// The configuration key.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why offsets were not stored or forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OffsetsError {
    /// Not a name.
    #[error("{name:?} is no group name: {source}")]
    Name {
        /// As given.
        name: String,
        /// The rule it breaks.
        source: NameError,
    },
    /// No topic has this number.
    #[error("no topic has the number {0}; was it deleted?")]
    UnknownTopic(TopicId),
    /// No topic has this name.
    #[error("topic {0:?} does not exist")]
    UnknownTopicName(String),
    /// The topic has fewer partitions.
    #[error("there is no partition {0}")]
    UnknownPartition(PartitionId),
    /// Beyond the end of the partition.
    #[error("offset {offset} of partition {partition} lies behind its end {high}")]
    BeyondEnd {
        /// The partition.
        partition: Partition,
        /// As given.
        offset: Offset,
        /// First offset kept.
        low: Offset,
        /// Next offset to be assigned.
        high: Offset,
    },
    /// The partition was granted to somebody else since, or its group was deleted or reset.
    #[error(
        "partition {partition} was granted anew: its epoch is {current}, the commit has {given}"
    )]
    StaleOwner {
        /// The partition.
        partition: PartitionId,
        /// Its fence; 0: it has none.
        current: OwnerEpoch,
        /// As given.
        given: OwnerEpoch,
    },
    /// A partition is named twice.
    #[error("partition {0} is named twice")]
    NamedTwice(PartitionId),
    /// The note is too long.
    #[error("the note has {0} bytes, at most {OFFSET_NOTE_BYTES_MAX} are allowed")]
    NoteTooLong(usize),
    /// The group has no offsets.
    #[error("nothing is stored of group {0:?}")]
    UnknownGroup(String),
    /// A configured limit is reached.
    #[error("the broker allows {limit} in {what}")]
    Limit {
        /// The configuration key.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why no producer id was granted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProducerError {
    /// Not a name.
    #[error("{name:?} is no publisher name: {source}")]
    Name {
        /// As given.
        name: String,
        /// The rule it breaks.
        source: NameError,
    },
    /// A configured limit is reached.
    #[error("the broker allows {limit} in {what}")]
    Limit {
        /// The configuration key.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
