//! Sending one step until its end is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use falcon_protocol::message::{self, CommitOwned, PublishAck, StepBatch, decode_step_acks};
use falcon_protocol::{Frame, Offset};
use tokio::time::{Instant, sleep, timeout_at};

use super::StepReceipt;
use super::plan::{Part, Plan, arrange};
use super::pool::{LaneGuard, StepLanes};
use crate::backoff::Backoff;
use crate::clock;
use crate::connection::{Session, StartError};
use crate::consumer::{Grant, Owner};
use crate::core::Core;
use crate::error::{Error, Refusal, StepError};
use crate::publisher::Receipt;
use crate::topics::is_outdated;

/// A step to be done.
pub(super) struct Job {
    pub(super) core: Arc<Core>,
    pub(super) lanes: Arc<StepLanes>,
    pub(super) owner: Option<Owner>,
    pub(super) parts: Vec<Part>,
    pub(super) marks: Vec<(Grant, Offset)>,
    pub(super) timeout: Duration,
}

/// A step under way.
struct Delivery {
    job: Job,
    commit: Option<CommitOwned>,
    lane: LaneGuard,
    plan: Plan,
    /// Laid out; stays the same until it is known that nothing of it happened.
    body: Option<Bytes>,
    deadline: Instant,
    backoff: Backoff,
    /// Whether an earlier attempt may have happened.
    is_uncertain: bool,
    /// Whether topics were looked up anew because the broker knew better.
    is_refreshed: bool,
    last: String,
}

/// What to do after an attempt.
enum Next {
    Done(Vec<PublishAck>),
    Again,
    Later(Duration),
    Fail(StepError),
}

/// Does the step; its end is known when this returns, or the error says that it is not.
pub(super) async fn deliver(job: Job) -> Result<StepReceipt, StepError> {
    let deadline = clock::deadline_in(job.timeout);
    let commit = match (&job.owner, job.marks.is_empty()) {
        (Some(owner), false) => Some(owner.step_commit(&job.marks).map_err(StepError::Commit)?),
        (Some(_) | None, _) => None,
    };
    let lane = job.lanes.take();
    let Ok(lane) = timeout_at(deadline, lane).await else {
        return Err(StepError::Timeout {
            after: job.timeout,
            last: "other steps are in flight".to_owned(),
            is_uncertain: false,
        });
    };
    let stop = job.core.stop.clone();
    let mut delivery = Delivery {
        job,
        commit,
        lane,
        plan: Plan {
            batches: Vec::new(),
            places: Vec::new(),
        },
        body: None,
        deadline,
        backoff: Backoff::default(),
        is_uncertain: false,
        is_refreshed: false,
        last: "no answer".to_owned(),
    };
    // CANCEL SAFETY: what is cut short is uncertain, and its lane is given up below.
    let ended = stop.run_until_cancelled(delivery.run()).await;
    let outcome = ended.unwrap_or(Err(StepError::Abandoned {
        is_uncertain: delivery.is_uncertain,
    }));
    delivery.conclude(&outcome);
    outcome
}

impl Delivery {
    async fn run(&mut self) -> Result<StepReceipt, StepError> {
        self.plan = self.arrange(false).await?;
        loop {
            let attempt = timeout_at(self.deadline, self.attempt());
            let Some(next) = attempt_of(attempt.await) else {
                return Err(self.timed_out());
            };
            match next {
                Next::Done(acks) => return Ok(self.receipt(&acks)),
                Next::Again => {}
                Next::Later(wait) => {
                    if clock::now() + wait >= self.deadline {
                        return Err(self.timed_out());
                    }
                    sleep(wait).await;
                }
                Next::Fail(error) => return Err(error),
            }
        }
    }

    async fn arrange(&self, is_fresh: bool) -> Result<Plan, StepError> {
        let mut topics = HashMap::new();
        for part in &self.job.parts {
            if !topics.contains_key(&part.topic) {
                let meta = if is_fresh {
                    self.job.core.refresh_topic(&part.topic).await?
                } else {
                    self.job.core.topic(&part.topic).await?
                };
                topics.insert(part.topic.clone(), meta);
            }
        }
        arrange(&self.job.parts, &topics, fastrand::u32(..))
    }

