//! From a delivery to records: one batch at a time, verified before a record is believed.

use bytes::Bytes;
use falcon_protocol::batch::{CheckedRecords, RecordView, Records};
use falcon_protocol::ids::PartitionId;
use falcon_protocol::message::Delivery;
use falcon_protocol::{Batch, BatchError, Offset, Partition, TopicId};

use crate::error::SubscribeError;

/// A delivery that is being handed out.
pub(super) struct Current {
    pub(super) incarnation: u64,
    pub(super) partition: Partition,
    pub(super) high_watermark: Offset,
    /// Batches not yet looked at.
    rest: Bytes,
    records: Option<Records>,
    /// Bytes of the batch being handed out.
    batch_bytes: u64,
    /// The next record to hand out.
    pub(super) next: Offset,
    end: Offset,
    /// Broker's clock at the append of the open batch.
    pub(super) append_time_ms: i64,
}

/// What a batch is to the position reached.
pub(super) enum NextBatch {
    /// It begins at or before the position and ends behind it; this is its end.
    Opened(Offset),
    /// It ends before the position, and was skipped.
    Old,
    /// There is no further batch.
    None,
}

impl Current {
    pub(super) fn new(incarnation: u64, delivery: Delivery) -> Self {
        Self {
            incarnation,
            partition: delivery.partition,
            high_watermark: delivery.high_watermark,
            rest: delivery.batches,
            records: None,
            batch_bytes: 0,
            next: Offset::ZERO,
            end: Offset::ZERO,
            append_time_ms: 0,
        }
    }

    /// Whether a batch of this partition is being handed out.
    pub(super) fn is_open_in(&self, partition: Partition) -> bool {
        self.records.is_some() && self.partition == partition
    }

    /// Bytes that count as consumed since the last call: the batch before this, or one skipped.
    pub(super) fn take_consumed(&mut self) -> u64 {
        std::mem::take(&mut self.batch_bytes)
    }

    /// Bytes of everything left.
    pub(super) fn drop_rest(&mut self) -> u64 {
        let rest = std::mem::take(&mut self.rest).len() as u64;
        self.records = None;
        rest + self.take_consumed()
    }

    /// Opens the next batch: checks body, stamp and place, and that it continues at `position`.
    pub(super) fn open_next(
        &mut self,
        topic: TopicId,
        position: Offset,
    ) -> Result<NextBatch, SubscribeError> {
        if self.rest.is_empty() {
            return Ok(NextBatch::None);
        }
        let partition = self.partition;
        let corrupt = |damage: BatchError| SubscribeError::Corrupt {
            partition,
            position,
            damage,
        };
        let batch = Batch::split_from(&mut self.rest).map_err(corrupt)?;
        self.batch_bytes = batch.bytes().len() as u64;
        batch
            .verify_in(PartitionId { topic, partition })
            .map_err(corrupt)?;
        let header = batch.header();
        if header.end_offset() <= position {
            return Ok(NextBatch::Old);
        }
        if header.base_offset > position {
            return Err(SubscribeError::Gap {
                partition,
                missing: position..header.base_offset,
            });
        }
        self.records = Some(batch.records().map_err(corrupt)?);
        self.append_time_ms = header.append_time_ms;
        self.next = position;
        self.end = header.end_offset();
        Ok(NextBatch::Opened(self.end))
    }

    /// The next record of the open batch, behind the position; `None` when there is none left.
    #[inline]
    pub(super) fn next_record(&mut self) -> Option<Result<RecordView, SubscribeError>> {
        let records = self.records.as_mut()?;
        loop {
            match records.next() {
                Some(Ok(view)) if view.offset < self.next => {}
                Some(Ok(view)) => {
                    self.next = view.offset.advance(1);
                    return Some(Ok(view));
                }
                Some(Err(damage)) => return Some(Err(self.damaged(damage))),
                None => {
                    self.records = None;
                    return None;
                }
            }
        }
    }

    /// All that is left of the open batch, behind the position; `None` when there is nothing. Records in front of one
    /// that cannot be read come before the error.
    pub(super) fn next_batch(&mut self) -> Option<Result<CheckedRecords, SubscribeError>> {
        let records = self.records.as_mut()?;
        let taken = records.take_checked(self.next);
        if !taken.is_empty() {
            self.next = taken.offsets().end;
            return Some(Ok(taken));
        }
        if let Some(Err(damage)) = records.next() {
            return Some(Err(self.damaged(damage)));
        }
        self.records = None;
        None
    }

    fn damaged(&mut self, damage: BatchError) -> SubscribeError {
        self.records = None;
        SubscribeError::Corrupt {
            partition: self.partition,
            position: self.next,
            damage,
        }
    }
}
