//! Publishing and producer ids.

use std::cmp::Ordering;

use falcon_protocol::ids::check_publisher_name;
use falcon_protocol::message::ProducerGranted;
use falcon_protocol::{Batch, PartitionId, ProducerId, Stamp};

use super::command::Appended;
use super::error::{ProducerError, PublishError};
use super::state::{
    EPOCH_FIRST, NEXT_PRODUCER_ID, NamedPublisher, State, counter_row, publisher_row,
};
use crate::partition::{Admission, AdmitError, BatchMark, PartitionState};
use crate::store::StampedBatch;

/// When places for publishers run out, those that were silent for this long are forgotten early.
const PRODUCER_IDLE_MS: i64 = 10 * 60 * 1000;
/// Least time between two searches for such: a search goes through all of them, and each refused request
/// would cost one.
const SEARCH_MS: i64 = 1_000;

impl State {
    /// Decides on a batch and puts it into the group when it is new.
    pub(super) fn publish(
        &mut self,
        id: PartitionId,
        batch: Batch,
        now_ms: i64,
    ) -> Result<Appended, PublishError> {
        self.check_place(id)?;
        self.check_producer(&batch)?;
        let producer = batch.header().producer.id;
        self.check_producer_limit(u64::from(self.is_new_pair(id, producer)), now_ms)?;
        match self.admission(id, &batch)? {
            Admission::Duplicate(mark) => Ok(duplicate(&mark)),
            Admission::Append { .. } => Ok(self.append(id, batch, now_ms)),
        }
    }

    /// Refuses a partition that is not there.
    pub(super) fn check_place(&self, id: PartitionId) -> Result<(), PublishError> {
        let topic = self.catalog.by_id(id.topic);
        let topic = topic.ok_or(PublishError::UnknownTopic(id.topic))?;
        if id.partition.0 >= topic.partitions {
            return Err(PublishError::UnknownPartition {
                topic: topic.name.clone(),
                partitions: topic.partitions,
                partition: id.partition,
            });
        }
        Ok(())
    }

    /// What becomes of a batch. Changes nothing.
    pub(super) fn admission(
        &self,
        id: PartitionId,
        batch: &Batch,
    ) -> Result<Admission, PublishError> {
        let header = batch.header();
        let state = self.partitions.get(&id);
        let admitted = match state {
            Some(state) => state.admit(&header.producer, header.record_count),
            None => PartitionState::default().admit(&header.producer, header.record_count),
        };
        Ok(admitted?)
    }

    /// Puts a batch that was admitted as new into the group.
    pub(super) fn append(&mut self, id: PartitionId, batch: Batch, now_ms: i64) -> Appended {
        let partition = self.partitions.entry(id).or_default();
        let mut header = *batch.header();
        let (base_offset, record_count) = (partition.log_end, header.record_count);
        let append_time_ms = partition.stamp_time(now_ms);
        let epoch = self.epoch;
        header.base_offset = base_offset;
        header.append_time_ms = append_time_ms;
        header.epoch = epoch;
        let known = partition.producer_count();
        partition.append(&header);
        self.producer_pairs += partition.producer_count() - known;
        if let Some(named) = self.named.get_mut(&header.producer.id) {
            named.used_ms = named.used_ms.max(append_time_ms);
        }
        let stamp = Stamp {
            partition: id,
            base_offset,
            append_time_ms,
            epoch,
        };
        self.group.batches.push(StampedBatch { stamp, batch });
        self.effects.partitions.push(id);
        Appended {
            base_offset,
            append_time_ms,
            record_count,
            is_duplicate: false,
        }
    }

    /// Whether a publisher would need a place in a partition.
    pub(super) fn is_new_pair(&self, id: PartitionId, producer: ProducerId) -> bool {
        let is_known = |state: &PartitionState| state.knows(producer);
        producer.is_idempotent() && !self.partitions.get(&id).is_some_and(is_known)
    }

