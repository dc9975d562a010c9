//! A producer id that has one step in flight at a time, and its next sequences.
//!
//! INVARIANT: a sequence is used up by a step that happened, and by nothing else. When that is not
//! known, the identity is given up: a late step could take the sequence of the next.

use std::collections::HashMap;

use bytes::Bytes;
use falcon_protocol::batch::PushError;
use falcon_protocol::{BatchBuilder, Codec, PartitionId, Producer};

use super::plan::Plan;
use crate::error::StepError;
use crate::identity::Identity;

/// Partitions whose sequences a lane remembers; beyond that it goes on under a new identity.
const PARTITIONS_MAX: usize = 10_000;

/// Where steps are sent one behind the other.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) number: usize,
    pub(super) identity: Option<Identity>,
    next: HashMap<PartitionId, u64>,
}

impl Lane {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            identity: None,
            next: HashMap::new(),
        }
    }

    /// Goes on under this identity, from the first sequence.
    pub(super) fn adopt(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.next.clear();
    }

    /// Its identity is not used again.
    pub(super) fn retire(&mut self) {
        self.identity = None;
        self.next.clear();
    }

    /// The batches of a plan, with this lane's next sequences.
    pub(super) fn lay_out(
        &self,
        plan: &Plan,
        batch_bytes_max: usize,
        now_ms: i64,
    ) -> Result<Vec<Bytes>, StepError> {
        let identity = self.identity.unwrap_or(Identity::NONE);
        let mut batches = Vec::with_capacity(plan.batches.len());
        for planned in &plan.batches {
            let mut builder = BatchBuilder::new(Codec::None, batch_bytes_max);
            for record in &planned.records {
                builder.push(record, now_ms).map_err(|error| match error {
                    PushError::Full => StepError::TooLarge {
                        bytes: batch_bytes_max.saturating_add(1),
                        max: batch_bytes_max,
                    },
                    other @ (PushError::RecordTooLarge { .. }
                    | PushError::TooManyHeaders { .. }
                    | PushError::HeaderNameTooLong { .. }) => StepError::InvalidRecord(other),
                })?;
            }
            let producer = Producer {
                id: identity.id,
                epoch: identity.epoch,
                base_sequence: self.next.get(&planned.partition).copied().unwrap_or(0),
            };
            batches.extend(builder.build(producer));
        }
        Ok(batches)
    }

    /// A step happened: its sequences are used up.
    pub(super) fn happened(&mut self, plan: &Plan) {
        for planned in &plan.batches {
            *self.next.entry(planned.partition).or_insert(0) += planned.records.len() as u64;
        }
        if self.next.len() > PARTITIONS_MAX {
            self.retire();
        }
    }
}
