//! What the handles of a publisher share with its task.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_protocol::{Partition, Record};
use tokio::sync::{Notify, Semaphore};

use super::completion::{BatchReceipt, Completion, Ticket};
use super::intake::{Intake, OpenBatch, Wake};
use super::lane::Flight;
use crate::clock;
use crate::core::{Core, Counters};
use crate::error::PublishError;
use crate::sync::lock;

/// What a record costs in the window beside its payload: its lengths and time in the batch.
const RECORD_OVERHEAD_BYTES: usize = 16;

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) topic: String,
    pub(super) name: Option<String>,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) window_bytes: usize,
    /// Room in the window, bytes. Fair: who waits longest is served first.
    pub(super) window: Semaphore,
    pub(super) intake: Mutex<Intake>,
    /// Wakes the pump.
    pub(super) wake: Notify,
}

impl Shared {
    /// What a record takes from the window; a larger one than the window takes all of it.
    pub(super) fn cost(&self, record: &Record) -> u32 {
        let bytes = record.payload_bytes() + RECORD_OVERHEAD_BYTES;
        u32::try_from(bytes.min(self.window_bytes)).unwrap_or(u32::MAX)
    }

    /// Takes a record whose cost was taken from the window; gives it back on refusal.
    pub(super) fn admit(
        &self,
        partition: Option<Partition>,
        record: &Record,
        cost: u32,
    ) -> Result<Ticket, PublishError> {
        let window_bytes = cost as usize;
        let now_ms = record.timestamp_ms.unwrap_or_else(clock::unix_ms);
        let pushed = lock(&self.intake).push(partition, record, window_bytes, now_ms);
        match pushed {
            Ok((ticket, wake)) => {
                if wake == Wake::Yes {
                    self.wake.notify_one();
                }
                Ok(ticket)
            }
            Err(error) => {
                self.window.add_permits(window_bytes);
                Err(error)
            }
        }
    }

    /// Why nothing is taken any more.
    pub(super) fn closed_reason(&self) -> PublishError {
        let closed = lock(&self.intake).closed.clone();
        closed.unwrap_or(PublishError::Closed)
    }

    /// Takes no more records, for this reason; the first one stays. Senders that wait are told.
    pub(super) fn close_with(&self, reason: PublishError) {
        lock(&self.intake).closed.get_or_insert(reason);
        self.window.close();
        self.wake.notify_one();
    }

    /// Lets everything taken so far leave; returns what to wait for.
    pub(super) fn begin_flush(&self) -> Vec<Arc<Completion>> {
        let waiting = lock(&self.intake).begin_flush();
        self.wake.notify_one();
        waiting
    }

    pub(super) fn succeed(&self, flight: &Flight, receipt: BatchReceipt) {
        Counters::add(&self.core.counters.acked, u64::from(flight.records));
        self.settle(
            flight.number,
            flight.window_bytes,
            &flight.completion,
            Ok(receipt),
        );
    }

    pub(super) fn fail(&self, flight: &Flight, error: PublishError) {
        Counters::add(&self.core.counters.failed, u64::from(flight.records));
        self.settle(
            flight.number,
            flight.window_bytes,
            &flight.completion,
            Err(error),
        );
    }

    pub(super) fn fail_open(&self, batch: &OpenBatch, error: PublishError) {
        let records = u64::from(batch.builder.record_count());
        Counters::add(&self.core.counters.failed, records);
        self.settle(
            batch.number,
            batch.window_bytes,
            &batch.completion,
            Err(error),
        );
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
            self.settle(
                flight.number,
                flight.window_bytes,
                &flight.completion,
                Err(error),
            );
        }
        let waiting = lock(&self.intake).take_all();
        for batch in waiting {
            let records = u64::from(batch.builder.record_count());
            Counters::add(&self.core.counters.abandoned, records);
            let error = PublishError::Abandoned {
                is_uncertain: false,
            };
            self.settle(
                batch.number,
                batch.window_bytes,
                &batch.completion,
                Err(error),
            );
        }
    }

    fn settle(
        &self,
        number: u64,
        window_bytes: usize,
        completion: &Completion,
        outcome: Result<BatchReceipt, PublishError>,
    ) {
        {
            let mut intake = lock(&self.intake);
            if let Err(error) = &outcome {
                intake.failed.get_or_insert_with(|| error.clone());
            }
            intake.settle(number);
        }
        self.window.add_permits(window_bytes);
        completion.complete(outcome);
    }
}
