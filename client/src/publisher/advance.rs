//! One step of a lane: judge what was refused, expire what is late, take what waits, send.

use std::time::Duration;

use falcon_protocol::Partition;
use falcon_protocol::ids::PartitionId;
use falcon_protocol::message::{PUBLISH_HEADER_BYTES, PublishHeader};
use tokio::time::Instant;

use super::intake::OpenBatch;
use super::lane::{Flight, Hold, Lane, Stage};
use super::pump::Pump;
use crate::connection::{StartError, Tag};
use crate::error::PublishError;
use crate::sync::lock;

/// Publishes under way up to which an open batch leaves as soon as its lane lets it. Beyond, more of them at a
/// time would not be answered sooner; batches that wait for their turn grow instead, and become fewer.
const CROWD: usize = 128;

/// A publish up to this size leaves without waking the connection's task, when no other is under way.
const LONE_BYTES_MAX: usize = 16 * 1024;

/// Why a lane is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something may have changed.
    Woken,
    /// An answer came, which lets the open batch leave although others are under way.
    Returned,
    /// Its turn has come in the crowd.
    Turn,
}

impl Pump {
    /// Does what can be done in a lane: judge, expire, take, send.
    pub(super) fn advance(&mut self, index: usize, cause: Cause) {
        self.release(index);
        self.judge(index);
        self.expire(index);
        self.fill(index, cause);
        self.send(index);
        self.note_due(index);
    }

    /// Whether what is under way is enough for now.
    fn is_crowded(&self, cause: Cause) -> bool {
        let is_in_turn = cause == Cause::Turn || self.crowd.is_empty();
        self.unanswered >= CROWD || self.is_blocked || !is_in_turn
    }

