//! Rules of one partition.
//!
//! Owns offset assignment, producer sequences and fencing, trimming. Promises: offsets are dense; a
//! batch sent again gets its first offsets; a batch out of order or of an older publisher is refused.
//! Pure: must not know the store, threads, clocks or the wire.

mod producer;
mod row;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use falcon_protocol::{BatchHeader, Offset, Producer, ProducerId};
use thiserror::Error;

pub use producer::{BatchMark, PRODUCER_BATCHES_KEPT, ProducerState};

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is new and gets this base offset.
    Append {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// It was appended before.
    Duplicate(BatchMark),
}

/// Why a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AdmitError {
    /// Batches of this publisher are missing before it, or it is too old to be recognised.
    #[error("sequence {found} of producer {producer_id} came where {expected} was expected")]
    OutOfSequence {
        /// The publisher.
        producer_id: ProducerId,
        /// Next sequence.
        expected: u64,
        /// Sequence of the batch.
        found: u64,
    },
    /// A newer publisher of the same id is known.
    #[error("producer {producer_id} has epoch {current}, the batch has {found}")]
    Fenced {
        /// The publisher.
        producer_id: ProducerId,
        /// Newest epoch.
        current: u32,
        /// Epoch of the batch.
        found: u32,
    },
    /// The publisher had a name that was forgotten. Another one may have the name by now.
    #[error("the name of producer {producer_id} was forgotten after a long silence")]
    Forgotten {
        /// The publisher.
        producer_id: ProducerId,
    },
    /// The publisher continues a sequence that is not known (any more).
    #[error("producer {producer_id} is not known in this partition")]
    UnknownProducer {
        /// The publisher.
        producer_id: ProducerId,
    },
}

/// Bounds and producers of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionState {
    /// First offset kept.
    pub log_start: Offset,
    /// Next offset to assign.
    pub log_end: Offset,
    /// Bytes of the batches kept.
    pub bytes: u64,
    /// Append time of the newest batch, Unix milliseconds.
    pub append_time_ms: i64,
    producers: HashMap<ProducerId, ProducerState>,
}

impl PartitionState {
    /// Decides what becomes of a batch. Changes nothing: see [`append`](Self::append).
    pub fn admit(&self, producer: &Producer, record_count: u32) -> Result<Admission, AdmitError> {
        let append = Admission::Append {
            base_offset: self.log_end,
        };
        if !producer.id.is_idempotent() {
            return Ok(append);
        }
        match self.producers.get(&producer.id) {
            Some(known) => known.admit(producer, record_count, append),
            None if producer.base_sequence == 0 => Ok(append),
            None => Err(AdmitError::UnknownProducer {
                producer_id: producer.id,
            }),
        }
    }

    /// Takes note of an appended batch. A base offset beyond the end is a hole left by damage.
    pub fn append(&mut self, header: &BatchHeader) {
        if header.base_offset < self.log_end {
            return;
        }
        self.log_end = header.end_offset();
        self.bytes = self.bytes.saturating_add(u64::from(header.batch_bytes));
        self.append_time_ms = self.append_time_ms.max(header.append_time_ms);
        if header.producer.id.is_idempotent() {
            let mark = BatchMark {
                base_sequence: header.producer.base_sequence,
                record_count: header.record_count,
                base_offset: header.base_offset,
                append_time_ms: header.append_time_ms,
            };
            let epoch = header.producer.epoch;
            self.producers
                .entry(header.producer.id)
                .or_default()
                .note(epoch, mark);
        }
    }

    /// The append time for a batch that arrives at `now_ms`: never before its predecessor's.
    pub fn stamp_time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.append_time_ms)
    }

    /// Lets go of records before `log_start`, which are `bytes_freed` bytes.
    pub fn trim(&mut self, log_start: Offset, bytes_freed: u64) -> bool {
        let log_start = log_start.min(self.log_end);
        if log_start <= self.log_start {
            return false;
        }
        self.log_start = log_start;
        self.bytes = self.bytes.saturating_sub(bytes_freed);
        true
    }

    /// Whether a publisher is remembered.
    pub fn knows(&self, producer: ProducerId) -> bool {
        self.producers.contains_key(&producer)
    }

    /// Number of publishers remembered.
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Forgets publishers that have appended nothing since `before_ms`.
    pub fn expire_producers(&mut self, before_ms: i64) {
        self.producers
            .retain(|_, state| state.last_append_ms() >= before_ms);
    }

    /// The publishers remembered.
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.producers.iter().map(|(id, state)| (*id, state))
    }

    /// Puts a remembered publisher back, at recovery.
    pub fn restore_producer(&mut self, id: ProducerId, state: ProducerState) {
        self.producers.insert(id, state);
    }
}
