//! Storing and forgetting committed offsets.

use std::collections::HashSet;

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::OFFSET_NOTE_BYTES_MAX;
use falcon_protocol::{Offset, PartitionId};

use super::command::CommitOffsets;
use super::error::OffsetsError;
use super::state::{OffsetChange, State};
use crate::group::{Committed, Offsets};
use crate::store::Table;

impl State {
    pub(super) fn commit_offsets(
        &mut self,
        commit: CommitOffsets,
        durable: &Offsets,
        now_ms: i64,
    ) -> Result<(), OffsetsError> {
        let group = commit.group;
        if let Err(source) = check_group_name(&group) {
            return Err(OffsetsError::Name {
                name: group,
                source,
            });
        }
        let mut seen = HashSet::with_capacity(commit.offsets.len());
        for (id, offset, note) in &commit.offsets {
            if !seen.insert(*id) {
                return Err(OffsetsError::NamedTwice(*id));
            }
            let topic = self.catalog.by_id(id.topic);
            let topic = topic.ok_or(OffsetsError::UnknownTopic(id.topic))?;
            if id.partition.0 >= topic.partitions {
                return Err(OffsetsError::UnknownPartition(*id));
            }
            let bounds = self.partitions.get(id).map(|p| (p.log_start, p.log_end));
            let (low, high) = bounds.unwrap_or((Offset::ZERO, Offset::ZERO));
            if *offset > high {
                let (partition, offset) = (id.partition, *offset);
                return Err(OffsetsError::BeyondEnd {
                    partition,
                    offset,
                    low,
                    high,
                });
            }
            if note.len() > OFFSET_NOTE_BYTES_MAX {
                return Err(OffsetsError::NoteTooLong(note.len()));
            }
        }
        let stored = durable.group(&group);
        let pending = &self.effects.new_offsets;
        let is_new = |id: &PartitionId| {
            stored.is_none_or(|offsets| !offsets.contains_key(id))
                && !pending.contains(&(group.clone(), *id))
        };
        let new: Vec<PartitionId> = seen.into_iter().filter(is_new).collect();
        let limit = self.limits.committed_offsets_max;
        if !new.is_empty() && self.offsets_count + new.len() as u64 > limit {
            let what = "limits.committed_offsets_max";
            return Err(OffsetsError::Limit { what, limit });
        }
        self.offsets_count += new.len() as u64;
        let keys = new.into_iter().map(|id| (group.clone(), id));
        self.effects.new_offsets.extend(keys);
        for (id, offset, note) in commit.offsets {
            let committed = Committed {
                offset,
                note,
                commit_time_ms: now_ms,
            };
            let key = Committed::row_key(&group, id);
            self.put_row(Table::Offsets, key, committed.encode_value());
            self.effects
                .offsets
                .push(OffsetChange::Put(group.clone(), id, committed));
        }
        Ok(())
    }

    pub(super) fn delete_offsets(
        &mut self,
        group: String,
        topic: Option<String>,
        durable: &Offsets,
    ) -> Result<(), OffsetsError> {
        let topic = match topic {
            None => None,
            Some(name) => match self.catalog.by_name(&name) {
                Some(topic) => Some(topic.id),
                None => return Err(OffsetsError::UnknownTopicName(name)),
            },
        };
        let pending = self
            .effects
            .offsets
            .iter()
            .filter_map(|change| match change {
                OffsetChange::Put(put_group, id, _) if *put_group == group => Some(*id),
                OffsetChange::Put(..) | OffsetChange::Remove(..) | OffsetChange::RemoveTopic(_) => {
                    None
                }
            });
        let stored = durable
            .group(&group)
            .into_iter()
            .flat_map(|offsets| offsets.keys().copied());
        let mut ids: Vec<_> = stored.chain(pending).collect();
        ids.retain(|id| topic.is_none_or(|topic| id.topic == topic));
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Err(OffsetsError::UnknownGroup(group));
        }
        for id in ids {
            self.delete_row(Table::Offsets, Committed::row_key(&group, id));
            self.effects
                .offsets
                .push(OffsetChange::Remove(group.clone(), id));
        }
        Ok(())
    }
}
