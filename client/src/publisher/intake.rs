//! Where records wait for their batch to leave: the short mutex section of `send`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use falcon_protocol::batch::PushError;
use falcon_protocol::partitioner::partition_for_key;
use falcon_protocol::{BatchBuilder, Codec, Partition, Record};
use tokio::time::Instant;

use super::completion::{Completion, Ticket};
use super::room::Room;
use super::spares::{Loan, Spares};
use crate::clock;
use crate::error::PublishError;

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchRules {
    pub(super) codec: Codec,
    /// A batch that reaches this leaves.
    pub(super) batch_bytes: usize,
    /// A single larger record gets a batch of its own up to this.
    pub(super) batch_bytes_max: usize,
}

/// A batch that takes records, or waits until it may leave.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) number: u64,
    pub(super) builder: BatchBuilder,
    pub(super) completion: Arc<Completion>,
    pub(super) loan: Loan,
    /// What its records took from the window.
    pub(super) window_bytes: usize,
    pub(super) opened_at: Instant,
    /// Wall clock then.
    opened_ms: i64,
}

impl OpenBatch {
    /// When a record is put in, milliseconds since the Unix epoch: exact for the first record, so for records that
    /// come one at a time; up to a tick of the system late for those that come in a flood.
    fn now_ms(&self) -> i64 {
        if self.builder.is_empty() {
            self.opened_ms
        } else {
            clock::unix_ms_cheap().max(self.opened_ms)
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    full: VecDeque<OpenBatch>,
    open: Option<OpenBatch>,
    /// Whether the partition is in `ready`.
    is_ready: bool,
    /// What its last batch took.
    recent_bytes: usize,
}

/// All partitions' waiting records. Lives behind a mutex; nothing here waits.
#[derive(Debug)]
pub(super) struct Intake {
    rules: BatchRules,
    queues: Vec<Queue>,
    /// Partitions with something new for the pump.
    ready: Vec<usize>,
    /// Where records without a key go until their batch leaves.
    cursor: usize,
    next_number: u64,
    /// Every batch that has not ended, for flush.
    unsettled: BTreeMap<u64, Arc<Completion>>,
    /// Batches below this do not wait for the linger.
    pub(super) flush_below: u64,
    /// First failure since the last flush.
    pub(super) failed: Option<PublishError>,
    /// Why nothing is taken any more.
    pub(super) closed: Option<PublishError>,
    pub(super) room: Room,
    pub(super) spares: Spares,
}

/// Whether the pump must be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Yes,
    No,
}

impl Intake {
    pub(super) fn new(rules: BatchRules, partitions: u32, window_bytes: usize) -> Self {
        let mut intake = Self {
            rules,
            queues: Vec::new(),
            ready: Vec::new(),
            cursor: 0,
            next_number: 0,
            unsettled: BTreeMap::new(),
            flush_below: 0,
            failed: None,
            closed: None,
            room: Room::new(window_bytes),
            spares: Spares::new(window_bytes),
        };
        intake.grow(partitions);
        intake.cursor = fastrand::usize(..intake.queues.len().max(1));
        intake
    }

    /// The topic has so many partitions now; never fewer than before.
    pub(super) fn grow(&mut self, partitions: u32) {
        let partitions = usize::try_from(partitions).unwrap_or(usize::MAX).max(1);
        if partitions > self.queues.len() {
            self.queues.resize_with(partitions, Queue::default);
        }
    }

    pub(super) fn partitions(&self) -> usize {
        self.queues.len()
    }

    /// Takes a record that has its room in the window.
    pub(super) fn push(
        &mut self,
        partition: Option<Partition>,
        record: &Record,
        window_bytes: usize,
    ) -> Result<(Ticket, Wake), PublishError> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        let index = self.choose(partition, record)?;
        let rules = self.rules;
        let mut wake = Wake::No;
        let mut builder_bytes = rules.batch_bytes;
        loop {
            let batch = self.open_batch(index, builder_bytes, &mut wake);
            let time_ms = record.timestamp_ms.unwrap_or_else(|| batch.now_ms());
            let pushed = batch.builder.push(record, time_ms);
            let is_empty = batch.builder.is_empty();
            match pushed {
                Ok(()) => {
                    batch.window_bytes += window_bytes;
                    let position = batch.builder.record_count() - 1;
                    let is_alone = builder_bytes > rules.batch_bytes;
                    let ticket = Ticket::new(Arc::clone(&batch.completion), position);
                    if is_alone {
                        self.seal(index);
                    }
                    return Ok((ticket, wake));
                }
                Err(PushError::Full) => {
                    self.seal(index);
                    self.mark_ready(index);
                    wake = Wake::Yes;
                }
                Err(PushError::RecordTooLarge { bytes, .. })
                    if builder_bytes < rules.batch_bytes_max && bytes <= rules.batch_bytes_max =>
                {
                    self.seal(index);
                    builder_bytes = rules.batch_bytes_max;
                }
                Err(
                    refused @ (PushError::RecordTooLarge { .. }
                    | PushError::TooManyHeaders { .. }
                    | PushError::HeaderNameTooLong { .. }),
                ) => {
                    if is_empty {
                        self.discard_open(index);
                    }
                    return Err(match refused {
                        PushError::RecordTooLarge { bytes, .. } => PublishError::RecordTooLarge {
                            bytes,
                            max: rules.batch_bytes_max,
                        },
                        other @ (PushError::Full
                        | PushError::TooManyHeaders { .. }
                        | PushError::HeaderNameTooLong { .. }) => other.into(),
                    });
                }
            }
        }
    }

