//! What a refusal means for the batch refused and for those behind it.

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use futures_util::FutureExt;
use tokio::time::sleep;

use super::advance::Cause;
use super::lane::{Hold, Identity};
use super::pump::{Event, Pump};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::clock;
use crate::error::{Error, PublishError, Refusal};
use crate::sync::lock;
use crate::topics::TopicMeta;

/// Attempts after which a batch that arrives damaged counts as damaged here.
const CORRUPT_ATTEMPTS_MAX: u32 = 3;
/// Attempts after which a partition that the broker lists and refuses counts as missing.
const MISSING_ATTEMPTS_MAX: u32 = 5;

/// What to do about the first batch of a lane when it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it again, later.
    Again,
    /// Send it again; it may have been stored.
    AgainInDoubt,
    /// Look the topic up first.
    AskTopic,
    /// It was never stored: send it, and what is behind it, under a new identity.
    Renew,
    /// It failed.
    Fail,
    /// A newer publisher took over: everything failed.
    Fenced,
}

/// What the refusal of a lane's first batch means.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "codes carry their own retry class; only exceptions are named"
)]
pub(super) fn judge(
    code: ErrorCode,
    attempts: u32,
    is_uncertain: bool,
    is_idempotent: bool,
    has_newest_identity: bool,
) -> Verdict {
    match code {
        // This publisher itself has moved on to a newer epoch, and the lane follows.
        ErrorCode::ProducerFenced if !has_newest_identity && !is_uncertain => Verdict::Renew,
        ErrorCode::ProducerFenced if !has_newest_identity => Verdict::Fail,
        ErrorCode::ProducerFenced => Verdict::Fenced,
        // The broker has lost track of this publisher: all before this batch was acknowledged.
        ErrorCode::UnknownProducer | ErrorCode::OutOfSequence
            if !is_uncertain && is_idempotent && attempts < MISSING_ATTEMPTS_MAX =>
        {
            Verdict::Renew
        }
        ErrorCode::UnknownProducer => Verdict::Fail,
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition
            if attempts >= MISSING_ATTEMPTS_MAX =>
        {
            Verdict::Fail
        }
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::NotOwner => {
            Verdict::AskTopic
        }
        ErrorCode::CorruptBatch if attempts < CORRUPT_ATTEMPTS_MAX => Verdict::Again,
        _ => match (code.retry(), code.outcome()) {
            (Retry::Backoff, Outcome::NotApplied) => Verdict::Again,
            (Retry::Backoff, Outcome::Unknown) if is_idempotent => Verdict::AgainInDoubt,
            (Retry::Never | Retry::Rejoin | Retry::Backoff, _) => Verdict::Fail,
        },
    }
}

impl Pump {
    /// Acts on the refusal of a lane's first batch, once all answers are there.
    pub(super) fn judge(&mut self, index: usize) {
        let newest = self.identity;
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let attempts = lane.front().map_or(0, |front| front.attempts);
        let Some((refusal, is_uncertain)) = lane.settled_refusal() else {
            return;
        };
        lane.last_trouble = Some(refusal.to_string());
        let is_idempotent = lane.identity.id.is_idempotent();
        let has_newest = lane.identity == newest;
        match judge(
            refusal.code,
            attempts,
            is_uncertain,
            is_idempotent,
            has_newest,
        ) {
            Verdict::Again => self.wait(index, &refusal),
            Verdict::AgainInDoubt => {
                lane.doubt_front();
                self.wait(index, &refusal);
            }
            Verdict::AskTopic => {
                lane.hold = Hold::Topic;
                self.ask_topic();
            }
            Verdict::Renew => {
                tracing::warn!(partition = index, %refusal, "going on under a new producer id");
                self.renew(index);
            }
            Verdict::Fail => {
                let error = PublishError::Refused {
                    refusal,
                    is_uncertain,
                };
                self.fail_front(index, &error);
            }
            Verdict::Fenced => {
                tracing::warn!("a newer publisher of the same name has taken over");
                self.fail_all();
            }
        }
    }

    fn wait(&mut self, index: usize, refusal: &Refusal) {
        let (Some(lane), Some(backoff)) = (self.lanes.get_mut(index), self.backoffs.get_mut(index))
        else {
            return;
        };
        let wait = refusal.retry_after.unwrap_or_else(|| backoff.next_wait());
        lane.hold = Hold::Until(clock::deadline_in(wait));
    }

