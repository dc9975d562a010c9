//! Consumer groups: their committed offsets, and who of a group reads which partition.
//!
//! Owns which offsets are stored under which group name, and the fences of owners; topic patterns, the
//! assignors, the coordinator. Promises: an
//! offset stands for the next record to read; it changes only by a commit that is durable. Pure:
//! must not know the writer, the store, sockets.

pub mod assign;
pub mod coordinator;
mod fences;
pub mod pattern;
mod row;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use falcon_protocol::{Offset, PartitionId, TopicId};

pub use fences::Fences;

/// An offset stored under a group name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// Anything the consumer wants to remember with it.
    pub note: String,
    /// When it was stored, Unix milliseconds.
    pub commit_time_ms: i64,
}

/// All committed offsets, by group.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    groups: BTreeMap<String, BTreeMap<PartitionId, Committed>>,
    count: usize,
}

impl Offsets {
    /// Stores an offset.
    pub fn put(&mut self, group: &str, partition: PartitionId, committed: Committed) {
        let offsets = match self.groups.get_mut(group) {
            Some(offsets) => offsets,
            None => self.groups.entry(group.to_owned()).or_default(),
        };
        if offsets.insert(partition, committed).is_none() {
            self.count += 1;
        }
    }

    /// Forgets an offset.
    pub fn remove(&mut self, group: &str, partition: PartitionId) {
        let Some(offsets) = self.groups.get_mut(group) else {
            return;
        };
        if offsets.remove(&partition).is_some() {
            self.count -= 1;
        }
        if offsets.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Forgets every group's offsets in a topic.
    pub fn remove_topic(&mut self, topic: TopicId) {
        for offsets in self.groups.values_mut() {
            let before = offsets.len();
            offsets.retain(|partition, _| partition.topic != topic);
            self.count -= before - offsets.len();
        }
        self.groups.retain(|_, offsets| !offsets.is_empty());
    }

    /// A group's offsets, by partition; `None` when it has none.
    pub fn group(&self, group: &str) -> Option<&BTreeMap<PartitionId, Committed>> {
        self.groups.get(group)
    }

    /// Group names after `name`, in order.
    pub fn groups_after<'a>(&'a self, name: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = name.map_or(Unbounded, Excluded);
        self.groups
            .range::<str, _>((from, Unbounded))
            .map(|(group, _)| group.as_str())
    }

    /// Everything, by group and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, PartitionId, &Committed)> {
        self.groups.iter().flat_map(|(group, offsets)| {
            offsets
                .iter()
                .map(move |(partition, committed)| (group.as_str(), *partition, committed))
        })
    }

    /// Number of offsets stored.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is stored.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}
