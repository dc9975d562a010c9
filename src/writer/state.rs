//! The writer's state: everything that commands are decided against.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{Offset, OwnerEpoch, PartitionId, ProducerId, TopicId};

use crate::catalog::{Catalog, Topic};
use crate::group::{Committed, Fences, Offsets};
use crate::partition::{PartitionState, ProducerState};
use crate::store::{CommitGroup, Row, Table};

/// Bounds on what the state may hold.
#[derive(Debug, Clone, Copy)]
pub struct StateLimits {
    /// Topics.
    pub topics_max: u64,
    /// Partitions of all topics.
    pub partitions_max: u64,
    /// Committed offsets of all groups, and as many fences.
    pub committed_offsets_max: u64,
    /// Named publishers, and remembered (publisher, partition) pairs.
    pub producers_max: u64,
}

/// The first epoch of a name. Publishers without a name have 0, so a batch tells by itself which of
/// the two it is from, also when the name is forgotten.
pub(super) const EPOCH_FIRST: u32 = 1;

/// What is known of a named publisher, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamedPublisher {
    /// Newest epoch.
    pub(super) epoch: u32,
    /// When it was granted an epoch or last appended, Unix milliseconds. Not written down: after a
    /// start everybody has the whole time again.
    pub(super) used_ms: i64,
}

/// A change of committed offsets that waits for its sync.
#[derive(Debug)]
pub(super) enum OffsetChange {
    Put(String, PartitionId, Committed),
    Remove(String, PartitionId),
    RemoveTopic(TopicId),
}

impl OffsetChange {
    /// The sync returned.
    pub(super) fn apply(self, offsets: &mut Offsets) {
        match self {
            Self::Put(group, id, committed) => offsets.put(&group, id, committed),
            Self::Remove(group, id) => offsets.remove(&group, id),
            Self::RemoveTopic(topic) => offsets.remove_topic(topic),
        }
    }
}

/// A change of a topic that waits for its sync.
#[derive(Debug)]
pub(super) enum TopicChange {
    Created(Topic),
    Altered(Topic),
    Deleted(Arc<Topic>),
}

/// What becomes visible after the sync of the group that is being put together.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) partitions: Vec<PartitionId>,
    pub(super) is_catalog_changed: bool,
    pub(super) offsets: Vec<OffsetChange>,
    /// What `offsets` makes of each offset it changes, by group.
    pub(super) pending_offsets: HashMap<String, HashMap<PartitionId, Option<Offset>>>,
    pub(super) trims: Vec<(PartitionId, Option<Offset>)>,
    /// What the log says of topics.
    pub(super) topics: Vec<TopicChange>,
}

impl Effects {
    /// Remembers what a change makes of an offset.
    pub(super) fn note_offset(&mut self, group: &str, id: PartitionId, offset: Option<Offset>) {
        let offsets = match self.pending_offsets.get_mut(group) {
            Some(offsets) => offsets,
            None => self.pending_offsets.entry(group.to_owned()).or_default(),
        };
        offsets.insert(id, offset);
    }
}

/// Catalog, partitions, publishers, fences; committed offsets live in the views, which hold the only copy.
#[derive(Debug)]
pub struct State {
    pub(super) limits: StateLimits,
    /// The owner's epoch, stamped on every batch.
    pub(super) epoch: u32,
    pub(super) catalog: Arc<Catalog>,
    pub(super) partitions: HashMap<PartitionId, PartitionState>,
    /// Ids by name.
    pub(super) publishers: HashMap<String, ProducerId>,
    /// INVARIANT: exactly the ids in `publishers`.
    pub(super) named: HashMap<ProducerId, NamedPublisher>,
    pub(super) next_producer_id: u64,
    /// Remembered (publisher, partition) pairs.
    pub(super) producer_pairs: usize,
    /// When full tables were last searched for those that make room, Unix milliseconds.
    pub(super) pairs_searched_ms: Option<i64>,
    pub(super) names_searched_ms: Option<i64>,
    pub(super) next_topic_id: u32,
    /// Offsets read at recovery, until the views take them.
    pub(super) recovered_offsets: Offsets,
    /// Offsets stored, counting those whose sync is pending.
    pub(super) offsets_count: u64,
    /// Who may commit, pending changes included.
    pub(super) fences: Fences,
    /// The highest epoch of a fence that was forgotten with its group: every new one is above it.
    pub(super) fence_floor: OwnerEpoch,
    pub(super) group: CommitGroup,
    pub(super) effects: Effects,
}

/// Keys in the table of single values.
pub(super) const NEXT_TOPIC_ID: &[u8] = b"next_topic_id";
pub(super) const NEXT_PRODUCER_ID: &[u8] = b"next_producer_id";
pub(super) const FENCE_FLOOR: &[u8] = b"fence_floor";

impl State {
    /// An empty state, to be filled by recovery.
    pub fn new(limits: StateLimits) -> Self {
        Self {
            limits,
            epoch: 0,
            catalog: Arc::default(),
            partitions: HashMap::new(),
            publishers: HashMap::new(),
            named: HashMap::new(),
            next_producer_id: 1,
            producer_pairs: 0,
            pairs_searched_ms: None,
            names_searched_ms: None,
            next_topic_id: 1,
            recovered_offsets: Offsets::default(),
            offsets_count: 0,
            fences: Fences::default(),
            fence_floor: OwnerEpoch::default(),
            group: CommitGroup::default(),
            effects: Effects::default(),
        }
    }

