//! What people are told of groups and members.

use falcon_protocol::{MemberId, PartitionId};

use super::membership::Group;
use super::{Coordinator, Event, Standing, Wish};

/// A member, as people see it.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    /// Its id.
    pub member: MemberId,
    /// What it wants.
    pub wish: &'a Wish,
    /// When it was heard last.
    pub heard: u64,
    /// Partitions it was granted.
    pub partitions: usize,
}

/// A group in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Members.
    pub members: usize,
    /// Partitions that a member wants.
    pub wanted: usize,
    /// Those of them that nobody has.
    pub ownerless: usize,
}

impl Coordinator {
    /// Whether the group has members, offsets that were granted, or a fence.
    pub fn knows(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Its generation; 0 when it is not known.
    pub fn generation(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(0, Group::generation)
    }

    /// Its members behind one, in order of their ids.
    pub fn members_after(
        &self,
        group: &str,
        after: Option<MemberId>,
    ) -> impl Iterator<Item = MemberView<'_>> {
        let group = self.groups.get(group).into_iter();
        group.flat_map(move |group| group.members_after(after))
    }

    /// Whether somebody is a member.
    pub fn is_member(&self, group: &str, member: MemberId) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.is_member(member))
    }

    /// Who was granted a partition and has not given it up.
    pub fn owner(&self, group: &str, partition: PartitionId) -> Option<MemberId> {
        self.groups.get(group)?.owner(partition)
    }

    /// A group in numbers, in as many steps as it has members.
    pub fn figures(&self, group: &str) -> Figures {
        let group = self.groups.get(group);
        group.map(Group::figures).unwrap_or_default()
    }

    /// How partitions of a group behind one stand that a member wants or has, in order; `max` at most.
    pub fn standings_after(
        &self,
        group: &str,
        after: Option<PartitionId>,
        max: usize,
    ) -> Vec<(PartitionId, Standing)> {
        let group = self.groups.get(group);
        let rows = group.map(|group| group.standings_after(after, max));
        rows.unwrap_or_default()
    }

    /// Takes what has happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
