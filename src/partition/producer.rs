//! What a partition remembers of an idempotent publisher.

use std::collections::VecDeque;

use falcon_protocol::{Offset, Producer};

use super::{Admission, AdmitError};

/// How many of a publisher's last batches are recognised when they come again. A client keeps at
/// most as many in flight per partition.
pub const PRODUCER_BATCHES_KEPT: usize = 8;

/// An appended batch of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMark {
    /// Sequence of its first record.
    pub base_sequence: u64,
    /// Records in it.
    pub record_count: u32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When it was appended, Unix milliseconds.
    pub append_time_ms: i64,
}

impl BatchMark {
    const fn next_sequence(&self) -> u64 {
        self.base_sequence.saturating_add(self.record_count as u64)
    }
}

/// A publisher's epoch and last batches, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProducerState {
    /// Newest epoch seen.
    pub epoch: u32,
    /// At most [`PRODUCER_BATCHES_KEPT`].
    pub batches: VecDeque<BatchMark>,
}

impl ProducerState {
    pub(super) fn admit(
        &self,
        producer: &Producer,
        record_count: u32,
        append: Admission,
    ) -> Result<Admission, AdmitError> {
        let (producer_id, found) = (producer.id, producer.base_sequence);
        if producer.epoch < self.epoch {
            let (current, found) = (self.epoch, producer.epoch);
            return Err(AdmitError::Fenced {
                producer_id,
                current,
                found,
            });
        }
        // A newer epoch starts its own sequence.
        let is_newer = producer.epoch > self.epoch;
        let expected = if is_newer { 0 } else { self.next_sequence() };
        if found == expected {
            return Ok(append);
        }
        let same = |mark: &&BatchMark| {
            !is_newer && mark.base_sequence == found && mark.record_count == record_count
        };
        match self.batches.iter().find(same) {
            Some(mark) => Ok(Admission::Duplicate(*mark)),
            None => Err(AdmitError::OutOfSequence {
                producer_id,
                expected,
                found,
            }),
        }
    }

    pub(super) fn note(&mut self, epoch: u32, mark: BatchMark) {
        if epoch > self.epoch {
            self.batches.clear();
        }
        self.epoch = self.epoch.max(epoch);
        if self.batches.len() == PRODUCER_BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(mark);
    }

    fn next_sequence(&self) -> u64 {
        self.batches.back().map_or(0, BatchMark::next_sequence)
    }

    /// When the publisher last appended, Unix milliseconds.
    pub fn last_append_ms(&self) -> i64 {
        self.batches
            .back()
            .map_or(i64::MIN, |mark| mark.append_time_ms)
    }
}
