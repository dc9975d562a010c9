//! The task that is a member: joins, says what is held, gives up and takes in partitions.
//!
//! It waits for nothing the application does, so heartbeats go on whatever that is.

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::codes::{ErrorCode, Retry};
use falcon_protocol::message::{Empty, GroupNews, decode, encode};
use falcon_protocol::{Kind, MemberId};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::builder::AutoCommit;
use super::events::ConsumerEvent;
use super::grant::Hold;
use super::member::{Answer, End, Input, Member, Output, Wish};
use super::shared::Shared;
use crate::clock;
use crate::core::start_when_room;
use crate::error::{ConsumerError, Error, Refusal};
use crate::sync::lock;

/// How long a revoked partition waits for commits that only the application can make.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often revoked partitions, and the time since the last record was taken, are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often at most a consumer says that it lags.
const LAG_EVERY: Duration = Duration::from_secs(5);

type Asked = BoxFuture<'static, (u64, Result<Answer, Refusal>)>;
/// Who waits for the first answer of the group.
pub(super) type Joined = oneshot::Sender<Result<(), ConsumerError>>;

pub(super) struct Membership {
    shared: Arc<Shared>,
    wish: Wish,
    member: Member,
    begun: Instant,
    asked: Option<Asked>,
    joined: Option<Joined>,
    /// What the broker said when it refused for good.
    refusal: Option<Refusal>,
    /// It left because the application was too slow, and waits for it.
    is_resting: bool,
    lag: u64,
    lag_told: Instant,
}

fn random_id() -> MemberId {
    MemberId(fastrand::u128(..))
}