    async fn attempt(&mut self) -> Result<Next, StepError> {
        let core = Arc::clone(&self.job.core);
        let session = core.link.session().await?;
        let body = match &self.body {
            Some(body) => body.clone(),
            None => self.lay_out(&session).await?,
        };
        let answer = loop {
            let room = session.room().notified();
            tokio::pin!(room);
            // ORDER: registered before the attempt, or room that appears in between is missed.
            room.as_mut().enable();
            match session.start_step(&body) {
                Ok(answer) => break answer,
                Err(StartError::Busy) => room.await,
                Err(StartError::Ended) => {
                    core.link.left(&session).await;
                    return Ok(Next::Again);
                }
            }
        };
        // From here on it may have happened, whatever becomes of this future.
        let was_uncertain = std::mem::replace(&mut self.is_uncertain, true);
        let Ok(frame) = answer.await else {
            self.last = session.reason().to_string();
            return Ok(Next::Again);
        };
        self.is_uncertain = was_uncertain;
        Ok(self.judge(&frame, &session).await)
    }

    async fn lay_out(&mut self, session: &Session) -> Result<Bytes, StepError> {
        let granted = session.granted();
        let frame_bytes_max = granted.frame_bytes_max as usize;
        let batch_bytes_max = (granted.batch_bytes_max as usize).min(frame_bytes_max);
        let needs_identity = !self.plan.batches.is_empty() && self.lane.lane.identity.is_none();
        if needs_identity {
            if self.job.lanes.is_fenced() {
                return Err(self.fenced());
            }
            let name = self.job.lanes.lane_name(self.lane.lane.number);
            let identity = self.job.core.init_producer(name.as_deref()).await?;
            self.lane.lane.adopt(identity);
        }
        let lane = &self.lane.lane;
        let batches = lane.lay_out(&self.plan, batch_bytes_max, clock::unix_ms())?;
        let planned = self.plan.batches.iter().zip(batches);
        let step = message::Step {
            timeout_ms: 0,
            batches: planned
                .map(|(planned, batch)| StepBatch {
                    partition: planned.partition,
                    expected: planned.expected,
                    batch,
                })
                .collect(),
            commit: self.commit.clone(),
        };
        let body = step.encode().map_err(|_| Error::InvalidOption {
            option: "commit",
            reason: "it names too many partitions",
        })?;
        if body.len() > frame_bytes_max {
            return Err(StepError::TooLarge {
                bytes: body.len(),
                max: frame_bytes_max,
            });
        }
        self.body = Some(body.clone());
        Ok(body)
    }

    async fn judge(&mut self, frame: &Frame, session: &Session) -> Next {
        let Some(refusal) = Refusal::of(frame) else {
            return match decode_step_acks(&frame.body) {
                Ok(acks) if acks.len() == self.plan.batches.len() => Next::Done(acks),
                Ok(_) | Err(_) => {
                    let reason =
                        crate::error::LostReason::Protocol("a step's answer cannot be read");
                    session.end(reason);
                    self.is_uncertain = true;
                    Next::Again
                }
            };
        };
        tracing::debug!(%refusal, "step refused");
        self.last = refusal.to_string();
        if refusal.code.outcome() == Outcome::Unknown {
            self.is_uncertain = true;
        }
        if refusal.code.retry() == Retry::Backoff {
            let wait = refusal.retry_after;
            return Next::Later(wait.unwrap_or_else(|| self.backoff.next_wait()));
        }
        self.judge_final(refusal).await
    }

