//! Filling the state from what the store recovered.
//!
//! A row that cannot be read is logged and passed over: the journal's checksum held, so it was
//! written by a newer version or a defect, and the rest must stay usable.

use std::sync::Arc;

use falcon_protocol::wire::{WireError, expect_end, read_u32, read_u64};
use falcon_protocol::{BatchHeader, Offset, OwnerEpoch, PartitionId, ProducerId};
use tracing::error;

use super::state::{FENCE_FLOOR, NEXT_PRODUCER_ID, NEXT_TOPIC_ID, NamedPublisher, State};
use crate::catalog::Topic;
use crate::group::{Committed, Fences};
use crate::partition::{PartitionState, ProducerState};
use crate::store::{Replay, Table};

impl Replay for State {
    fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let applied = match table {
            Table::Topics => self.replay_topic(key, value),
            Table::Partitions => self.replay_partition(key, value),
            Table::Producers => self.replay_producer(key, value),
            Table::Publishers => self.replay_publisher(key, value),
            Table::Offsets => self.replay_offset(key, value),
            Table::Counters => self.replay_counter(key, value),
            Table::Fences => self.replay_fence(key, value),
        };
        if let Err(reason) = applied {
            error!(?table, key_bytes = key.len(), %reason, "a row of the journal cannot be read");
        }
    }

    fn batch(&mut self, partition: PartitionId, header: &BatchHeader) {
        // Batches of a topic deleted later are replayed too; the deletion takes them away again.
        self.partitions.entry(partition).or_default().append(header);
    }

    fn end(&mut self, partition: PartitionId, end: Offset) {
        if self.catalog.by_id(partition.topic).is_some() {
            let state = self.partitions.entry(partition).or_default();
            state.log_end = state.log_end.max(end);
        }
    }
}

impl State {
    fn replay_topic(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let catalog = Arc::make_mut(&mut self.catalog);
        if let Some(value) = value {
            let topic = Topic::decode(key, value)?;
            self.next_topic_id = self.next_topic_id.max(topic.id.0.saturating_add(1));
            catalog.put(topic);
        } else {
            let id = Topic::decode_key(key)?;
            catalog.remove(id);
            self.partitions.retain(|partition, _| partition.topic != id);
            self.recovered_offsets.remove_topic(id);
            self.fences.remove_topic(id);
        }
        Ok(())
    }

    fn replay_partition(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let id = PartitionState::decode_key(key)?;
        match value {
            Some(value) => self.partitions.entry(id).or_default().restore(value)?,
            None => drop(self.partitions.remove(&id)),
        }
        Ok(())
    }

    fn replay_producer(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let (id, producer) = ProducerState::decode_key(key)?;
        if let Some(value) = value {
            let known = ProducerState::decode_value(value)?;
            self.partitions
                .entry(id)
                .or_default()
                .restore_producer(producer, known);
        }
        Ok(())
    }

    fn replay_publisher(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let name = core::str::from_utf8(key).map_err(|_| WireError::Invalid { field: "name" })?;
        let Some(mut value) = value else {
            if let Some(id) = self.publishers.remove(name) {
                self.named.remove(&id);
            }
            return Ok(());
        };
        let id = ProducerId(read_u64(&mut value, "producer id")?);
        let epoch = read_u32(&mut value, "epoch")?;
        expect_end(&value)?;
        // The name was forgotten and granted anew: its older id must stay refused.
        if let Some(older) = self.publishers.insert(name.to_owned(), id) {
            self.named.remove(&older);
        }
        let used_ms = i64::MIN;
        self.named.insert(id, NamedPublisher { epoch, used_ms });
        Ok(())
    }

    fn replay_offset(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let (partition, group) = Committed::decode_key(key)?;
        match value {
            Some(value) => {
                let committed = Committed::decode_value(value)?;
                self.recovered_offsets.put(&group, partition, committed);
            }
            None => self.recovered_offsets.remove(&group, partition),
        }
        Ok(())
    }

    fn replay_fence(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let (partition, group) = Committed::decode_key(key)?;
        match value {
            Some(value) => {
                let epoch = Fences::decode_value(value)?;
                self.fences.put(&group, partition, epoch);
            }
            None => self.fences.remove(&group, partition),
        }
        Ok(())
    }

    fn replay_counter(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WireError> {
        let number = read_u64(&mut value.unwrap_or_default(), "counter")?;
        if key == NEXT_TOPIC_ID {
            let next =
                u32::try_from(number).map_err(|_| WireError::Invalid { field: "counter" })?;
            self.next_topic_id = self.next_topic_id.max(next);
        } else if key == NEXT_PRODUCER_ID {
            self.next_producer_id = self.next_producer_id.max(number);
        } else if key == FENCE_FLOOR {
            self.fence_floor = self.fence_floor.max(OwnerEpoch(number));
        }
        Ok(())
    }
}
