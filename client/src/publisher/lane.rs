//! What is in flight of one partition, in order: the rules, without sockets, tasks or clock.
//!
//! Owns sequences and the decision what to do with each answer. Promises: batches of a partition
//! are stored in the order they were taken; a batch is sent again as the same bytes until its end
//! is known; after a failure nothing is sent under the old identity that could be taken for
//! something else.
//!
//! INVARIANT: a batch is sent only when every batch before it was sent on the same connection and
//! none of them was refused. What a refused batch has behind it is refused too (`out_of_sequence`)
//! and is sent again after it, so order survives any refusal.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{Batch, BatchBuilder, Producer, Record, limits::BATCH_BYTES_MAX};
use tokio::time::Instant;

use super::completion::Completion;
use super::spares::Loan;
use crate::error::{LostReason, Refusal};
pub(super) use crate::identity::Identity;

/// Batches of one partition that may be unanswered. A broker recognises as many when they come again.
pub(super) const IN_FLIGHT_MAX: usize = 8;

/// How far a batch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be sent.
    Waiting,
    /// Sent on the session of this number, not answered.
    Sent { session: u64 },
    /// Refused.
    Refused(Refusal),
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) records: u32,
    pub(super) completion: Arc<Completion>,
    pub(super) loan: Loan,
    pub(super) window_bytes: usize,
    pub(super) deadline: Instant,
    pub(super) stage: Stage,
    /// Whether an earlier attempt may have been stored, because its answer was lost.
    pub(super) is_uncertain: bool,
    pub(super) attempts: u32,
}

impl Flight {
    /// Whether the batch may be stored, as far as is known now.
    pub(super) fn may_be_stored(&self) -> bool {
        self.is_uncertain || matches!(self.stage, Stage::Sent { .. })
    }
}

/// What a lane waits for before it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    Flowing,
    /// This moment.
    Until(Instant),
    /// A new identity.
    Identity,
    /// Fresh knowledge of the topic.
    Topic,
}

/// One partition's batches in flight.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) identity: Identity,
    next_sequence: u64,
    flights: VecDeque<Flight>,
    pub(super) hold: Hold,
    /// Its open batch waits for its turn.
    pub(super) is_in_crowd: bool,
    pub(super) last_trouble: Option<String>,
}

impl Lane {
    pub(super) const fn new(identity: Identity) -> Self {
        Self {
            identity,
            next_sequence: 0,
            flights: VecDeque::new(),
            hold: Hold::Flowing,
            is_in_crowd: false,
            last_trouble: None,
        }
    }

