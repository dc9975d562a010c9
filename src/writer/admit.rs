//! Publishing and producer ids.

use falcon_protocol::ids::check_publisher_name;
use falcon_protocol::message::ProducerGranted;
use falcon_protocol::{Batch, PartitionId, ProducerId, Stamp};

use super::command::Appended;
use super::error::{ProducerError, PublishError};
use super::state::{NEXT_PRODUCER_ID, NamedPublisher, State, counter_row, publisher_row};
use crate::partition::{Admission, AdmitError, PartitionState};
use crate::store::StampedBatch;

/// When places for publishers run out, those that were silent for this long are forgotten early.
const PRODUCER_IDLE_MS: i64 = 10 * 60 * 1000;

impl State {
    /// Decides on a batch and puts it into the group when it is new.
    pub(super) fn publish(
        &mut self,
        id: PartitionId,
        batch: Batch,
        now_ms: i64,
    ) -> Result<Appended, PublishError> {
        let topic = self
            .catalog
            .by_id(id.topic)
            .ok_or(PublishError::UnknownTopic(id.topic))?;
        if id.partition.0 >= topic.partitions {
            return Err(PublishError::UnknownPartition {
                topic: topic.name.clone(),
                partitions: topic.partitions,
                partition: id.partition,
            });
        }
        self.check_producer(&batch)?;
        self.check_producer_limit(id, batch.header().producer.id, now_ms)?;
        let partition = self.partitions.entry(id).or_default();
        let mut header = *batch.header();
        let record_count = header.record_count;
        match partition.admit(&header.producer, record_count)? {
            Admission::Duplicate(mark) => Ok(Appended {
                base_offset: mark.base_offset,
                append_time_ms: mark.append_time_ms,
                record_count,
                is_duplicate: true,
            }),
            Admission::Append { base_offset } => {
                let append_time_ms = partition.stamp_time(now_ms);
                let epoch = self.epoch;
                header.base_offset = base_offset;
                header.append_time_ms = append_time_ms;
                header.epoch = epoch;
                let known = partition.producer_count();
                partition.append(&header);
                self.producer_pairs += partition.producer_count() - known;
                let stamp = Stamp {
                    partition: id,
                    base_offset,
                    append_time_ms,
                    epoch,
                };
                self.group.batches.push(StampedBatch { stamp, batch });
                self.effects.partitions.push(id);
                Ok(Appended {
                    base_offset,
                    append_time_ms,
                    record_count,
                    is_duplicate: false,
                })
            }
        }
    }

    /// A publisher that is new to a partition needs a place; those idle for a while make room.
    fn check_producer_limit(
        &mut self,
        id: PartitionId,
        producer: ProducerId,
        now_ms: i64,
    ) -> Result<(), PublishError> {
        let limit = self.limits.producers_max;
        let is_full = self.producer_pairs as u64 >= limit;
        let is_known = |state: &PartitionState| state.knows(producer);
        if !is_full || !producer.is_idempotent() || self.partitions.get(&id).is_some_and(is_known) {
            return Ok(());
        }
        self.expire_producers(now_ms.saturating_sub(PRODUCER_IDLE_MS));
        if self.producer_pairs as u64 >= limit {
            return Err(PublishError::Limit {
                what: "limits.producers_max",
                limit,
            });
        }
        Ok(())
    }

    fn check_producer(&self, batch: &Batch) -> Result<(), AdmitError> {
        let producer = batch.header().producer;
        let producer_id = producer.id;
        if producer_id.0 >= self.next_producer_id {
            return Err(AdmitError::UnknownProducer { producer_id });
        }
        // An epoch that was never granted would fence the rightful publisher for ever.
        let granted = self.named_epochs.get(&producer_id).copied().unwrap_or(0);
        if producer.epoch > granted {
            return Err(AdmitError::UnknownProducer { producer_id });
        }
        match self.named_epochs.get(&producer_id) {
            Some(current) if producer.epoch < *current => {
                let (current, found) = (*current, producer.epoch);
                Err(AdmitError::Fenced {
                    producer_id,
                    current,
                    found,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Allocates a producer id, or raises the epoch of a named one.
    pub(super) fn init_producer(
        &mut self,
        name: Option<String>,
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
        let publisher = if let Some(known) = self.publishers.get(&name) {
            NamedPublisher {
                id: known.id,
                epoch: known.epoch.saturating_add(1),
            }
        } else {
            let limit = self.limits.producers_max;
            if self.publishers.len() as u64 >= limit {
                return Err(ProducerError::Limit {
                    what: "limits.producers_max",
                    limit,
                });
            }
            NamedPublisher {
                id: self.allocate_producer_id(),
                epoch: 0,
            }
        };
        self.group.rows.push(publisher_row(&name, publisher));
        self.publishers.insert(name, publisher);
        self.named_epochs.insert(publisher.id, publisher.epoch);
        Ok(ProducerGranted {
            producer_id: publisher.id,
            epoch: publisher.epoch,
        })
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
