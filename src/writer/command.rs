//! What the writer can be asked to do.

use std::sync::Arc;

use falcon_protocol::message::{CommitOwned, ConfigEntry, ProducerGranted};
use falcon_protocol::{Batch, Offset, OwnerEpoch, PartitionId, TopicId};

use super::answers::sure;
use super::error::{
    JournalError, OffsetsError, ProducerError, PublishError, StepError, TopicError,
};
use super::fences::Fenced;
use crate::store::Purpose;

/// Called once, on one of the writer's threads, with the outcome; where those end by a panic, with "outcome unknown".
/// Must not block.
pub type Answer<T, E> = Box<dyn FnOnce(Result<T, E>) + Send>;

/// Has answers that leave when the turn has given all of its answers.
pub trait Flush: Send + Sync {
    /// Sends them; `count` have some to send. Called on one of the writer's threads: must not block.
    fn flush(&self, count: usize);
}

/// Answers who shall be flushed.
type Give = dyn FnOnce(Result<Appended, PublishError>) -> Option<Arc<dyn Flush>> + Send;

/// Gets the outcome of a publish.
pub struct PublishAnswer {
    give: Option<Box<Give>>,
    /// The writer has it: somebody waits until it is given.
    is_due: bool,
}

impl PublishAnswer {
    /// Calls `answer` once, on one of the writer's threads. Must not block. Who is returned is flushed behind
    /// the last answer of the turn.
    pub fn new(
        answer: impl FnOnce(Result<Appended, PublishError>) -> Option<Arc<dyn Flush>> + Send + 'static,
    ) -> Self {
        Self {
            give: Some(Box::new(answer)),
            is_due: false,
        }
    }

    pub(super) fn give(mut self, result: Result<Appended, PublishError>) -> Option<Arc<dyn Flush>> {
        self.give.take().and_then(|give| give(result))
    }
}

impl Drop for PublishAnswer {
    fn drop(&mut self) {
        if self.is_due
            && let Some(give) = self.give.take()
            && let Some(flush) = give(Err(JournalError::OutcomeUnknown.into()))
        {
            flush.flush(1);
        }
    }
}

impl From<Answer<Appended, PublishError>> for PublishAnswer {
    fn from(answer: Answer<Appended, PublishError>) -> Self {
        Self::new(move |result| {
            answer(result);
            None
        })
    }
}

/// The batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Append time, Unix milliseconds.
    pub append_time_ms: i64,
    /// Records in it.
    pub record_count: u32,
    /// Whether it had been appended before.
    pub is_duplicate: bool,
}

/// Append a batch.
pub struct Publish {
    /// Where.
    pub partition: PartitionId,
    /// What: its checksum and records were verified.
    pub batch: Batch,
    /// Gets the outcome; holds the permits that pay for the batch's memory.
    pub answer: PublishAnswer,
}

/// A step's batch.
#[derive(Debug, Clone)]
pub struct StepEntry {
    /// Where; no partition twice.
    pub partition: PartitionId,
    /// What the partition's next offset must be.
    pub expected: Option<Offset>,
    /// What: its checksum and records were verified.
    pub batch: Batch,
}

/// Append batches and store offsets, all or nothing. LIMIT: what fits into a frame, which is far less
/// than what fits into a commit group.
#[derive(Debug, Clone)]
pub struct Step {
    /// What to append.
    pub batches: Vec<StepEntry>,
    /// Offsets from the owners of their partitions.
    pub commit: Option<CommitOwned>,
}

/// Change a topic.
#[derive(Debug)]
pub struct TopicAlteration {
    /// The topic.
    pub name: String,
    /// Settings to change.
    pub config: Vec<ConfigEntry>,
    /// New number of partitions.
    pub partitions: Option<u32>,
}

/// Store offsets, all or nothing.
#[derive(Debug)]
pub struct CommitOffsets {
    /// The group.
    pub group: String,
    /// Partition, next offset to read, note.
    pub offsets: Vec<(PartitionId, Offset, String)>,
}

/// Let go of a partition's oldest records.
#[derive(Debug, Clone, Copy)]
pub struct Trim {
    /// The partition.
    pub partition: PartitionId,
    /// Log start offset when the trim was decided; the trim is void when it has moved since.
    pub from: Offset,
    /// New log start offset.
    pub log_start: Offset,
    /// Bytes of the batches before it.
    pub bytes_freed: u64,
}

/// A command for the writer.
pub enum Command {
    /// Append a batch.
    Publish(Publish),
    /// Append batches and store offsets, all or nothing; answers each batch in order. The answer holds
    /// the permits that pay for the memory.
    Step(Step, Answer<Vec<Appended>, StepError>),
    /// Create a topic: name, partitions, settings.
    CreateTopic(String, u32, Vec<ConfigEntry>, Answer<TopicId, TopicError>),
    /// Change a topic.
    AlterTopic(TopicAlteration, Answer<(), TopicError>),
    /// Delete a topic.
    DeleteTopic(String, Answer<(), TopicError>),
    /// Allocate a producer id, or take over a named one.
    InitProducer(Option<String>, Answer<ProducerGranted, ProducerError>),
    /// Store offsets, whoever owns the partitions.
    CommitOffsets(CommitOffsets, Answer<(), OffsetsError>),
    /// Store offsets from the owners of their partitions.
    CommitOwned(CommitOwned, Answer<(), OffsetsError>),
    /// Store offsets and fence who owns the partitions; answers the fences that were raised.
    ResetOffsets(
        CommitOffsets,
        Answer<Vec<(PartitionId, OwnerEpoch)>, OffsetsError>,
    ),
    /// Put epochs of a group's partitions in force; answers each, once durable.
    Fence(
        String,
        Vec<(PartitionId, OwnerEpoch)>,
        Answer<Vec<Fenced>, OffsetsError>,
    ),
    /// Forget a group: offsets and fences.
    DeleteGroup(String, Answer<(), OffsetsError>),
    /// Forget a group's offsets: group, topic.
    DeleteOffsets(String, Option<String>, Answer<(), OffsetsError>),
    /// Let go of old records.
    Trim(Vec<Trim>),
    /// Let the store tidy up; called when that is done.
    Tidy(Box<dyn FnOnce() + Send>),
    /// Forget publishers idle since before this time, Unix milliseconds.
    ExpireProducers(i64),
}

