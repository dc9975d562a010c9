//! Who of a group should read which partition.
//!
//! Owns the assignors: pure functions of subscribers and topics. Promises: every partition of a
//! topic that somebody subscribes to has one reader, nobody reads what it did not subscribe to,
//! and the same question has the same answer. Must not know: sessions, fences, time.

mod range;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use falcon_protocol::{Partition, PartitionId, TopicId};

/// How partitions are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Shares of subscribers with the same topics differ by at most one partition, and as little
    /// as possible moves.
    #[default]
    Sticky,
    /// Each topic is cut into whole runs of partitions, in the order of the subscribers. Topics with
    /// the same number of partitions and the same subscribers are cut alike, so records with the
    /// same key meet at one reader. Shares differ by at most one per topic.
    Range,
}

/// What is shared, and among whom. A subscriber's number is its place in `subscribers`.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The topics each one subscribes to.
    pub subscribers: Vec<BTreeSet<TopicId>>,
    /// Number of partitions by topic.
    pub topics: BTreeMap<TopicId, u32>,
    /// Who has a partition now; what is not possible any more is ignored.
    pub current: BTreeMap<PartitionId, usize>,
}

/// The subscriber's number for each partition that has one.
pub type Assignment = BTreeMap<PartitionId, usize>;

impl Assignor {
    /// Shares out.
    pub fn assign(self, question: &Question) -> Assignment {
        match self {
            Self::Sticky => sticky::assign(question),
            Self::Range => range::assign(question),
        }
    }
}

impl Question {
    /// Subscribers of each topic that has some, in their order.
    fn readers(&self) -> BTreeMap<TopicId, Vec<usize>> {
        let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (subscriber, topics) in self.subscribers.iter().enumerate() {
            for topic in topics {
                if self.topics.contains_key(topic) {
                    readers.entry(*topic).or_default().push(subscriber);
                }
            }
        }
        readers
    }

    /// Partitions of one topic.
    fn partitions(&self, topic: TopicId) -> impl Iterator<Item = PartitionId> + use<> {
        let count = self.topics.get(&topic).copied().unwrap_or(0);
        (0..count).map(move |number| PartitionId {
            topic,
            partition: Partition(number),
        })
    }
}
