//! A group as people see it.

use std::ops::Bound::{Excluded, Unbounded};

use falcon_protocol::{MemberId, PartitionId};

use super::Group;
use crate::group::coordinator::describe::{Figures, MemberView};
use crate::group::coordinator::moving::{Moving, Standing};

impl Group {
    pub(in crate::group::coordinator) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(in crate::group::coordinator) fn is_member(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Partitions that something is known of.
    pub(in crate::group::coordinator) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    pub(in crate::group::coordinator) fn owner(&self, partition: PartitionId) -> Option<MemberId> {
        self.partitions.get(&partition)?.owner()
    }

    pub(in crate::group::coordinator) fn members_after(
        &self,
        after: Option<MemberId>,
    ) -> impl Iterator<Item = MemberView<'_>> {
        let from = after.map_or(Unbounded, Excluded);
        self.members
            .range((from, Unbounded))
            .map(|(id, member)| MemberView {
                member: *id,
                wish: &member.wish,
                heard: member.heard(),
                partitions: member.owned.len(),
            })
    }

    pub(in crate::group::coordinator) fn figures(&self) -> Figures {
        let owned: usize = self.members.values().map(|member| member.owned.len()).sum();
        let wanted = self.target.len();
        Figures {
            members: self.members.len(),
            wanted,
            ownerless: wanted.saturating_sub(owned),
        }
    }

    pub(in crate::group::coordinator) fn standings(&self) -> Vec<(PartitionId, Standing)> {
        let rows = self.partitions.iter();
        rows.map(|row| self.standing(row)).collect()
    }

    pub(in crate::group::coordinator) fn standings_after(
        &self,
        after: Option<PartitionId>,
        max: usize,
    ) -> Vec<(PartitionId, Standing)> {
        let from = after.map_or(Unbounded, Excluded);
        let rows = self.partitions.range((from, Unbounded));
        let rows = rows.map(|row| self.standing(row));
        let is_wanted = |row: &(PartitionId, Standing)| row.1 != Standing::Unwanted;
        rows.filter(is_wanted).take(max).collect()
    }

    fn standing(&self, (id, moving): (&PartitionId, &Moving)) -> (PartitionId, Standing) {
        let target = self.target.get(id).copied();
        (*id, moving.standing(target, self.settle_until))
    }
}
