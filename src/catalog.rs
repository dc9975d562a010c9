//! Topics and partitions.
//!
//! Owns the durable list of topics: names, numbers, partition counts, settings. Promises: a topic's
//! number is never used again; names follow the protocol's rules. Immutable once built: a change
//! makes a new catalog, so readers hold a consistent one without a lock. Must not know: the writer,
//! the store, sockets.

mod row;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use falcon_protocol::message::TopicConfig;
use falcon_protocol::{Partition, PartitionId, TopicId};

/// A named log group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its number, for ever.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Settings.
    pub config: TopicConfig,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
}

impl Topic {
    /// Its partitions, by number.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.id;
        (0..self.partitions).map(move |p| PartitionId {
            topic,
            partition: Partition(p),
        })
    }
}

/// All topics.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl Catalog {
    /// The topic of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic of this number.
    pub fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// Topics in order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Topics whose names come after `name`, in order.
    pub fn topics_after<'a>(
        &'a self,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Topic>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = name.map_or(Unbounded, Excluded);
        self.by_name
            .range::<str, _>((from, Unbounded))
            .map(|(_, topic)| topic)
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> u64 {
        self.by_name
            .values()
            .map(|topic| u64::from(topic.partitions))
            .sum()
    }

    /// Puts a topic in place of the one with the same number.
    pub fn put(&mut self, topic: Topic) -> Arc<Topic> {
        self.remove(topic.id);
        let topic = Arc::new(topic);
        self.by_name.insert(topic.name.clone(), Arc::clone(&topic));
        self.by_id.insert(topic.id, Arc::clone(&topic));
        topic
    }

    /// Takes a topic out.
    pub fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }
}