/// What a row takes besides names and notes.
const ROW_BYTES: usize = 64;

impl Command {
    /// The same, once the writer has it: from here on its answer is given even if nobody comes to it.
    pub(super) fn due(self) -> Self {
        match self {
            Self::Publish(mut publish) => {
                publish.answer.is_due = true;
                Self::Publish(publish)
            }
            Self::Step(step, answer) => Self::Step(step, sure(answer)),
            Self::CreateTopic(name, partitions, config, answer) => {
                Self::CreateTopic(name, partitions, config, sure(answer))
            }
            Self::AlterTopic(change, answer) => Self::AlterTopic(change, sure(answer)),
            Self::DeleteTopic(name, answer) => Self::DeleteTopic(name, sure(answer)),
            Self::InitProducer(name, answer) => Self::InitProducer(name, sure(answer)),
            Self::CommitOffsets(commit, answer) => Self::CommitOffsets(commit, sure(answer)),
            Self::CommitOwned(commit, answer) => Self::CommitOwned(commit, sure(answer)),
            Self::ResetOffsets(commit, answer) => Self::ResetOffsets(commit, sure(answer)),
            Self::Fence(group, wanted, answer) => Self::Fence(group, wanted, sure(answer)),
            Self::DeleteGroup(group, answer) => Self::DeleteGroup(group, sure(answer)),
            Self::DeleteOffsets(group, topic, answer) => {
                Self::DeleteOffsets(group, topic, sure(answer))
            }
            Self::Trim(_) | Self::Tidy(_) | Self::ExpireProducers(_) => self,
        }
    }

    /// How far a full device lets it get.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Publish(_) => Purpose::Batches,
            Self::Step(step, _) if !step.batches.is_empty() => Purpose::Batches,
            Self::Step(..)
            | Self::CreateTopic(..)
            | Self::InitProducer(..)
            | Self::CommitOffsets(..)
            | Self::CommitOwned(..)
            | Self::ResetOffsets(..)
            | Self::Fence(..) => Purpose::Rows,
            Self::AlterTopic(..)
            | Self::DeleteTopic(..)
            | Self::DeleteOffsets(..)
            | Self::DeleteGroup(..)
            | Self::Trim(_)
            | Self::Tidy(_)
            | Self::ExpireProducers(_) => Purpose::Freeing,
        }
    }

    /// Bytes of the batches it appends, and how many they are.
    pub(super) fn batch_bytes(&self) -> (u64, u64) {
        match self {
            Self::Publish(publish) => (publish.batch.bytes().len() as u64, 1),
            Self::Step(step, _) => {
                let batches = step.batches.iter();
                let bytes = batches.map(|entry| entry.batch.bytes().len() as u64);
                (bytes.sum(), step.batches.len() as u64)
            }
            Self::CreateTopic(..)
            | Self::AlterTopic(..)
            | Self::DeleteTopic(..)
            | Self::InitProducer(..)
            | Self::CommitOffsets(..)
            | Self::CommitOwned(..)
            | Self::ResetOffsets(..)
            | Self::Fence(..)
            | Self::DeleteOffsets(..)
            | Self::DeleteGroup(..)
            | Self::Trim(_)
            | Self::Tidy(_)
            | Self::ExpireProducers(_) => (0, 0),
        }
    }

    /// About how many bytes of rows it adds to its commit group.
    pub(super) fn row_bytes(&self) -> usize {
        match self {
            Self::Publish(_) | Self::ExpireProducers(_) | Self::Tidy(_) => 0,
            Self::CreateTopic(name, ..) | Self::DeleteTopic(name, _) => name.len() + ROW_BYTES,
            Self::AlterTopic(change, _) => change.name.len() + ROW_BYTES,
            Self::InitProducer(name, _) => name.as_ref().map_or(0, String::len) + ROW_BYTES,
            Self::CommitOffsets(commit, _) => {
                let notes: usize = commit.offsets.iter().map(|(.., note)| note.len()).sum();
                notes + commit.offsets.len() * (commit.group.len() + ROW_BYTES)
            }
            Self::Step(step, _) => step.commit.as_ref().map_or(0, owned_bytes),
            Self::CommitOwned(commit, _) => owned_bytes(commit),
            // A fence's row each besides.
            Self::ResetOffsets(commit, _) => {
                let notes: usize = commit.offsets.iter().map(|(.., note)| note.len()).sum();
                notes + commit.offsets.len() * 2 * (commit.group.len() + ROW_BYTES)
            }
            Self::Fence(group, wanted, _) => wanted.len() * (group.len() + ROW_BYTES),
            // As many rows as the group has offsets: close the commit group behind it.
            Self::DeleteOffsets(..) | Self::DeleteGroup(..) => usize::MAX / 2,
            Self::Trim(trims) => trims.len() * ROW_BYTES,
        }
    }
}

fn owned_bytes(commit: &CommitOwned) -> usize {
    let notes: usize = commit.offsets.iter().map(|owned| owned.note.len()).sum();
    notes + commit.offsets.len() * (commit.group.len() + ROW_BYTES)
}
