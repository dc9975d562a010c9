//! The atomic step: record batches for any partitions and offset commits, all or nothing.
//!
//! ```text
//! Step request                              Step answer, for each batch in order
//!  u32  timeout_ms                           u64  base_offset
//!  u32  batches                              i64  append_time_ms
//!  u32  commit_bytes                         u32  record_count
//!  for each batch:                           u32  1: duplicate, else 0
//!   u32  topic id
//!   u32  partition
//!   u64  expected next offset, 2^64-1: any
//!   u32  batch_bytes
//!  CommitOwned, if commit_bytes is not 0
//!  the batches, back to back
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::CommitOwned;
use super::data::PublishAck;
use crate::ids::{Offset, PartitionId};
use crate::limits::{CONTROL_BYTES_MAX, STEP_BATCHES_MAX};
use crate::wire::{WireError, expect_end, read_u32, read_u64};

/// Bytes of a step before the list of its batches.
pub const STEP_HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 20;
/// Stands for "any"; no partition ever has this next offset.
const ANY: u64 = u64::MAX;

/// A step's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBatch {
    /// Where it shall go; no partition twice in a step.
    pub partition: PartitionId,
    /// What the partition's next offset must be; `None`: anything.
    pub expected: Option<Offset>,
    /// One record batch, not yet checked.
    pub batch: Bytes,
}

/// Batches and offsets that become durable and visible together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long the broker may keep it waiting for room in its queue, milliseconds; 0: the broker's own
    /// limit.
    pub timeout_ms: u32,
    /// What to append.
    pub batches: Vec<StepBatch>,
    /// Offsets to store.
    pub commit: Option<CommitOwned>,
}

impl Step {
    /// Lays it out.
    ///
    /// # Errors
    /// [`MessageError`](super::MessageError) when the offsets are larger than a control message may be.
    pub fn encode(&self) -> Result<Bytes, super::MessageError> {
        let commit = self.commit.as_ref().map(super::encode).transpose()?;
        let commit = commit.unwrap_or_default();
        let bytes: usize = self.batches.iter().map(|entry| entry.batch.len()).sum();
        let head = STEP_HEADER_BYTES + self.batches.len() * ENTRY_BYTES;
        let mut to = BytesMut::with_capacity(head + commit.len() + bytes);
        to.put_u32_le(self.timeout_ms);
        to.put_u32_le(count(self.batches.len()));
        to.put_u32_le(count(commit.len()));
        for entry in &self.batches {
            to.put_u32_le(entry.partition.topic.0);
            to.put_u32_le(entry.partition.partition.0);
            to.put_u64_le(entry.expected.map_or(ANY, never_any));
            to.put_u32_le(count(entry.batch.len()));
        }
        to.put_slice(&commit);
        for entry in &self.batches {
            to.put_slice(&entry.batch);
        }
        Ok(to.freeze())
    }

    /// Reads it; the batches are slices of `body`. Nothing is reserved that `body` has no bytes for.
    ///
    /// # Errors
    /// [`WireError`] when `body` has not this layout.
    pub fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let from = &mut body;
        let timeout_ms = read_u32(from, "timeout_ms")?;
        let batches = read_u32(from, "batches")? as usize;
        let commit_bytes = read_u32(from, "commit_bytes")? as usize;
        if batches > STEP_BATCHES_MAX {
            return Err(WireError::Invalid { field: "batches" });
        }
        if commit_bytes > CONTROL_BYTES_MAX {
            return Err(WireError::Invalid {
                field: "commit_bytes",
            });
        }
        if from.len() / ENTRY_BYTES < batches {
            return Err(WireError::Truncated { field: "batches" });
        }
        let mut entries = Vec::with_capacity(batches);
        for _ in 0..batches {
            let topic = read_u32(from, "topic id")?;
            let partition = read_u32(from, "partition")?;
            let expected = read_u64(from, "expected")?;
            let bytes = read_u32(from, "batch_bytes")? as usize;
            let expected = (expected != ANY).then_some(Offset(expected));
            entries.push((PartitionId::new(topic, partition), expected, bytes));
        }
        let commit = take(from, commit_bytes, "commit")?;
        let commit = (!commit.is_empty()).then(|| super::decode::<CommitOwned>(&commit));
        let commit = commit.transpose();
        let commit = commit.map_err(|_| WireError::Invalid { field: "commit" })?;
        let mut taken = Vec::with_capacity(entries.len());
        for (partition, expected, bytes) in entries {
            taken.push(StepBatch {
                partition,
                expected,
                batch: take(from, bytes, "batch")?,
            });
        }
        expect_end(from)?;
        Ok(Self {
            timeout_ms,
            batches: taken,
            commit,
        })
    }
}

/// Lays out the answer to a step.
pub fn encode_step_acks(acks: &[PublishAck]) -> Bytes {
    let mut to = BytesMut::with_capacity(acks.len() * PublishAck::BYTES);
    for ack in acks {
        ack.encode(&mut to);
    }
    to.freeze()
}

/// Reads the answer to a step.
///
/// # Errors
/// [`WireError`] when the bytes are no such list.
pub fn decode_step_acks(bytes: &[u8]) -> Result<Vec<PublishAck>, WireError> {
    bytes
        .chunks(PublishAck::BYTES)
        .map(PublishAck::decode)
        .collect()
}

fn take(from: &mut Bytes, bytes: usize, field: &'static str) -> Result<Bytes, WireError> {
    if from.len() < bytes {
        return Err(WireError::Truncated { field });
    }
    Ok(from.split_to(bytes))
}

/// A condition that cannot hold must not become none.
fn never_any(offset: Offset) -> u64 {
    offset.get().min(ANY - 1)
}

/// What does not fit is refused by the size of its frame.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
