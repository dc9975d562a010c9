//! Fences: who may commit for a partition of a group.
//!
//! Epochs of a partition only grow, also over the deletion of its group: what was granted before never fits again.

use falcon_protocol::ids::check_group_name;
use falcon_protocol::{Offset, OwnerEpoch, PartitionId};

use super::command::CommitOffsets;
use super::error::OffsetsError;
use super::state::{FENCE_FLOOR, State, counter_row};
use crate::group::{Committed, Fences, Offsets};
use crate::store::Table;

/// How a partition stands after a fence was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that is in force: the one asked for if it was granted, else what a new one must be above.
    pub epoch: OwnerEpoch,
    /// Whether it was put in force.
    pub is_granted: bool,
    /// The group's offset that goes with it.
    pub committed: Option<Offset>,
}

impl State {
    /// Puts each epoch in force that is newer than its fence. One of a partition that is not there is
    /// not granted.
    pub(super) fn fence(
        &mut self,
        group: String,
        wanted: &[(PartitionId, OwnerEpoch)],
        durable: &Offsets,
    ) -> Result<Vec<Fenced>, OffsetsError> {
        if let Err(source) = check_group_name(&group) {
            return Err(OffsetsError::Name {
                name: group,
                source,
            });
        }
        self.check_fence_limit(&group, wanted)?;
        let answers = wanted.iter().map(|(partition, epoch)| {
            let (partition, epoch) = (*partition, *epoch);
            let current = self.fence_in_force(&group, partition);
            let is_granted = epoch > current && self.has_partition(partition);
            if is_granted {
                self.put_fence(&group, partition, epoch);
            }
            Fenced {
                partition,
                epoch: if is_granted { epoch } else { current },
                is_granted,
                committed: self.committed(&group, partition, durable),
            }
        });
        Ok(answers.collect())
    }

    /// Stores offsets of who is no member, and fences those who own the partitions: else their next
    /// commit would undo it. Answers the new fences.
    pub(super) fn reset_offsets(
        &mut self,
        commit: CommitOffsets,
        durable: &Offsets,
        now_ms: i64,
    ) -> Result<Vec<(PartitionId, OwnerEpoch)>, OffsetsError> {
        let group = commit.group.clone();
        let ids: Vec<PartitionId> = commit.offsets.iter().map(|(id, ..)| *id).collect();
        let checked = self.check_offsets(commit, durable)?;
        self.put_offsets(checked, now_ms);
        let mut raised = Vec::new();
        for id in ids {
            if self.fences.of(&group, id).is_some() {
                let epoch = self.fence_in_force(&group, id).0.saturating_add(1);
                self.put_fence(&group, id, OwnerEpoch(epoch));
                raised.push((id, OwnerEpoch(epoch)));
            }
        }
        Ok(raised)
    }

    /// Forgets offsets and fences of a group.
    pub(super) fn delete_group(
        &mut self,
        group: String,
        durable: &Offsets,
    ) -> Result<(), OffsetsError> {
        let ids = self.committed_ids(&group, durable);
        let fences = self.fences.remove_group(&group);
        if ids.is_empty() && fences.is_empty() {
            return Err(OffsetsError::UnknownGroup(group));
        }
        self.remove_offsets(&group, ids);
        for id in fences.keys() {
            self.delete_row(Table::Fences, Committed::row_key(&group, *id));
        }
        let highest = fences.into_values().max().unwrap_or_default();
        if highest > self.fence_floor {
            self.fence_floor = highest;
            let row = counter_row(FENCE_FLOOR, highest.0);
            self.group.rows.push(row);
        }
        Ok(())
    }

    /// What a new epoch must be above.
    fn fence_in_force(&self, group: &str, partition: PartitionId) -> OwnerEpoch {
        let fence = self.fences.of(group, partition).unwrap_or_default();
        fence.max(self.fence_floor)
    }

    fn has_partition(&self, id: PartitionId) -> bool {
        let topic = self.catalog.by_id(id.topic);
        topic.is_some_and(|topic| id.partition.0 < topic.partitions)
    }

    fn put_fence(&mut self, group: &str, partition: PartitionId, epoch: OwnerEpoch) {
        self.fences.put(group, partition, epoch);
        let key = Committed::row_key(group, partition);
        self.put_row(Table::Fences, key, Fences::encode_value(epoch));
    }

    fn check_fence_limit(
        &self,
        group: &str,
        wanted: &[(PartitionId, OwnerEpoch)],
    ) -> Result<(), OffsetsError> {
        let limit = self.limits.committed_offsets_max;
        let is_new = |id: PartitionId| self.fences.of(group, id).is_none();
        let new = wanted.iter().filter(|(id, _)| is_new(*id)).count();
        if new > 0 && self.fences.len() as u64 + new as u64 > limit {
            let what = "limits.committed_offsets_max";
            return Err(OffsetsError::Limit { what, limit });
        }
        Ok(())
    }
}
