//! A member of a consumer group, without clock, sockets or tasks.
//!
//! Owns what the member holds, its sequences, when it asks again. Promises: one request counts at a time, the last;
//! every change of what is held comes out as an event, once and in order; it goes on for ever unless it is told
//! to leave or the broker's answer is final. Time is milliseconds of any clock that never runs backwards. Must not
//! know: positions, handlers, connections.
//!
//! Who drives it feeds [`Input`]s, then takes [`Output`]s with [`Member::poll`] until there are none, then waits
//! for the next input or until [`Member::next_timer`]. Inputs that come together cost one request.
//!
//! It keeps what it holds when its session must have ended: it says [`Output::Unconfirmed`], and goes on.
//! When only the broker was away, nobody else has the partitions; when somebody has, the fence refuses the commits.

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use falcon_protocol::message::{GroupHold, GroupNews, GroupReport, JoinGroup, LeaveGroup};
use falcon_protocol::{MemberId, OwnerEpoch, PartitionId};

pub use message::{Answer, End, Input, Output, Wish};

/// First wait after a failure, milliseconds; doubles with each, up to an eighth of the session.
const RETRY_MS: u64 = 100;

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: OwnerEpoch,
    is_revoked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The broker does not know the member, or not what it wants now.
    Joining,
    Joined,
    /// Until the broker answered, or the session is over by itself.
    Leaving {
        until: u64,
    },
    Ended,
}

/// When the next request goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Now,
    /// A request is out, or one has failed.
    At(u64),
}

/// One member of one group, from its first join to its end.
#[derive(Debug)]
pub struct Member {
    group: String,
    id: MemberId,
    wish: Wish,
    phase: Phase,
    /// Of the last request; none was sent while it is 0.
    sequence: u64,
    sent_at: u64,
    /// The last sequence whose answer was taken in.
    seen: u64,
    next: Next,
    failures: u32,
    holds: BTreeMap<PartitionId, Held>,
    /// Until when the broker must count it as a member; `None` before the first answer and when that is over.
    confirmed_until: Option<u64>,
    is_unconfirmed: bool,
    events: VecDeque<Output>,
}

impl Member {
    /// A member that will join; `id` is chosen at random and belongs to this member alone.
    pub fn new(group: impl Into<String>, id: MemberId, wish: Wish) -> Self {
        Self {
            group: group.into(),
            id,
            wish,
            phase: Phase::Joining,
            sequence: 0,
            sent_at: 0,
            seen: 0,
            next: Next::Now,
            failures: 0,
            holds: BTreeMap::new(),
            confirmed_until: None,
            is_unconfirmed: false,
            events: VecDeque::new(),
        }
    }

    /// Its id.
    pub const fn id(&self) -> MemberId {
        self.id
    }

    /// The epoch under which it holds a partition.
    pub fn epoch(&self, partition: PartitionId) -> Option<OwnerEpoch> {
        self.holds.get(&partition).map(|held| held.epoch)
    }