    /// What will not pass by itself.
    async fn judge_final(&mut self, refusal: Refusal) -> Next {
        let code = refusal.code;
        if code == ErrorCode::OffsetMismatch {
            return Next::Fail(self.mismatch(&refusal));
        }
        if let (ErrorCode::StaleOwner, Some(owner), Some(commit)) =
            (code, &self.job.owner, &self.commit)
        {
            // A fence only rises: no earlier attempt can have happened, or will.
            self.is_uncertain = false;
            return Next::Fail(StepError::Commit(owner.step_stale(commit)));
        }
        if code == ErrorCode::ProducerFenced && self.job.lanes.is_named() {
            self.job.lanes.fence();
            return Next::Fail(self.fenced());
        }
        if self.is_uncertain {
            return Next::Fail(self.refused(refusal));
        }
        if matches!(code, ErrorCode::UnknownProducer | ErrorCode::ProducerFenced) {
            return self.begin_anew();
        }
        if is_outdated(code) && !self.is_refreshed {
            self.is_refreshed = true;
            self.body = None;
            match self.arrange(true).await {
                Ok(plan) => self.plan = plan,
                Err(error) => return Next::Fail(error),
            }
            return Next::Again;
        }
        Next::Fail(self.refused(refusal))
    }

    const fn fenced(&self) -> StepError {
        StepError::Fenced {
            is_uncertain: self.is_uncertain,
        }
    }

    fn begin_anew(&mut self) -> Next {
        self.lane.lane.retire();
        self.body = None;
        Next::Later(self.backoff.next_wait())
    }

    fn refused(&self, refusal: Refusal) -> StepError {
        StepError::Refused {
            refusal,
            is_uncertain: self.is_uncertain,
        }
    }

    fn mismatch(&mut self, refusal: &Refusal) -> StepError {
        let next = Offset(refusal.low);
        let mut batches = self.plan.batches.iter();
        let wrong = batches.find(|batch| {
            let is_other = batch.expected.is_some_and(|expected| expected != next);
            is_other
                && refusal
                    .partition
                    .is_none_or(|p| p == batch.partition.partition)
        });
        let Some(wrong) = wrong else {
            return self.refused(refusal.clone());
        };
        // Offsets only grow: what is behind now cannot be met by an attempt still on its way.
        if wrong.expected.is_some_and(|expected| expected < next) {
            self.is_uncertain = false;
        }
        StepError::OffsetMismatch {
            topic: wrong.topic.clone(),
            partition: wrong.partition.partition,
            next,
            is_uncertain: self.is_uncertain,
        }
    }

    fn timed_out(&self) -> StepError {
        let down = self.job.core.link.down_reason();
        StepError::Timeout {
            after: self.job.timeout,
            last: down.map_or_else(|| self.last.clone(), |reason| reason.to_string()),
            is_uncertain: self.is_uncertain,
        }
    }

    fn receipt(&self, acks: &[PublishAck]) -> StepReceipt {
        let places = self.plan.places.iter();
        let records = places.filter_map(|(batch, place)| {
            let ack = acks.get(*batch)?;
            let planned = self.plan.batches.get(*batch)?;
            Some(Receipt {
                partition: planned.partition.partition,
                offset: ack.base_offset.advance(u64::from(*place)),
                append_time_ms: ack.append_time_ms,
                is_duplicate: ack.is_duplicate,
            })
        });
        StepReceipt {
            records: records.collect(),
        }
    }

    /// Leaves lane and owner as the outcome says.
    fn conclude(&mut self, outcome: &Result<StepReceipt, StepError>) {
        match outcome {
            Ok(_) => {
                self.lane.lane.happened(&self.plan);
                if let (Some(owner), Some(commit)) = (&self.job.owner, &self.commit) {
                    owner.step_committed(commit);
                }
            }
            Err(error) => {
                let is_own_fault = error.code() == Some(ErrorCode::OutOfSequence);
                if self.is_uncertain || is_own_fault {
                    self.lane.lane.retire();
                }
                if matches!(error, StepError::Fenced { .. })
                    && let Some(owner) = &self.job.owner
                {
                    owner.step_fenced();
                }
            }
        }
    }
}

/// `None`: the time is over.
fn attempt_of(
    outcome: Result<Result<Next, StepError>, tokio::time::error::Elapsed>,
) -> Option<Next> {
    match outcome {
        Ok(Ok(next)) => Some(next),
        Ok(Err(error)) => Some(Next::Fail(error)),
        Err(_) => None,
    }
}
