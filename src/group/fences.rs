//! Who may commit: for each partition of a group the epoch of its last grant.

use std::collections::BTreeMap;

use falcon_protocol::{OwnerEpoch, PartitionId, TopicId};

/// All fences, by group. INVARIANT: no group without a fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fences {
    groups: BTreeMap<String, BTreeMap<PartitionId, OwnerEpoch>>,
    count: usize,
}

impl Fences {
    /// The fence of a partition, when it ever had an owner.
    pub fn of(&self, group: &str, partition: PartitionId) -> Option<OwnerEpoch> {
        self.groups.get(group)?.get(&partition).copied()
    }

    /// Puts a fence in force.
    pub fn put(&mut self, group: &str, partition: PartitionId, epoch: OwnerEpoch) {
        let fences = match self.groups.get_mut(group) {
            Some(fences) => fences,
            None => self.groups.entry(group.to_owned()).or_default(),
        };
        if fences.insert(partition, epoch).is_none() {
            self.count += 1;
        }
    }

    /// Forgets a fence.
    pub fn remove(&mut self, group: &str, partition: PartitionId) {
        let Some(fences) = self.groups.get_mut(group) else {
            return;
        };
        if fences.remove(&partition).is_some() {
            self.count -= 1;
        }
        if fences.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Forgets a group's fences; answers what they were.
    pub fn remove_group(&mut self, group: &str) -> BTreeMap<PartitionId, OwnerEpoch> {
        let fences = self.groups.remove(group).unwrap_or_default();
        self.count -= fences.len();
        fences
    }

    /// Forgets every group's fences in a topic.
    pub fn remove_topic(&mut self, topic: TopicId) {
        for fences in self.groups.values_mut() {
            let before = fences.len();
            fences.retain(|partition, _| partition.topic != topic);
            self.count -= before - fences.len();
        }
        self.groups.retain(|_, fences| !fences.is_empty());
    }

    /// Everything, by group and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, PartitionId, OwnerEpoch)> {
        self.groups.iter().flat_map(|(group, fences)| {
            fences
                .iter()
                .map(move |(partition, epoch)| (group.as_str(), *partition, *epoch))
        })
    }

    /// Number of fences.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}