    /// A publisher that is new to a partition needs a place; those idle for a while make room.
    pub(super) fn check_producer_limit(
        &mut self,
        new: u64,
        now_ms: i64,
    ) -> Result<(), PublishError> {
        let limit = self.limits.producers_max;
        let is_over = |state: &Self| state.producer_pairs as u64 + new > limit;
        if new == 0 || !is_over(self) {
            return Ok(());
        }
        if is_due(&mut self.pairs_searched_ms, now_ms) {
            self.expire_producers(now_ms.saturating_sub(PRODUCER_IDLE_MS));
        }
        if is_over(self) {
            return Err(PublishError::Limit {
                what: "limits.producers_max",
                limit,
            });
        }
        Ok(())
    }

    pub(super) fn check_producer(&self, batch: &Batch) -> Result<(), AdmitError> {
        let producer = batch.header().producer;
        let producer_id = producer.id;
        if producer_id.0 >= self.next_producer_id {
            return Err(AdmitError::UnknownProducer { producer_id });
        }
        let Some(known) = self.named.get(&producer_id) else {
            return match producer.epoch {
                0 => Ok(()),
                EPOCH_FIRST.. => Err(AdmitError::Forgotten { producer_id }),
            };
        };
        let (current, found) = (known.epoch, producer.epoch);
        match found.cmp(&current) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(AdmitError::Fenced {
                producer_id,
                current,
                found,
            }),
            // An epoch that was never granted would fence the rightful publisher for ever.
            Ordering::Greater => Err(AdmitError::UnknownProducer { producer_id }),
        }
    }

    /// Allocates a producer id, or raises the epoch of a named one.
    pub(super) fn init_producer(
        &mut self,
        name: Option<String>,
        now_ms: i64,
    ) -> Result<ProducerGranted, ProducerError> {
        let Some(name) = name else {
            let producer_id = self.allocate_producer_id();
            return Ok(ProducerGranted {
                producer_id,
                epoch: 0,
            });
        };
        if let Err(source) = check_publisher_name(&name) {
            return Err(ProducerError::Name { name, source });
        }
        let (id, epoch) = if let Some((id, known)) = self.find_name(&name) {
            (id, known.epoch.saturating_add(1))
        } else {
            self.check_name_limit(now_ms)?;
            (self.allocate_producer_id(), EPOCH_FIRST)
        };
        self.group.rows.push(publisher_row(&name, id, epoch));
        self.publishers.insert(name, id);
        let used_ms = now_ms;
        self.named.insert(id, NamedPublisher { epoch, used_ms });
        Ok(ProducerGranted {
            producer_id: id,
            epoch,
        })
    }

    fn find_name(&self, name: &str) -> Option<(ProducerId, NamedPublisher)> {
        let id = self.publishers.get(name)?;
        Some((*id, *self.named.get(id)?))
    }

    /// A new name needs a place; those idle for a while make room.
    fn check_name_limit(&mut self, now_ms: i64) -> Result<(), ProducerError> {
        let limit = self.limits.producers_max;
        let is_full = self.publishers.len() as u64 >= limit;
        if is_full && is_due(&mut self.names_searched_ms, now_ms) {
            self.expire_names(now_ms.saturating_sub(PRODUCER_IDLE_MS));
        }
        if self.publishers.len() as u64 >= limit {
            return Err(ProducerError::Limit {
                what: "limits.producers_max",
                limit,
            });
        }
        Ok(())
    }

    fn allocate_producer_id(&mut self) -> ProducerId {
        let id = ProducerId(self.next_producer_id);
        self.next_producer_id += 1;
        self.group
            .rows
            .push(counter_row(NEXT_PRODUCER_ID, self.next_producer_id));
        id
    }
}

/// The answer to a batch that was appended before.
pub(super) const fn duplicate(mark: &BatchMark) -> Appended {
    Appended {
        base_offset: mark.base_offset,
        append_time_ms: mark.append_time_ms,
        record_count: mark.record_count,
        is_duplicate: true,
    }
}

/// Whether it is time to search again; then the time is noted.
const fn is_due(searched_ms: &mut Option<i64>, now_ms: i64) -> bool {
    if let Some(searched_ms) = *searched_ms
        && now_ms.abs_diff(searched_ms) < SEARCH_MS.unsigned_abs()
    {
        return false;
    }
    *searched_ms = Some(now_ms);
    true
}