    /// Without idempotence one batch at a time: a second behind a lost first would change places.
    pub(super) fn has_room(&self) -> bool {
        let max = if self.identity.id.is_idempotent() {
            IN_FLIGHT_MAX
        } else {
            1
        };
        self.flights.len() < max && !matches!(self.hold, Hold::Identity)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Flight> {
        self.flights.front()
    }

    /// The identity and sequence of the next batch, which will have so many records.
    pub(super) fn assign(&mut self, records: u32) -> Producer {
        let base_sequence = if self.identity.id.is_idempotent() {
            self.next_sequence
        } else {
            0
        };
        self.next_sequence += u64::from(records);
        Producer {
            id: self.identity.id,
            epoch: self.identity.epoch,
            base_sequence,
        }
    }

    pub(super) fn push(&mut self, flight: Flight) {
        self.flights.push_back(flight);
    }

    /// The batch to send next on a session, if one may be sent.
    pub(super) fn next_to_send(&mut self, session: u64) -> Option<&mut Flight> {
        if self.hold != Hold::Flowing {
            return None;
        }
        let is_sent = |flight: &Flight| flight.stage == Stage::Sent { session };
        let first = self.flights.iter().position(|flight| !is_sent(flight))?;
        let mut rest = self.flights.iter().skip(first);
        if !rest.all(|flight| flight.stage == Stage::Waiting) {
            return None;
        }
        self.flights.get_mut(first)
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.flights.iter().position(|f| f.number == number)
    }

    /// A batch was stored; returns it. Only a batch that has not ended is there.
    pub(super) fn acked(&mut self, number: u64) -> Option<Flight> {
        let position = self.position(number)?;
        self.last_trouble = None;
        self.flights.remove(position)
    }

    /// A batch was refused by the session it was last sent on.
    pub(super) fn refused(&mut self, number: u64, session: u64, refusal: Refusal) {
        let position = self.position(number);
        let Some(flight) = position.and_then(|at| self.flights.get_mut(at)) else {
            return;
        };
        if flight.stage == (Stage::Sent { session }) {
            flight.stage = Stage::Refused(refusal);
        }
    }

    /// The answer to a batch was lost with the session it was sent on.
    pub(super) fn lost(&mut self, number: u64, session: u64, reason: &LostReason) {
        let position = self.position(number);
        let Some(flight) = position.and_then(|at| self.flights.get_mut(at)) else {
            return;
        };
        if flight.stage == (Stage::Sent { session }) {
            flight.stage = Stage::Waiting;
            flight.is_uncertain = true;
            self.last_trouble = Some(reason.to_string());
        }
    }

    /// When every answer is there and the first batch was refused: what to judge. Batches behind
    /// it, whatever they were told, are to be sent again.
    pub(super) fn settled_refusal(&mut self) -> Option<(Refusal, bool)> {
        let is_under_way = |flight: &Flight| matches!(flight.stage, Stage::Sent { .. });
        if self.flights.iter().any(is_under_way) {
            return None;
        }
        let mut verdict = None;
        for (position, flight) in self.flights.iter_mut().enumerate() {
            let stage = std::mem::replace(&mut flight.stage, Stage::Waiting);
            verdict = match stage {
                Stage::Refused(refusal) if position == 0 => Some((refusal, flight.is_uncertain)),
                Stage::Refused(_) | Stage::Waiting | Stage::Sent { .. } => verdict,
            };
        }
        verdict
    }

    /// The first batch's outcome is not known although it was answered.
    pub(super) fn doubt_front(&mut self) {
        if let Some(front) = self.flights.front_mut() {
            front.is_uncertain = true;
        }
    }

    /// Takes the first batch out because it failed, and with it those behind that may be stored:
    /// they belong to its sequence and cannot be sent under another one without a risk of storing
    /// them twice. The rest waits for a new identity.
    pub(super) fn fail_front(&mut self) -> Vec<Flight> {
        let mut failed: Vec<Flight> = self.flights.pop_front().into_iter().collect();
        for flight in std::mem::take(&mut self.flights) {
            if flight.may_be_stored() {
                failed.push(flight);
            } else {
                self.flights.push_back(flight);
            }
        }
        failed
    }

    /// Takes all batches out.
    pub(super) fn take_all(&mut self) -> Vec<Flight> {
        self.flights.drain(..).collect()
    }

    /// Goes on under another identity, with sequences from 0: what is left was never stored.
    /// Returns batches that could not be laid out again, which cannot happen to whole ones.
    pub(super) fn adopt(&mut self, identity: Identity) -> Vec<Flight> {
        self.identity = identity;
        self.next_sequence = 0;
        self.hold = Hold::Flowing;
        let mut broken = Vec::new();
        for mut flight in std::mem::take(&mut self.flights) {
            let producer = self.assign(flight.records);
            match renumber(&flight.bytes, producer) {
                Some(bytes) => {
                    flight.bytes = bytes;
                    flight.stage = Stage::Waiting;
                    // Whatever happened to it before happened under the old identity, to nothing.
                    flight.is_uncertain = false;
                    self.flights.push_back(flight);
                }
                None => broken.push(flight),
            }
        }
        broken
    }
}

/// The same records under another identity or sequence.
fn renumber(batch: &Bytes, producer: Producer) -> Option<Bytes> {
    let batch = Batch::from_bytes(batch.clone()).ok()?;
    let mut builder = BatchBuilder::new(batch.header().codec, BATCH_BYTES_MAX as usize);
    for view in batch.records().ok()? {
        let view = view.ok()?;
        let record = Record {
            key: view.key,
            value: view.value,
            headers: view.headers,
            timestamp_ms: Some(view.timestamp_ms),
        };
        builder.push(&record, view.timestamp_ms).ok()?;
    }
    builder.build(producer)
}