    fn choose(&self, partition: Option<Partition>, record: &Record) -> Result<usize, PublishError> {
        let partitions = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        match (partition, &record.key) {
            (Some(partition), _) if partition.0 >= partitions => {
                Err(PublishError::UnknownPartition {
                    partition,
                    partitions,
                })
            }
            (Some(partition), _) => Ok(partition.0 as usize),
            (None, Some(key)) => Ok(partition_for_key(key, partitions).0 as usize),
            (None, None) => Ok(self.cursor),
        }
    }

    /// The batch of a partition that takes records; opens one when there is none.
    fn open_batch(&mut self, index: usize, bytes_max: usize, wake: &mut Wake) -> &mut OpenBatch {
        let is_missing = self.queues.get(index).is_none_or(|q| q.open.is_none());
        if is_missing {
            *wake = Wake::Yes;
            self.mark_ready(index);
        }
        if index >= self.queues.len() {
            // `choose` keeps to the partitions there are; growing is the harmless way out.
            self.queues.resize_with(index + 1, Queue::default);
        }
        let Self {
            queues,
            rules,
            next_number,
            unsettled,
            spares,
            ..
        } = self;
        let partitions = queues.len();
        #[expect(clippy::indexing_slicing, reason = "resized above when it was missing")]
        let Queue {
            open, recent_bytes, ..
        } = &mut queues[index];
        open.get_or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            let partition = Partition(u32::try_from(index).unwrap_or(u32::MAX));
            let completion = Completion::new(partition);
            unsettled.insert(number, Arc::clone(&completion));
            let (buffer, loan) = spares.lend(*recent_bytes, partitions);
            OpenBatch {
                number,
                builder: BatchBuilder::with_buffer(rules.codec, bytes_max, buffer),
                completion,
                loan,
                window_bytes: 0,
                opened_at: clock::now(),
                opened_ms: clock::unix_ms(),
            }
        })
    }

    /// Closes the open batch of a partition to further records.
    fn seal(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        match queue.open.take() {
            Some(batch) if batch.builder.is_empty() => self.discard(batch),
            Some(batch) => {
                queue.recent_bytes = batch.builder.len_bytes();
                queue.full.push_back(batch);
                self.advance_cursor(index);
            }
            None => {}
        }
    }

    fn discard_open(&mut self, index: usize) {
        let open = self.queues.get_mut(index).and_then(|q| q.open.take());
        if let Some(batch) = open {
            self.discard(batch);
        }
    }

    /// A batch that was opened for nothing.
    fn discard(&mut self, batch: OpenBatch) {
        self.unsettled.remove(&batch.number);
        let buffer = batch.builder.into_buffer();
        self.spares.take_back(batch.loan, Some(buffer));
    }

    fn advance_cursor(&mut self, left: usize) {
        if left == self.cursor {
            self.cursor = (self.cursor + 1) % self.queues.len().max(1);
        }
    }

    fn mark_ready(&mut self, index: usize) {
        let queue = self.queues.get_mut(index);
        if let Some(queue) = queue.filter(|queue| !queue.is_ready) {
            queue.is_ready = true;
            self.ready.push(index);
        }
    }

    /// Partitions with something new since the last call.
    pub(super) fn take_ready(&mut self) -> Vec<usize> {
        let ready = std::mem::take(&mut self.ready);
        for index in &ready {
            if let Some(queue) = self.queues.get_mut(*index) {
                queue.is_ready = false;
            }
        }
        ready
    }

    /// Takes the next batch of a partition: a full one, or the open one when `may_take_open` says
    /// of its number and opening time that it may leave.
    pub(super) fn take_batch(
        &mut self,
        index: usize,
        may_take_open: impl FnOnce(u64, Instant) -> bool,
    ) -> Option<OpenBatch> {
        let queue = self.queues.get_mut(index)?;
        if let Some(batch) = queue.full.pop_front() {
            return Some(batch);
        }
        let open = queue.open.as_ref()?;
        if open.builder.is_empty() || !may_take_open(open.number, open.opened_at) {
            return None;
        }
        queue.recent_bytes = open.builder.len_bytes();
        let batch = queue.open.take();
        self.advance_cursor(index);
        batch
    }

    /// When the oldest waiting batch of a partition was opened.
    pub(super) fn oldest(&self, index: usize) -> Option<Instant> {
        let queue = self.queues.get(index)?;
        let oldest = queue.full.front().or(queue.open.as_ref())?;
        Some(oldest.opened_at)
    }

    /// Takes everything that waits.
    pub(super) fn take_all(&mut self) -> Vec<OpenBatch> {
        let queues = self.queues.iter_mut();
        queues
            .flat_map(|queue| queue.full.drain(..).chain(queue.open.take()))
            .collect()
    }

    /// A batch has ended.
    pub(super) fn settle(&mut self, number: u64) {
        self.unsettled.remove(&number);
    }

    /// Lets everything taken so far leave without linger, and returns what has not ended.
    pub(super) fn begin_flush(&mut self) -> Vec<Arc<Completion>> {
        self.flush_below = self.next_number;
        for index in 0..self.queues.len() {
            if self.queues.get(index).is_some_and(|q| q.open.is_some()) {
                self.mark_ready(index);
            }
        }
        self.unsettled.values().map(Arc::clone).collect()
    }

    /// Whether nothing is left to send or to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }
}