impl Membership {
    pub(super) fn new(shared: Arc<Shared>, wish: Wish, joined: Joined) -> Self {
        let member = Member::new(shared.group.clone(), random_id(), wish.clone());
        Self {
            shared,
            wish,
            member,
            begun: clock::now(),
            asked: None,
            joined: Some(joined),
            refusal: None,
            is_resting: false,
            lag: 0,
            lag_told: clock::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.begun);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Is a member until it is told to leave, or cannot go on.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let draining = shared.core.draining.clone();
        let stopped = async {
            // CANCEL SAFETY: both only wait.
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = shared.core.stop.cancelled() => {}
            }
        };
        // CANCEL SAFETY: what is cut short belongs to a member that is gone.
        tokio::select! {
            () = stopped => {}
            () = self.serve(&draining) => {}
        }
        lock(&shared.desk).fail_if_open(ConsumerError::Closed);
        shared.left.cancel();
        shared.stop.cancel();
    }

    async fn serve(&mut self, draining: &tokio_util::sync::CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut is_leaving = false;
        loop {
            self.feed();
            while let Some(output) = self.member.poll(self.now_ms()) {
                if self.act(output) {
                    return;
                }
            }
            let timer = self.member.next_timer().map_or_else(
                || clock::deadline_in(LOOK),
                |at| self.begun + Duration::from_millis(at),
            );
            let look = clock::deadline_in(LOOK);
            let asked = async {
                match &mut self.asked {
                    Some(asked) => asked.await,
                    None => std::future::pending().await,
                }
            };
            let leave = async {
                // CANCEL SAFETY: both only wait.
                tokio::select! {
                    () = shared.leaving.cancelled() => {}
                    () = draining.cancelled() => {}
                }
            };
            // CANCEL SAFETY: the request stays in `asked`; a notification not consumed stays.
            tokio::select! {
                (sequence, answer) = asked => {
                    self.asked = None;
                    self.answered(sequence, answer);
                }
                () = shared.membership.notified() => {}
                () = sleep_until(timer.min(look)) => {}
                () = leave, if !is_leaving => {
                    is_leaving = true;
                    if self.is_resting {
                        return;
                    }
                    self.member.handle(self.now_ms(), Input::Leave);
                }
            }
        }
    }

    /// Tells the member what has changed on this side.
    fn feed(&mut self) {
        let now = self.now_ms();
        let stale = std::mem::take(&mut *lock(&self.shared.stale));
        for hold in stale {
            self.member.handle(now, Input::Stale(hold.to_wire()));
        }
        if self.is_resting {
            if lock(&self.shared.desk).take_resume() {
                self.is_resting = false;
                self.member =
                    Member::new(self.shared.group.clone(), random_id(), self.wish.clone());
            }
            return;
        }
        self.give_up();
        self.watch_pace();
    }

    /// Gives up what was revoked and is finished.
    fn give_up(&mut self) {
        let now = clock::now();
        let mut desk = lock(&self.shared.desk);
        if !desk.has_revoked() {
            return;
        }
        if matches!(self.shared.auto_commit, AutoCommit::Handled { .. }) && desk.want_finished() {
            self.shared.dirty.notify_one();
        }
        let over = desk.releasable(PATIENCE, now);
        let mut names = Vec::with_capacity(over.len());
        for hold in &over {
            // ORDER: nothing of it is handed out or committed once the broker may give it away.
            let name = desk.remove(hold);
            names.extend(name.map(|partition| (partition, hold.epoch)));
        }
        drop(desk);
        let now_ms = self.now_ms();
        for hold in over {
            self.member.handle(now_ms, Input::Released(hold.to_wire()));
        }
        for (partition, epoch) in names {
            tracing::info!(group = self.shared.group, %partition, "given up");
            self.shared.tell(ConsumerEvent::Lost { partition, epoch });
        }
    }

    /// Leaves when the application has taken nothing for too long; says when it lags.
    fn watch_pace(&mut self) {
        let now = clock::now();
        let (idle, lag) = {
            let desk = lock(&self.shared.desk);
            (desk.idle(now), desk.lag())
        };
        if now >= self.lag_told + LAG_EVERY {
            if lag > self.lag && self.lag > 0 {
                self.shared.tell(ConsumerEvent::Lagging { records: lag });
            }
            (self.lag, self.lag_told) = (lag, now);
        }
        let Some(limit) = self.shared.max_poll_interval else {
            return;
        };
        let Some((after, last)) = idle.filter(|(after, _)| *after >= limit) else {
            return;
        };
        let (partition, offset) = (last.partition, last.offset);
        tracing::error!(
            group = self.shared.group, %partition, %offset, after_ms = after.as_millis(),
            "no record was taken for max_poll_interval, this was the last: the partitions are given up"
        );
        let error = ConsumerError::PollTooSlow {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset,
            after,
        };
        // ORDER: who sees the event finds the error, and no further record.
        lock(&self.shared.desk).rest(error);
        self.shared.tell(ConsumerEvent::PollTooSlow {
            partition,
            offset,
            after,
        });
        self.is_resting = true;
        self.member.handle(self.now_ms(), Input::Leave);
    }

    /// Does what the member says. `true`: it has ended.
    fn act(&mut self, output: Output) -> bool {
        let group = &self.shared.group;
        match output {
            Output::Join(mut join) => {
                join.report.progress = lock(&self.shared.desk).progress(clock::now());
                self.ask(Kind::JoinGroup, join.report.sequence, &join);
            }
            Output::Heartbeat(mut report) => {
                report.progress = lock(&self.shared.desk).progress(clock::now());
                self.ask(Kind::GroupReport, report.sequence, &report);
            }
            Output::Leave(sequence, leave) => self.ask(Kind::LeaveGroup, sequence, &leave),
            Output::Joined => {
                tracing::info!(group, member = %self.member.id(), "joined");
                if let Some(joined) = self.joined.take() {
                    // Whoever asked may have given up.
                    joined.send(Ok(())).ok();
                }
            }
            Output::Rejoining => {
                tracing::info!(group, "the broker does not know the member; joining again");
            }
            Output::Unconfirmed => tracing::warn!(
                group,
                "no answer for a session; others may have the partitions"
            ),
            Output::Confirmed => tracing::info!(group, "what is held is confirmed"),
            Output::Granted(grant) => {
                let (committed, epoch) = (grant.committed, grant.hold.epoch);
                let partition = lock(&self.shared.desk).grant(grant, clock::now());
                tracing::info!(group, %partition, ?committed, "assigned");
                self.shared.hungry.notify_one();
                self.shared.tell(ConsumerEvent::Assigned {
                    partition,
                    epoch,
                    committed,
                });
            }
            Output::Revoke(hold) => {
                let name = lock(&self.shared.desk).revoke(&Hold::of(&hold), clock::now());
                match name {
                    Some(partition) => {
                        tracing::info!(group, %partition, "revoked");
                        self.shared.tell(ConsumerEvent::Revoked {
                            partition,
                            epoch: hold.epoch,
                        });
                        self.shared.running.notify_one();
                        self.give_up();
                    }
                    None => self.member.handle(self.now_ms(), Input::Released(hold)),
                }
            }
            Output::Lost(hold) | Output::Fenced(hold) => {
                let name = lock(&self.shared.desk).remove(&Hold::of(&hold));
                if let Some(partition) = name {
                    tracing::warn!(group, %partition, "lost");
                    let epoch = hold.epoch;
                    self.shared.tell(ConsumerEvent::Lost { partition, epoch });
                    self.shared.running.notify_one();
                }
            }
            Output::Ended(end) => return self.ended(end),
        }
        false
    }

    fn ended(&mut self, end: End) -> bool {
        let error = match end {
            // Until the application asks for records again.
            End::Left if self.is_resting => return false,
            End::Left => ConsumerError::Closed,
            End::InstanceTaken => ConsumerError::InstanceTaken {
                instance: self.wish.instance.clone().unwrap_or_default(),
            },
            End::Refused(code) => {
                let refusal = self.refusal.take();
                let refusal = refusal.unwrap_or_else(|| Refusal::bare(code));
                ConsumerError::Refused(Error::Refused(refusal))
            }
        };
        if let Some(joined) = self.joined.take() {
            joined.send(Err(error.clone())).ok();
        }
        if !matches!(end, End::Left) {
            self.shared.fail(error);
        }
        true
    }

    fn ask(&mut self, kind: Kind, sequence: u64, message: &impl Serialize) {
        let Ok(body) = encode(message) else {
            tracing::error!(
                group = self.shared.group,
                ?kind,
                "a group request is too large"
            );
            let failed = async move { (sequence, Ok(Answer::Failed)) };
            self.asked = Some(Box::pin(failed));
            return;
        };
        let core = Arc::clone(&self.shared.core);
        // An older request is dropped with this: its answer does not matter any more.
        self.asked = Some(Box::pin(async move {
            let answer = async {
                let session = core.link.session().await.ok()?;
                let Some(answer) = start_when_room(&session, kind, &body).await else {
                    core.link.left(&session).await;
                    return None;
                };
                answer.await.ok()
            };
            let answer = match answer.await {
                None => Ok(Answer::Failed),
                Some(frame) => match Refusal::of(&frame) {
                    Some(refusal) => Err(refusal),
                    None if kind == Kind::LeaveGroup => Ok(decode::<Empty>(&frame.body)
                        .map_or(Answer::Failed, |Empty {}| Answer::Left)),
                    None => {
                        Ok(decode::<GroupNews>(&frame.body).map_or(Answer::Failed, Answer::News))
                    }
                },
            };
            (sequence, answer)
        }));
    }

    fn answered(&mut self, sequence: u64, answer: Result<Answer, Refusal>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::debug!(group = self.shared.group, %refusal, "a group request was refused");
                let answer = match (refusal.code, refusal.code.retry()) {
                    (ErrorCode::UnknownMember, _) => Answer::UnknownMember,
                    (ErrorCode::Superseded, _) => Answer::Superseded,
                    (ErrorCode::InstanceTaken, _) => Answer::InstanceTaken,
                    (_, Retry::Backoff | Retry::Rejoin) => Answer::Failed,
                    (code, Retry::Never) => Answer::Refused(code),
                };
                self.refusal = Some(refusal);
                answer
            }
        };
        self.member
            .handle(self.now_ms(), Input::Answered(sequence, answer));
    }
}
