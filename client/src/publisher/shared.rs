//! What the handles of a publisher share with its task.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use falcon_protocol::{Partition, Record};
use tokio::sync::{Notify, Semaphore};

use super::completion::{BatchReceipt, Completion, Ticket};
use super::intake::{Intake, OpenBatch, Wake};
use super::lane::Flight;
use super::spares::Loan;
use crate::core::{Core, Counters};
use crate::error::PublishError;
use crate::sync::lock;

/// What a record costs in the window beside its payload: its lengths and time in the batch.
const RECORD_OVERHEAD_BYTES: usize = 16;
/// So many records cost a sender one unit of what a task may do before it lets others run. A record is much
/// less work than what the unit is made for.
const RECORDS_PER_BUDGET_UNIT: u32 = 8;

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) topic: String,
    pub(super) name: Option<String>,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) window_bytes: usize,
    /// Where senders wait for room in the window, bytes: see [`Room`](super::room::Room).
    pub(super) line: Semaphore,
    /// Records sent, for turns.
    pub(super) sent: AtomicU32,
    pub(super) intake: Mutex<Intake>,
    /// Wakes the pump.
    pub(super) wake: Arc<Notify>,
}

impl Shared {
    /// What a record takes from the window; a larger one than the window takes all of it.
    pub(super) fn cost(&self, record: &Record) -> u32 {
        let bytes = record.payload_bytes() + RECORD_OVERHEAD_BYTES;
        u32::try_from(bytes.min(self.window_bytes)).unwrap_or(u32::MAX)
    }

    /// Takes a record if there is room for it at once.
    #[inline]
    pub(super) fn try_admit(
        &self,
        partition: Option<Partition>,
        record: &Record,
        cost: u32,
    ) -> Option<Result<Ticket, PublishError>> {
        let mut intake = lock(&self.intake);
        if let Some(reason) = &intake.closed {
            return Some(Err(reason.clone()));
        }
        if !intake.room.try_take(cost as usize) {
            return None;
        }
        Some(self.push(intake, partition, record, cost))
    }

    /// Takes a record whose cost was taken from the window.
    pub(super) fn admit(
        &self,
        partition: Option<Partition>,
        record: &Record,
        cost: u32,
    ) -> Result<Ticket, PublishError> {
        self.push(lock(&self.intake), partition, record, cost)
    }

    /// Puts a record in; gives its cost back on refusal.
    #[inline]
    fn push(
        &self,
        mut intake: MutexGuard<'_, Intake>,
        partition: Option<Partition>,
        record: &Record,
        cost: u32,
    ) -> Result<Ticket, PublishError> {
        match intake.push(partition, record, cost as usize) {
            Ok((ticket, wake)) => {
                drop(intake);
                if wake == Wake::Yes {
                    self.wake.notify_one();
                }
                Ok(ticket)
            }
            Err(error) => {
                intake.room.give_back(cost as usize, &self.line);
                Err(error)
            }
        }
    }

    /// Whether a sender has had its turn and should let others run.
    pub(super) fn is_turn_over(&self) -> bool {
        // Not exact when several count at a time, which is good enough for turns.
        let sent = self.sent.load(Ordering::Relaxed).wrapping_add(1);
        self.sent.store(sent, Ordering::Relaxed);
        sent.is_multiple_of(RECORDS_PER_BUDGET_UNIT)
    }

    /// Bytes of the window that are taken.
    pub(super) fn window_used_bytes(&self) -> usize {
        let free = lock(&self.intake).room.free_bytes(&self.line);
        self.window_bytes.saturating_sub(free)
    }

    /// Why nothing is taken any more.
    pub(super) fn closed_reason(&self) -> PublishError {
        let closed = lock(&self.intake).closed.clone();
        closed.unwrap_or(PublishError::Closed)
    }

    /// Takes no more records, for this reason; the first one stays. Senders that wait are told.
    pub(super) fn close_with(&self, reason: PublishError) {
        lock(&self.intake).closed.get_or_insert(reason);
        self.line.close();
        self.wake.notify_one();
    }

    /// Lets everything taken so far leave; returns what to wait for.
    pub(super) fn begin_flush(&self) -> Vec<Arc<Completion>> {
        let waiting = lock(&self.intake).begin_flush();
        self.wake.notify_one();
        waiting
    }

    pub(super) fn succeed(&self, flight: Flight, receipt: BatchReceipt) {
        Counters::add(&self.core.counters.acked, u64::from(flight.records));
        let ended = Ended::of_flight(&flight);
        // Nobody else has these bytes any more, unless the writer is about to drop them.
        let buffer = flight.bytes.try_into_mut().ok();
        self.settle(ended, buffer, &flight.completion, Ok(receipt));
    }

    pub(super) fn fail(&self, flight: &Flight, error: PublishError) {
        Counters::add(&self.core.counters.failed, u64::from(flight.records));
        let ended = Ended::of_flight(flight);
        self.settle(ended, None, &flight.completion, Err(error));
    }

    pub(super) fn fail_open(&self, batch: &OpenBatch, error: PublishError) {
        let records = u64::from(batch.builder.record_count());
        Counters::add(&self.core.counters.failed, records);
        let ended = Ended::of_open(batch);
        self.settle(ended, None, &batch.completion, Err(error));
    }

    /// Ends all that is left when the client stops.
    pub(super) fn abandon(&self, flights: Vec<Flight>) {
        self.close_with(PublishError::Abandoned {
            is_uncertain: false,
        });
        for flight in flights {
            let is_uncertain = flight.may_be_stored();
            Counters::add(&self.core.counters.abandoned, u64::from(flight.records));
            let error = PublishError::Abandoned { is_uncertain };
            let ended = Ended::of_flight(&flight);
            self.settle(ended, None, &flight.completion, Err(error));
        }
        let waiting = lock(&self.intake).take_all();
        for batch in waiting {
            let records = u64::from(batch.builder.record_count());
            Counters::add(&self.core.counters.abandoned, records);
            let error = PublishError::Abandoned {
                is_uncertain: false,
            };
            let ended = Ended::of_open(&batch);
            self.settle(ended, None, &batch.completion, Err(error));
        }
    }

    fn settle(
        &self,
        ended: Ended,
        buffer: Option<BytesMut>,
        completion: &Completion,
        outcome: Result<BatchReceipt, PublishError>,
    ) {
        {
            let mut intake = lock(&self.intake);
            if let Err(error) = &outcome {
                intake.failed.get_or_insert_with(|| error.clone());
            }
            intake.settle(ended.number);
            intake.spares.take_back(ended.loan, buffer);
            intake.room.give_back(ended.window_bytes, &self.line);
        }
        completion.complete(outcome);
    }
}

/// What a batch held.
#[derive(Debug, Clone, Copy)]
struct Ended {
    number: u64,
    window_bytes: usize,
    loan: Loan,
}

impl Ended {
    const fn of_flight(flight: &Flight) -> Self {
        Self {
            number: flight.number,
            window_bytes: flight.window_bytes,
            loan: flight.loan,
        }
    }

    const fn of_open(batch: &OpenBatch) -> Self {
        Self {
            number: batch.number,
            window_bytes: batch.window_bytes,
            loan: batch.loan,
        }
    }
}