    /// Ends a lane's first batch, and those behind it that share its uncertainty; the others go on
    /// under a new identity, because the sequence has a hole now.
    pub(super) fn fail_front(&mut self, index: usize, error: &PublishError) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let is_idempotent = lane.identity.id.is_idempotent();
        let failed = lane.fail_front();
        tracing::warn!(partition = index, %error, batches = failed.len(), "publishing failed");
        for (position, flight) in failed.into_iter().enumerate() {
            let error = match position {
                0 => error.clone(),
                _ => PublishError::EarlierFailed {
                    cause: Box::new(error.clone()),
                },
            };
            self.shared.fail(&flight, error);
        }
        if is_idempotent {
            self.renew(index);
        }
    }

    /// Gives a lane a newer identity than it has; asks for one when it has the newest.
    fn renew(&mut self, index: usize) {
        let newest = self.identity;
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        if lane.identity == newest {
            lane.hold = Hold::Identity;
            self.ask_identity();
        } else {
            self.adopt(index, newest);
        }
    }

    fn adopt(&mut self, index: usize, identity: Identity) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        for flight in lane.adopt(identity) {
            let error = PublishError::Client(Error::Answer {
                operation: "publish",
            });
            self.shared.fail(&flight, error);
        }
    }

    fn ask_identity(&mut self) {
        if !self.is_identity_asked {
            self.is_identity_asked = true;
            let shared = Arc::clone(&self.shared);
            let wait = match self.identity_backoff.attempts() {
                0 => Duration::ZERO,
                _ => self.identity_backoff.next_wait(),
            };
            let event = async move {
                sleep(wait).await;
                Event::Identity(init_producer(&shared).await)
            };
            self.events.push(event.boxed());
        }
    }

    pub(super) fn identity_came(&mut self, granted: Result<Identity, Error>) {
        self.is_identity_asked = false;
        match granted {
            Ok(identity) => {
                self.identity_backoff.reset();
                self.identity = identity;
            }
            Err(Error::Closed) => return,
            // Deadlines end what waits; until then, ask again.
            Err(error) => {
                tracing::warn!(%error, "no new producer id yet");
                self.identity_backoff.next_wait();
                return self.ask_identity();
            }
        }
        for index in 0..self.lanes.len() {
            if self
                .lanes
                .get(index)
                .is_some_and(|l| l.hold == Hold::Identity)
            {
                self.adopt(index, self.identity);
                self.advance(index, Cause::Woken);
            }
        }
    }

    pub(super) fn ask_topic(&mut self) {
        if !self.is_topic_asked {
            self.is_topic_asked = true;
            let shared = Arc::clone(&self.shared);
            let event = async move { Event::Topic(shared.core.refresh_topic(&shared.topic).await) };
            self.events.push(event.boxed());
        }
    }

    /// Lanes that waited for the topic go on, or fail with it.
    pub(super) fn topic_came(&mut self, meta: &Result<TopicMeta, Error>) {
        self.is_topic_asked = false;
        let is_new = matches!(meta, Ok(meta) if meta.id != self.topic.id);
        if let Ok(meta) = meta {
            self.topic = *meta;
            self.grow(meta.partitions);
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else {
                continue;
            };
            if lane.hold == Hold::Topic {
                if let Err(error @ Error::UnknownTopic { .. }) = meta {
                    lane.hold = Hold::Flowing;
                    let error = PublishError::Client(error.clone());
                    self.fail_lane(index, &error);
                } else {
                    let wait = self.backoffs.get_mut(index).map(Backoff::next_wait);
                    lane.hold = Hold::Until(clock::deadline_in(wait.unwrap_or_default()));
                }
            }
            if is_new
                && self
                    .lanes
                    .get(index)
                    .is_some_and(|l| l.hold != Hold::Identity)
            {
                self.restart_lane(index);
            }
            self.advance(index, Cause::Woken);
        }
    }

    /// The topic was deleted and created anew: sequences begin again there.
    fn restart_lane(&mut self, index: usize) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        // What was sent to the old topic has its end there.
        if lane.front().is_some_and(super::lane::Flight::may_be_stored) {
            let error = PublishError::Client(Error::UnknownTopic {
                topic: self.shared.topic.clone(),
            });
            self.fail_lane(index, &error);
        } else {
            let identity = lane.identity;
            self.adopt(index, identity);
        }
    }

    /// Ends everything of a lane that is in flight, and starts its sequences anew.
    fn fail_lane(&mut self, index: usize, error: &PublishError) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        for flight in lane.take_all() {
            self.shared.fail(&flight, error.clone());
        }
        if self
            .lanes
            .get(index)
            .is_some_and(|l| l.identity.id.is_idempotent())
        {
            self.renew(index);
        }
    }

    /// Ends everything: a newer publisher of this name is at work.
    fn fail_all(&mut self) {
        let mut flights = Vec::new();
        for lane in &mut self.lanes {
            flights.extend(lane.take_all());
        }
        self.shared.close_with(PublishError::Fenced {
            is_uncertain: false,
        });
        for flight in flights {
            let is_uncertain = flight.may_be_stored();
            self.shared
                .fail(&flight, PublishError::Fenced { is_uncertain });
        }
        let waiting = lock(&self.shared.intake).take_all();
        for batch in waiting {
            let is_uncertain = false;
            self.shared
                .fail_open(&batch, PublishError::Fenced { is_uncertain });
        }
    }
}

/// Asks the broker for an identity; a publisher without idempotence needs none.
pub(super) async fn init_producer(shared: &Shared) -> Result<Identity, Error> {
    shared.core.init_producer(shared.name.as_deref()).await
}