    /// Topics, as recovered.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Partitions that are known, of live topics or not.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &PartitionState)> {
        self.partitions.iter().map(|(id, state)| (*id, state))
    }

    /// A partition, when anything is known of it.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionState> {
        self.partitions.get(&id)
    }

    /// Committed offsets, as recovered.
    pub const fn recovered_offsets(&self) -> &Offsets {
        &self.recovered_offsets
    }

    /// Fences, as recovered: with them the coordinator begins.
    pub const fn fences(&self) -> &Fences {
        &self.fences
    }

    /// The highest epoch of a fence that was forgotten with its group.
    pub const fn fence_floor(&self) -> OwnerEpoch {
        self.fence_floor
    }

    /// Corrects how many bytes a partition keeps, so that retention by size lets nothing go for
    /// records that are lost.
    pub fn set_bytes(&mut self, id: PartitionId, bytes: u64) {
        if let Some(state) = self.partitions.get_mut(&id) {
            state.bytes = bytes;
        }
    }

    /// Bounds of every live partition, for the store to tell dead segments.
    pub fn live_partitions(&self) -> Vec<(PartitionId, Offset)> {
        let ids = self
            .catalog
            .topics()
            .flat_map(|topic| topic.partition_ids());
        let log_start = |id| {
            self.partitions
                .get(&id)
                .map_or(Offset::ZERO, |p| p.log_start)
        };
        ids.map(|id| (id, log_start(id))).collect()
    }

    /// All rows of all tables, as they are now.
    pub fn rows(&self, offsets: &Offsets) -> Vec<Row> {
        let mut rows = self.counter_rows();
        for topic in self.catalog.topics() {
            rows.push(put(
                Table::Topics,
                Topic::row_key(topic.id),
                topic.encode_value(),
            ));
        }
        for (id, state) in &self.partitions {
            rows.push(put(
                Table::Partitions,
                PartitionState::row_key(*id),
                state.encode_value(),
            ));
            for (producer, known) in state.producers() {
                let key = ProducerState::row_key(*id, producer);
                rows.push(put(Table::Producers, key, known.encode_value()));
            }
        }
        for (name, id) in &self.publishers {
            if let Some(known) = self.named.get(id) {
                rows.push(publisher_row(name, *id, known.epoch));
            }
        }
        for (group, id, committed) in offsets.iter() {
            let key = Committed::row_key(group, id);
            rows.push(put(Table::Offsets, key, committed.encode_value()));
        }
        for (group, id, epoch) in self.fences.iter() {
            let key = Committed::row_key(group, id);
            rows.push(put(Table::Fences, key, Fences::encode_value(epoch)));
        }
        rows
    }

    fn counter_rows(&self) -> Vec<Row> {
        vec![
            counter_row(NEXT_TOPIC_ID, u64::from(self.next_topic_id)),
            counter_row(NEXT_PRODUCER_ID, self.next_producer_id),
            counter_row(FENCE_FLOOR, self.fence_floor.0),
        ]
    }

    pub(super) fn put_row(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.group.rows.push(put(table, key, value));
    }

    pub(super) fn delete_row(&mut self, table: Table, key: Bytes) {
        self.group.rows.push(Row {
            table,
            key,
            value: None,
        });
    }

    /// Forgets publishers that have been silent since before a time. No row says so: the next
    /// snapshot is without them.
    pub(super) fn expire_producers(&mut self, before_ms: i64) {
        for state in self.partitions.values_mut() {
            state.expire_producers(before_ms);
        }
        self.count_producers();
        self.expire_names(before_ms);
    }

    /// INVARIANT: ids are granted once, and batches of a name have an epoch of at least `EPOCH_FIRST`;
    /// so those of a forgotten id are refused for good, whoever is granted its name.
    pub(super) fn expire_names(&mut self, before_ms: i64) {
        let is_kept =
            |known: &NamedPublisher| known.used_ms >= before_ms || known.epoch < EPOCH_FIRST;
        self.named.retain(|_, known| is_kept(known));
        self.publishers.retain(|_, id| self.named.contains_key(id));
        // A wave of names must not hold its place for ever.
        self.named.shrink_to(self.named.len() * 2);
        self.publishers.shrink_to(self.publishers.len() * 2);
    }

    /// Starts the time after which names are forgotten.
    pub(super) fn touch_names(&mut self, now_ms: i64) {
        for known in self.named.values_mut() {
            known.used_ms = now_ms;
        }
    }

    pub(super) fn count_producers(&mut self) {
        let counts = self.partitions.values().map(PartitionState::producer_count);
        self.producer_pairs = counts.sum();
    }
}

pub(super) fn counter_row(key: &'static [u8], value: u64) -> Row {
    let value = Bytes::copy_from_slice(&value.to_le_bytes());
    put(Table::Counters, Bytes::from_static(key), value)
}

/// Row of the table `Publishers`: key is the name; value u64 producer id, u32 epoch.
pub(super) fn publisher_row(name: &str, id: ProducerId, epoch: u32) -> Row {
    let mut value = Vec::with_capacity(12);
    value.extend_from_slice(&id.0.to_le_bytes());
    value.extend_from_slice(&epoch.to_le_bytes());
    put(
        Table::Publishers,
        Bytes::copy_from_slice(name.as_bytes()),
        Bytes::from(value),
    )
}

fn put(table: Table, key: Bytes, value: Bytes) -> Row {
    Row {
        table,
        key,
        value: Some(value),
    }
}