    /// Everything it holds, also what it is about to give up.
    pub fn holds(&self) -> impl Iterator<Item = GroupHold> {
        self.holds.iter().map(|(partition, held)| GroupHold {
            partition: *partition,
            epoch: held.epoch,
        })
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: u64, input: Input) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Answered(sequence, answer) => self.answered(now, sequence, answer),
            Input::Wish(wish) if self.is_leaving() => self.wish = wish,
            Input::Wish(wish) => {
                (self.wish, self.phase, self.next) = (wish, Phase::Joining, Next::Now);
            }
            Input::Released(hold) => {
                if self.drop_hold(&hold) {
                    self.next = Next::Now;
                }
            }
            Input::Stale(hold) => {
                if self.drop_hold(&hold) {
                    self.events.push_back(Output::Fenced(hold));
                    self.next = Next::Now;
                }
            }
            Input::Leave if self.is_leaving() => {}
            Input::Leave => self.leave(now),
        }
    }

    /// The next thing to do or to know; `None`: nothing until the next input or [`Self::next_timer`].
    pub fn poll(&mut self, now: u64) -> Option<Output> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.phase == Phase::Ended {
            return None;
        }
        if matches!(self.phase, Phase::Leaving { until } if until <= now) {
            self.end(End::Left);
            return self.events.pop_front();
        }
        if self.confirmed_until.is_some_and(|until| until <= now) {
            (self.confirmed_until, self.is_unconfirmed) = (None, true);
            return Some(Output::Unconfirmed);
        }
        let is_due = match self.next {
            Next::Now => true,
            Next::At(at) => at <= now,
        };
        is_due.then(|| self.request(now))
    }

    /// When [`Self::poll`] has something to say without any input; `None` once it has ended.
    pub fn next_timer(&self) -> Option<u64> {
        if !self.events.is_empty() {
            return Some(0);
        }
        let next = match self.next {
            Next::Now => 0,
            Next::At(at) => at,
        };
        let leave = match self.phase {
            Phase::Ended => return None,
            Phase::Leaving { until } => Some(until),
            Phase::Joining | Phase::Joined => None,
        };
        let others = [self.confirmed_until, leave];
        others.into_iter().flatten().chain([next]).min()
    }

    const fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
    }

    fn leave(&mut self, now: u64) {
        self.drop_all();
        if self.sequence == 0 {
            return self.end(End::Left);
        }
        let until = now.saturating_add(self.wish.session_ms);
        (self.phase, self.next, self.confirmed_until) = (Phase::Leaving { until }, Next::Now, None);
    }

    fn answered(&mut self, now: u64, sequence: u64, answer: Answer) {
        // Who took the name has it, whichever request the answer belongs to.
        if answer == Answer::InstanceTaken && !self.is_leaving() {
            self.drop_all();
            return self.end(End::InstanceTaken);
        }
        if sequence != self.sequence {
            return;
        }
        match answer {
            Answer::Left | Answer::UnknownMember | Answer::InstanceTaken if self.is_leaving() => {
                self.end(End::Left);
            }
            Answer::Refused(code) => {
                self.drop_all();
                self.end(End::Refused(code));
            }
            Answer::News(news) if news.sequence == sequence && !self.is_leaving() => {
                self.take_in(news);
            }
            Answer::UnknownMember => {
                if self.phase == Phase::Joined {
                    self.events.push_back(Output::Rejoining);
                    self.next = Next::Now;
                } else {
                    self.fail(now);
                }
                self.phase = Phase::Joining;
            }
            Answer::News(_)
            | Answer::Left
            | Answer::Superseded
            | Answer::Failed
            | Answer::InstanceTaken => self.fail(now),
        }
    }

    fn fail(&mut self, now: u64) {
        let longest = (self.wish.session_ms / 8).max(RETRY_MS);
        let wait = RETRY_MS << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.next = Next::At(now.saturating_add(wait.min(longest)));
    }

    fn take_in(&mut self, news: GroupNews) {
        if self.phase == Phase::Joining {
            self.events.push_back(Output::Joined);
        } else if self.is_unconfirmed {
            self.events.push_back(Output::Confirmed);
        }
        (self.phase, self.seen, self.failures) = (Phase::Joined, news.sequence, 0);
        (self.next, self.is_unconfirmed) = (Next::Now, false);
        self.confirmed_until = Some(self.sent_at.saturating_add(self.wish.session_ms));
        for hold in news.lost {
            if self.drop_hold(&hold) {
                self.events.push_back(Output::Lost(hold));
            }
        }
        for grant in news.granted {
            let GroupHold { partition, epoch } = grant.hold;
            if let Some(old) = self.epoch(partition) {
                if old >= epoch {
                    continue;
                }
                let hold = GroupHold {
                    partition,
                    epoch: old,
                };
                self.events.push_back(Output::Lost(hold));
            }
            let is_revoked = false;
            self.holds.insert(partition, Held { epoch, is_revoked });
            self.events.push_back(Output::Granted(grant));
        }
        // ORDER: what was granted in the same answer may be revoked.
        for hold in news.revoked {
            let held = self.holds.get_mut(&hold.partition);
            if let Some(held) = held.filter(|held| held.epoch == hold.epoch && !held.is_revoked) {
                held.is_revoked = true;
                self.events.push_back(Output::Revoke(hold));
            }
        }
    }

    /// Whether it was held under that epoch.
    fn drop_hold(&mut self, hold: &GroupHold) -> bool {
        let is_held = self.epoch(hold.partition) == Some(hold.epoch);
        if is_held {
            self.holds.remove(&hold.partition);
        }
        is_held
    }

    fn drop_all(&mut self) {
        let holds: Vec<GroupHold> = self.holds().collect();
        self.holds.clear();
        self.events.extend(holds.into_iter().map(Output::Lost));
    }

    fn end(&mut self, end: End) {
        self.phase = Phase::Ended;
        self.events.push_back(Output::Ended(end));
    }

    fn request(&mut self, now: u64) -> Output {
        self.sequence += 1;
        self.sent_at = now;
        // The broker answers after a third of the session at the latest; the rest is for the way.
        self.next = Next::At(now.saturating_add(self.wish.session_ms.saturating_mul(5) / 12));
        if self.is_leaving() {
            let (group, member) = (self.group.clone(), self.id);
            let leave = LeaveGroup { group, member };
            return Output::Leave(self.sequence, leave);
        }
        let report = GroupReport {
            group: self.group.clone(),
            member: self.id,
            sequence: self.sequence,
            seen: self.seen,
            holds: self.holds().collect(),
            progress: Vec::new(),
        };
        if self.phase == Phase::Joined {
            return Output::Heartbeat(report);
        }
        let wish = self.wish.clone();
        Output::Join(JoinGroup {
            report,
            instance: wish.instance,
            patterns: wish.patterns,
            assignor: wish.assignor,
            session_ms: wish.session_ms,
        })
    }
}