    /// Lets those in the crowd leave whose turn it is.
    pub(super) fn serve_crowd(&mut self) {
        while self.unanswered < CROWD && !self.is_blocked {
            let Some(index) = self.crowd.pop_front() else {
                return;
            };
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.is_in_crowd = false;
            }
            self.advance(index, Cause::Turn);
        }
    }

    fn join_crowd(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index).filter(|l| !l.is_in_crowd) {
            lane.is_in_crowd = true;
            self.crowd.push_back(index);
        }
    }

    /// A wait that is over holds no longer.
    fn release(&mut self, index: usize) {
        let now = self.now;
        let lane = self.lanes.get_mut(index);
        if let Some(lane) = lane.filter(|l| matches!(l.hold, Hold::Until(at) if at <= now)) {
            lane.hold = Hold::Flowing;
        }
    }

    fn expire(&mut self, index: usize) {
        let now = self.now;
        while let Some(lane) = self.lanes.get(index) {
            let Some(front) = lane.front().filter(|front| front.deadline <= now) else {
                break;
            };
            let error = PublishError::DeliveryTimeout {
                after: self.shared.delivery_timeout,
                last: self.trouble(lane),
                is_uncertain: front.may_be_stored(),
            };
            self.fail_front(index, &error);
        }
        self.expire_waiting(index, now);
    }

    /// What waits in the intake of a lane that cannot take it, or in the crowd, has a deadline too.
    fn expire_waiting(&mut self, index: usize, now: Instant) {
        let after = self.shared.delivery_timeout;
        let waits = |lane: &&Lane| !lane.has_room() || lane.is_in_crowd;
        let Some(lane) = self.lanes.get(index).filter(waits) else {
            return;
        };
        let mut expired = Vec::new();
        {
            let mut intake = lock(&self.shared.intake);
            while intake.oldest(index).is_some_and(|at| at + after <= now) {
                expired.extend(intake.take_batch(index, |_, _| true));
            }
        }
        for batch in expired {
            let error = PublishError::DeliveryTimeout {
                after,
                last: self.trouble(lane),
                is_uncertain: false,
            };
            self.shared.fail_open(&batch, error);
        }
    }

    fn trouble(&self, lane: &Lane) -> String {
        let down = || self.shared.core.link.down_reason();
        let trouble = lane.last_trouble.clone();
        trouble.unwrap_or_else(|| match down() {
            Some(reason) => format!("no connection: {reason}"),
            None => "no answer".to_owned(),
        })
    }

    /// Takes batches from the intake while there is room for them in flight.
    fn fill(&mut self, index: usize, cause: Cause) {
        let (linger, now) = (self.shared.linger, self.now);
        let is_crowded = self.is_crowded(cause);
        let mut has_returned = cause == Cause::Returned;
        let mut is_kept = false;
        while let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.has_room()) {
            let is_idle = lane.is_empty() || has_returned;
            let batch = {
                let mut intake = lock(&self.shared.intake);
                let flush_below = intake.flush_below;
                let is_closing = intake.closed.is_some();
                intake.take_batch(index, |number, opened_at| {
                    let lingered = opened_at + linger <= now;
                    let may_leave = is_idle && (lingered || number < flush_below || is_closing);
                    is_kept = may_leave && is_crowded;
                    may_leave && !is_crowded
                })
            };
            has_returned = false;
            let Some(batch) = batch else { break };
            if let Some(flight) = into_flight(lane, batch, self.shared.delivery_timeout) {
                lane.push(flight);
            }
        }
        if is_kept {
            self.join_crowd(index);
        }
    }

    /// Sends what may be sent, in order.
    fn send(&mut self, index: usize) {
        let Some(session) = &self.session else { return };
        let number_of_session = session.number();
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let partition = Partition(u32::try_from(index).unwrap_or(u32::MAX));
        let header = PublishHeader {
            partition: PartitionId {
                topic: self.topic.id,
                partition,
            },
            timeout_ms: 0,
        };
        let mut front = [0; PUBLISH_HEADER_BYTES];
        header.encode(&mut front.as_mut_slice());
        while let Some(flight) = lane.next_to_send(number_of_session) {
            let tag = Tag {
                lane: index,
                number: flight.number,
                session: number_of_session,
            };
            let answer = (&self.tray, tag);
            let is_lone = self.unanswered == 0 && flight.bytes.len() <= LONE_BYTES_MAX;
            match session.start_publish(&front, &flight.bytes, answer, is_lone) {
                Ok(()) => {}
                Err(StartError::Busy) => {
                    self.is_blocked = true;
                    return;
                }
                Err(StartError::Ended) => return,
            }
            flight.stage = Stage::Sent {
                session: number_of_session,
            };
            flight.attempts += 1;
            self.unanswered += 1;
        }
    }

    /// Remembers when the lane needs a turn although nothing happens.
    fn note_due(&mut self, index: usize) {
        let Some(lane) = self.lanes.get(index) else {
            return;
        };
        if let Hold::Until(at) = lane.hold {
            self.due = self.due.min(at);
        }
        if let Some(front) = lane.front() {
            self.due = self.due.min(front.deadline);
        } else if let Some(opened_at) = lock(&self.shared.intake).oldest(index) {
            let wait = if lane.has_room() && !lane.is_in_crowd {
                self.shared.linger
            } else {
                self.shared.delivery_timeout
            };
            self.due = self.due.min(opened_at + wait);
        }
    }
}

/// Lays a batch out under the lane's identity.
fn into_flight(
    lane: &mut Lane,
    mut batch: OpenBatch,
    delivery_timeout: Duration,
) -> Option<Flight> {
    let records = batch.builder.record_count();
    let producer = lane.assign(records);
    let bytes = batch.builder.build(producer)?;
    Some(Flight {
        number: batch.number,
        bytes,
        records,
        completion: batch.completion,
        loan: batch.loan,
        window_bytes: batch.window_bytes,
        deadline: batch.opened_at + delivery_timeout,
        stage: Stage::Waiting,
        is_uncertain: false,
        attempts: 0,
    })
}
