//! Creating, changing, deleting topics; trimming partitions.

use std::sync::Arc;

use falcon_protocol::TopicId;
use falcon_protocol::ids::check_topic_name;
use falcon_protocol::limits::TOPIC_PARTITIONS_MAX;
use falcon_protocol::message::{ConfigEntry, TopicConfig};

use super::command::{TopicAlteration, Trim};
use super::error::TopicError;
use super::state::{NEXT_TOPIC_ID, OffsetChange, State, TopicChange, counter_row};
use crate::catalog::Topic;
use crate::partition::PartitionState;
use crate::store::Table;

impl State {
    pub(super) fn create_topic(
        &mut self,
        name: String,
        partitions: u32,
        config: &[ConfigEntry],
        now_ms: i64,
    ) -> Result<TopicId, TopicError> {
        if let Err(source) = check_topic_name(&name) {
            return Err(TopicError::Name { name, source });
        }
        if self.catalog.by_name(&name).is_some() {
            return Err(TopicError::Exists(name));
        }
        if partitions == 0 || partitions > TOPIC_PARTITIONS_MAX {
            return Err(TopicError::Partitions(partitions));
        }
        let limit = self.limits.topics_max;
        if self.catalog.len() as u64 >= limit {
            return Err(TopicError::Limit {
                what: "limits.topics_max",
                limit,
            });
        }
        self.check_partition_limit(u64::from(partitions))?;
        let mut settings = TopicConfig::default();
        settings.apply(config).map_err(TopicError::Config)?;
        let id = TopicId(self.next_topic_id);
        self.next_topic_id += 1;
        self.group
            .rows
            .push(counter_row(NEXT_TOPIC_ID, u64::from(self.next_topic_id)));
        let topic = Topic {
            id,
            name,
            partitions,
            config: settings,
            created_ms: now_ms,
        };
        self.effects
            .topics
            .push(TopicChange::Created(topic.clone()));
        self.put_topic(topic);
        Ok(id)
    }

    pub(super) fn alter_topic(&mut self, change: TopicAlteration) -> Result<(), TopicError> {
        let found = self
            .catalog
            .by_name(&change.name)
            .map(|topic| Topic::clone(topic));
        let mut topic = found.ok_or(TopicError::Unknown(change.name))?;
        topic
            .config
            .apply(&change.config)
            .map_err(TopicError::Config)?;
        if let Some(want) = change.partitions {
            let have = topic.partitions;
            if want < have {
                return Err(TopicError::FewerPartitions { have, want });
            }
            if want > TOPIC_PARTITIONS_MAX {
                return Err(TopicError::Partitions(want));
            }
            self.check_partition_limit(u64::from(want - have))?;
            topic.partitions = want;
        }
        self.effects
            .topics
            .push(TopicChange::Altered(topic.clone()));
        self.put_topic(topic);
        Ok(())
    }

    pub(super) fn delete_topic(&mut self, name: String) -> Result<(), TopicError> {
        let Some(topic) = self.catalog.by_name(&name).cloned() else {
            return Err(TopicError::Unknown(name));
        };
        // One row: recovery takes the topic's partitions, committed offsets and fences away with it.
        self.delete_row(Table::Topics, Topic::row_key(topic.id));
        Arc::make_mut(&mut self.catalog).remove(topic.id);
        for id in topic.partition_ids() {
            self.partitions.remove(&id);
            self.effects.trims.push((id, None));
        }
        self.fences.remove_topic(topic.id);
        self.effects.is_catalog_changed = true;
        self.effects
            .topics
            .push(TopicChange::Deleted(Arc::clone(&topic)));
        self.effects
            .offsets
            .push(OffsetChange::RemoveTopic(topic.id));
        Ok(())
    }

    pub(super) fn trim(&mut self, trims: &[Trim]) {
        for trim in trims {
            let Some(partition) = self.partitions.get_mut(&trim.partition) else {
                continue;
            };
            if partition.log_start != trim.from {
                continue;
            }
            if partition.trim(trim.log_start, trim.bytes_freed) {
                self.effects
                    .trims
                    .push((trim.partition, Some(partition.log_start)));
                self.effects.partitions.push(trim.partition);
            }
        }
    }

    /// Rows that make trims durable. ORDER: after every batch of the group was admitted, because a
    /// row states all bounds of its partition and replaces what came before it in the group.
    pub(super) fn put_trimmed_rows(&mut self) {
        let trimmed: Vec<_> = self.effects.trims.iter().map(|(id, _)| *id).collect();
        for id in trimmed {
            if let Some(partition) = self.partitions.get(&id) {
                let (key, value) = (PartitionState::row_key(id), partition.encode_value());
                self.put_row(Table::Partitions, key, value);
            }
        }
    }

    fn put_topic(&mut self, topic: Topic) {
        self.put_row(
            Table::Topics,
            Topic::row_key(topic.id),
            topic.encode_value(),
        );
        Arc::make_mut(&mut self.catalog).put(topic);
        self.effects.is_catalog_changed = true;
    }

    fn check_partition_limit(&self, more: u64) -> Result<(), TopicError> {
        let limit = self.limits.partitions_max;
        if self.catalog.partition_count() + more > limit {
            return Err(TopicError::Limit {
                what: "limits.partitions_max",
                limit,
            });
        }
        Ok(())
    }
}
