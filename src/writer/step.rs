//! The atomic step: batches and offsets of one command, all or nothing.
//!
//! Everything is decided before anything is changed. A step is one command, so all of it goes into one
//! commit group, which is one unit at recovery.

use std::collections::HashSet;

use super::admit::duplicate;
use super::command::{Appended, Step, StepEntry};
use super::error::StepError;
use super::state::State;
use crate::group::Offsets;
use crate::partition::Admission;

impl State {
    /// Takes a step in, or refuses it and leaves everything as it is. The commit is checked against
    /// what was there before the step: its own records do not count.
    pub(super) fn step(
        &mut self,
        step: Step,
        durable: &Offsets,
        now_ms: i64,
    ) -> Result<Vec<Appended>, StepError> {
        let Step { batches, commit } = step;
        if let Some(known) = self.check_batches(&batches, now_ms)? {
            return Ok(known);
        }
        let commit = commit.map(|commit| self.check_owned(commit, durable));
        let commit = commit.transpose()?;
        // INVARIANT: nothing is refused from here on.
        let append = |entry: StepEntry| self.append(entry.partition, entry.batch, now_ms);
        let appended = batches.into_iter().map(append).collect();
        if let Some(checked) = commit {
            self.put_offsets(checked, now_ms);
        }
        Ok(appended)
    }

    /// Whether the batches may be appended; when all of them were before, the answers of then.
    fn check_batches(
        &mut self,
        batches: &[StepEntry],
        now_ms: i64,
    ) -> Result<Option<Vec<Appended>>, StepError> {
        let mut seen = HashSet::with_capacity(batches.len());
        let mut new_pairs = 0;
        for entry in batches {
            let partition = entry.partition;
            if !seen.insert(partition) {
                return Err(StepError::NamedTwice(partition));
            }
            let refused = |source| StepError::Batch { partition, source };
            self.check_place(partition).map_err(refused)?;
            let admitted = self.check_producer(&entry.batch);
            admitted.map_err(|error| refused(error.into()))?;
            let producer = entry.batch.header().producer.id;
            new_pairs += u64::from(self.is_new_pair(partition, producer));
        }
        // ORDER: before the admissions, which what is forgotten to make room may change.
        self.check_producer_limit(new_pairs, now_ms)?;
        let mut known = Vec::new();
        let mut known_at = None;
        let mut unexpected = None;
        for entry in batches {
            let partition = entry.partition;
            let admitted = self.admission(partition, &entry.batch);
            match admitted.map_err(|source| StepError::Batch { partition, source })? {
                Admission::Duplicate(mark) => {
                    known.push(duplicate(&mark));
                    known_at = known_at.or(Some(partition));
                }
                Admission::Append { base_offset: next } => {
                    let is_expected = entry.expected.is_none_or(|expected| expected == next);
                    if let (false, Some(expected)) = (is_expected, entry.expected) {
                        let mismatch = StepError::OffsetMismatch {
                            partition,
                            expected,
                            next,
                        };
                        unexpected.get_or_insert(mismatch);
                    }
                }
            }
        }
        match known_at {
            Some(_) if known.len() == batches.len() => Ok(Some(known)),
            Some(partition) => Err(StepError::PartlyKnown { partition }),
            None => unexpected.map_or(Ok(None), Err),
        }
    }
}
