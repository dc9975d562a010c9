//! What publishers and groups were told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use super::*;

/// An acknowledged record.
#[derive(Debug, Clone)]
pub(super) struct Acked {
    pub(super) id: PartitionId,
    pub(super) offset: u64,
    pub(super) value: Vec<u8>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Told {
    pub(super) topic: Option<TopicId>,
    pub(super) acked: Vec<Acked>,
    /// Offsets that were committed, by partition.
    pub(super) committed: BTreeMap<PartitionId, u64>,
    /// Where partitions ended for readers of a later life.
    pub(super) ends: BTreeMap<PartitionId, u64>,
    pub(super) next_value: u64,
    unknown: u64,
    acks_after_failure: u64,
    /// Failures of the writer's operations in orderly stops.
    excused: usize,
}

/// Shared with the answers.
#[derive(Debug)]
pub(super) struct Ledger {
    disk: SimDisk,
    pub(super) overlap_bytes: u64,
    told: Mutex<Told>,
}

impl Ledger {
    pub(super) fn new(disk: &SimDisk, overlap_bytes: u64) -> Self {
        Self {
            disk: disk.clone(),
            overlap_bytes,
            told: Mutex::default(),
        }
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("not poisoned")
    }

    /// The same for another disk.
    pub(super) fn copy(&self) -> Self {
        Self {
            disk: SimDisk::new(),
            overlap_bytes: self.overlap_bytes,
            told: Mutex::new(Told {
                excused: 0,
                ..self.told().clone()
            }),
        }
    }

    /// Called on the writer's thread with each success.
    fn note_ack(&self) {
        let has_failed = self.writers_failures() > 0;
        self.told().acks_after_failure += u64::from(has_failed);
    }

    /// Operations of the writer that failed and were not in an orderly stop.
    pub(super) fn writers_failures(&self) -> usize {
        let failures = self.disk.failures().into_iter();
        let by_writer = failures.filter(is_writers);
        by_writer.count() - self.told().excused
    }

    pub(super) fn excuse_failures(&self) {
        let more = self.writers_failures();
        self.told().excused += more;
    }

    fn note_failure(&self, failure: JournalError) {
        if failure == JournalError::OutcomeUnknown {
            self.told().unknown += 1;
        }
    }

    pub(super) fn note_publish(
        &self,
        id: PartitionId,
        value: &[u8],
        result: &Result<Appended, PublishError>,
    ) {
        match result {
            Ok(appended) => {
                self.note_ack();
                self.told().acked.push(Acked {
                    id,
                    offset: appended.base_offset.0,
                    value: value.to_vec(),
                });
            }
            Err(PublishError::Journal(failure)) => self.note_failure(*failure),
            Err(error) => panic!("{id}: {error}"),
        }
    }

    pub(super) fn note_commit(
        &self,
        id: PartitionId,
        offset: u64,
        result: &Result<(), OffsetsError>,
    ) {
        match result {
            Ok(()) => {
                self.note_ack();
                self.told().committed.insert(id, offset);
            }
            Err(OffsetsError::Journal(failure)) => self.note_failure(*failure),
            Err(error) => panic!("{id}: {error}"),
        }
    }

    pub(super) fn acked(&self) -> u64 {
        self.told().acked.len() as u64
    }

    pub(super) fn unknown(&self) -> u64 {
        self.told().unknown
    }

    pub(super) fn acks_after_failure(&self) -> u64 {
        self.told().acks_after_failure
    }
}
