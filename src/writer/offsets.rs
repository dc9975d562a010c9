//! Storing and forgetting committed offsets.

use std::collections::HashSet;

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::OFFSET_NOTE_BYTES_MAX;
use falcon_protocol::message::CommitOwned;
use falcon_protocol::{Offset, PartitionId};

use super::command::CommitOffsets;
use super::error::OffsetsError;
use super::state::{OffsetChange, State};
use crate::group::{Committed, Offsets};
use crate::store::Table;

/// Offsets that may be stored: everything was checked, nothing was changed.
#[derive(Debug)]
pub(super) struct CheckedOffsets {
    group: String,
    offsets: Vec<(PartitionId, Offset, String)>,
    /// How many are stored for the first time.
    new: u64,
}

impl State {
    pub(super) fn commit_offsets(
        &mut self,
        commit: CommitOffsets,
        durable: &Offsets,
        now_ms: i64,
    ) -> Result<(), OffsetsError> {
        let checked = self.check_offsets(commit, durable)?;
        self.put_offsets(checked, now_ms);
        Ok(())
    }

    pub(super) fn commit_owned(
        &mut self,
        commit: CommitOwned,
        durable: &Offsets,
        now_ms: i64,
    ) -> Result<(), OffsetsError> {
        let checked = self.check_owned(commit, durable)?;
        self.put_offsets(checked, now_ms);
        Ok(())
    }

    /// Offsets from the owners of their partitions. Lower ones than what is stored are left out, unless
    /// they may rewind.
    pub(super) fn check_owned(
        &self,
        commit: CommitOwned,
        durable: &Offsets,
    ) -> Result<CheckedOffsets, OffsetsError> {
        let group = commit.group;
        let (mut offsets, mut lower) = (Vec::with_capacity(commit.offsets.len()), Vec::new());
        for (nth, owned) in commit.offsets.into_iter().enumerate() {
            let (partition, given) = (owned.hold.partition, owned.hold.epoch);
            let fence = self.fences.of(&group, partition);
            if fence != Some(given) {
                return Err(OffsetsError::StaleOwner {
                    partition,
                    current: fence.unwrap_or_default(),
                    given,
                });
            }
            let stored = self.committed(&group, partition, durable);
            if !owned.may_rewind && stored.is_some_and(|stored| owned.offset < stored) {
                lower.push(nth);
            }
            offsets.push((partition, owned.offset, owned.note));
        }
        let mut checked = self.check_offsets(CommitOffsets { group, offsets }, durable)?;
        for nth in lower.into_iter().rev() {
            checked.offsets.swap_remove(nth);
        }
        Ok(checked)
    }

    /// Decides on a commit, and changes nothing.
    pub(super) fn check_offsets(
        &self,
        commit: CommitOffsets,
        durable: &Offsets,
    ) -> Result<CheckedOffsets, OffsetsError> {
        let CommitOffsets { group, offsets } = commit;
        if let Err(source) = check_group_name(&group) {
            return Err(OffsetsError::Name {
                name: group,
                source,
            });
        }
        let mut seen = HashSet::with_capacity(offsets.len());
        let mut new = 0;
        for (id, offset, note) in &offsets {
            if !seen.insert(*id) {
                return Err(OffsetsError::NamedTwice(*id));
            }
            self.check_offset(*id, *offset)?;
            if note.len() > OFFSET_NOTE_BYTES_MAX {
                return Err(OffsetsError::NoteTooLong(note.len()));
            }
            new += u64::from(self.committed(&group, *id, durable).is_none());
        }
        let limit = self.limits.committed_offsets_max;
        if new > 0 && self.offsets_count + new > limit {
            let what = "limits.committed_offsets_max";
            return Err(OffsetsError::Limit { what, limit });
        }
        Ok(CheckedOffsets {
            group,
            offsets,
            new,
        })
    }

    fn check_offset(&self, id: PartitionId, offset: Offset) -> Result<(), OffsetsError> {
        let topic = self.catalog.by_id(id.topic);
        let topic = topic.ok_or(OffsetsError::UnknownTopic(id.topic))?;
        if id.partition.0 >= topic.partitions {
            return Err(OffsetsError::UnknownPartition(id));
        }
        let bounds = self.partitions.get(&id).map(|p| (p.log_start, p.log_end));
        let (low, high) = bounds.unwrap_or((Offset::ZERO, Offset::ZERO));
        if offset > high {
            let partition = id.partition;
            return Err(OffsetsError::BeyondEnd {
                partition,
                offset,
                low,
                high,
            });
        }
        Ok(())
    }

    pub(super) fn put_offsets(&mut self, checked: CheckedOffsets, now_ms: i64) {
        let group = checked.group;
        self.offsets_count += checked.new;
        for (id, offset, note) in checked.offsets {
            let committed = Committed {
                offset,
                note,
                commit_time_ms: now_ms,
            };
            let key = Committed::row_key(&group, id);
            self.put_row(Table::Offsets, key, committed.encode_value());
            self.effects.note_offset(&group, id, Some(offset));
            self.effects
                .offsets
                .push(OffsetChange::Put(group.clone(), id, committed));
        }
    }

    /// A group's offset as the commands before this one leave it.
    pub(super) fn committed(
        &self,
        group: &str,
        id: PartitionId,
        durable: &Offsets,
    ) -> Option<Offset> {
        let pending = self.effects.pending_offsets.get(group);
        match pending.and_then(|offsets| offsets.get(&id)) {
            Some(pending) => *pending,
            None => Some(durable.group(group)?.get(&id)?.offset),
        }
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
        let mut ids = self.committed_ids(&group, durable);
        ids.retain(|id| topic.is_none_or(|topic| id.topic == topic));
        if ids.is_empty() {
            return Err(OffsetsError::UnknownGroup(group));
        }
        self.remove_offsets(&group, ids);
        Ok(())
    }

    /// The partitions a group has offsets in, as the commands before this one leave it.
    pub(super) fn committed_ids(&self, group: &str, durable: &Offsets) -> Vec<PartitionId> {
        let pending = self.effects.pending_offsets.get(group);
        let pending = pending.into_iter().flat_map(|offsets| offsets.keys());
        let stored = durable.group(group).into_iter();
        let stored = stored.flat_map(|offsets| offsets.keys());
        let mut ids: Vec<PartitionId> = stored.chain(pending).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.committed(group, *id, durable).is_some());
        ids
    }

    pub(super) fn remove_offsets(&mut self, group: &str, ids: Vec<PartitionId>) {
        for id in ids {
            self.offsets_count = self.offsets_count.saturating_sub(1);
            self.delete_row(Table::Offsets, Committed::row_key(group, id));
            self.effects.note_offset(group, id, None);
            self.effects
                .offsets
                .push(OffsetChange::Remove(group.to_owned(), id));
        }
    }
}
