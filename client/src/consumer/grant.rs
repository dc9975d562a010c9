//! Under which grant a record was handed out, and what a step asks of its consumer.

use std::sync::Arc;

use falcon_protocol::message::{CommitOwned, GroupHold};
use falcon_protocol::{MemberId, Offset, OwnerEpoch, PartitionId};

use super::shared::Shared;
use crate::error::CommitError;

/// A partition under the epoch of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: OwnerEpoch,
}

impl Hold {
    pub(crate) const fn of(hold: &GroupHold) -> Self {
        Self {
            partition: hold.partition,
            epoch: hold.epoch,
        }
    }

    pub(crate) const fn to_wire(self) -> GroupHold {
        GroupHold {
            partition: self.partition,
            epoch: self.epoch,
        }
    }
}

/// What a record was handed out under: its commits name the epoch of then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The consumer, which keeps this when it joins anew under another id.
    pub(crate) member: MemberId,
    pub(crate) hold: Hold,
    /// Which reading of the partition: a seek begins another.
    pub(crate) version: u64,
}

/// The consumer that a step belongs to.
#[derive(Clone)]
pub(crate) struct Owner(pub(super) Arc<Shared>);

impl Owner {
    pub(crate) fn member(&self) -> MemberId {
        self.0.identity
    }

    /// The commits of a step, as the broker wants them.
    pub(crate) fn step_commit(
        &self,
        marks: &[(Grant, Offset)],
    ) -> Result<CommitOwned, CommitError> {
        self.0.step_commit(marks)
    }

    /// A step with these commits happened.
    pub(crate) fn step_committed(&self, commit: &CommitOwned) {
        self.0.step_committed(commit);
    }

    /// A step with these commits was refused, because one of them is of an older grant.
    pub(crate) fn step_stale(&self, commit: &CommitOwned) -> CommitError {
        self.0.step_stale(commit)
    }

    /// A newer self took over.
    pub(crate) fn step_fenced(&self) {
        self.0.fail(crate::error::ConsumerError::Fenced);
    }
}

impl core::fmt::Debug for Owner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Owner").field(&self.0.group).finish()
    }
}
