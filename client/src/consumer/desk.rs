//! What the consumer holds and what of it the application has: the rules, without sockets, tasks or
//! clock.
//!
//! Owns a queue, a position and the commits of each partition. Promises: partitions take turns;
//! what is revoked, paused or lost is not handed out; a commit goes back after a seek only.

mod commits;
mod held;
mod queue;
mod reading;
#[cfg(test)]
mod tests;

use core::ops::Range;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use falcon_protocol::batch::RecordView;
use falcon_protocol::message::{GroupGrant, GroupProgress, StartPosition};
use falcon_protocol::{Batch, BatchError, MemberId, Offset, Partition, PartitionId};
use tokio::time::Instant;

pub(super) use commits::{Entry, Finished, Pledge};
pub(super) use held::Held;
pub(super) use queue::{Open, Place, Want};
pub(super) use reading::Ask;

use super::builder::OnDamage;
use super::events::TopicPartition;
use super::grant::{Grant, Hold};
use super::tracker::Tracker;
use crate::error::{CommitError, ConsumerError};
use crate::subscription::Delivered;
use queue::Next;

/// What a consumer was told to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) buffer_bytes: u64,
    pub(super) start: StartPosition,
    pub(super) on_damage: OnDamage,
}

/// A batch to be checked outside of the lock.
pub(super) struct Unopened {
    pub(super) hold: Hold,
    version: u64,
    batch: Batch,
}

/// What the application is given.
pub(super) enum Taken {
    Record(Delivered),
    Error(ConsumerError),
    Check(Unopened),
    Nothing,
    /// The stream ends.
    End,
}

/// The record handed out last.
#[derive(Debug, Clone)]
pub(super) struct LastRecord {
    pub(super) partition: TopicPartition,
    pub(super) offset: Offset,
}

pub(super) struct Desk {
    identity: MemberId,
    rules: Rules,
    held: HashMap<PartitionId, Held>,
    names: BTreeMap<TopicPartition, PartitionId>,
    /// Partitions that may have records, in turn.
    ready: VecDeque<PartitionId>,
    /// Partitions that may want to ask the broker.
    hungry: VecDeque<PartitionId>,
    /// Partitions with an offset to be stored.
    dirty: VecDeque<PartitionId>,
    waker: Option<Waker>,
    errors: VecDeque<ConsumerError>,
    fatal: Option<ConsumerError>,
    is_closed: bool,
    /// Left the group until the application asks for records.
    is_dormant: bool,
    wants_resume: bool,
    reached_end: bool,
    last: Option<LastRecord>,
    /// When the application last took something, or could have begun to.
    idle_since: Instant,
    /// A partition that was lost with records that were handed out and not committed.
    lost_uncommitted: Option<CommitError>,
}

/// Checks a batch and opens it; takes its time.
pub(super) fn check(unopened: &Unopened) -> Result<Open, BatchError> {
    queue::open(&unopened.batch, unopened.hold.partition)
}

impl Desk {
    pub(super) fn new(identity: MemberId, rules: Rules, now: Instant) -> Self {
        Self {
            identity,
            rules,
            held: HashMap::new(),
            names: BTreeMap::new(),
            ready: VecDeque::new(),
            hungry: VecDeque::new(),
            dirty: VecDeque::new(),
            waker: None,
            errors: VecDeque::new(),
            fatal: None,
            is_closed: false,
            is_dormant: false,
            wants_resume: false,
            reached_end: false,
            last: None,
            idle_since: now,
            lost_uncommitted: None,
        }
    }

    /// A partition by name.
    pub(super) fn named(&self, topic: &str, partition: Partition) -> Option<&Held> {
        let name = TopicPartition {
            topic: topic.into(),
            partition,
        };
        self.held.get(self.names.get(&name)?)
    }

    /// A partition held under exactly this grant.
    pub(super) fn held(&self, hold: &Hold) -> Option<&Held> {
        let held = self.held.get(&hold.partition)?;
        (held.hold.epoch == hold.epoch).then_some(held)
    }

    fn held_mut(&mut self, hold: &Hold) -> Option<&mut Held> {
        let held = self.held.get_mut(&hold.partition)?;
        (held.hold.epoch == hold.epoch).then_some(held)
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.names.keys().cloned().collect()
    }

    /// The committed offsets of what it holds, in order.
    pub(super) fn committed(&self) -> Vec<(TopicPartition, Offset)> {
        let all = self.names.iter();
        let known = all.filter_map(|(name, id)| {
            let committed = self.held.get(id)?.committed?;
            Some((name.clone(), committed))
        });
        known.collect()
    }

    /// The name of a partition that it holds.
    pub(super) fn name(&self, hold: &Hold) -> Option<TopicPartition> {
        self.held(hold).map(Held::name)
    }

    /// A partition may be read from now on.
    pub(super) fn grant(&mut self, grant: GroupGrant, now: Instant) -> TopicPartition {
        let id = grant.hold.partition;
        let held = Held::new(grant, Place::Start(self.rules.start), now);
        let name = held.name();
        self.names.insert(name.clone(), id);
        self.held.insert(id, held);
        self.feed(id);
        name
    }

    /// A partition goes to another: nothing more is handed out of it.
    pub(super) fn revoke(&mut self, hold: &Hold, now: Instant) -> Option<TopicPartition> {
        let held = self.held_mut(hold)?;
        held.revoked_at.get_or_insert(now);
        let position = held.position();
        if let Some(position) = position {
            // Only the buffer goes: trackers and commits go on.
            held.queue.jump(Place::At(position));
            held.queue.is_asking = true;
        }
        let name = held.name();
        self.wake();
        Some(name)
    }

    /// A partition is not held any more, given up or taken away.
    pub(super) fn remove(&mut self, hold: &Hold) -> Option<TopicPartition> {
        self.held(hold)?;
        let held = self.held.remove(&hold.partition)?;
        let name = held.name();
        self.names.remove(&name);
        if held.tracker.is_none() && !held.is_settled() {
            self.lost_uncommitted.get_or_insert(held.stale());
        }
        let stale = held.stale();
        for waiter in held.wanted.into_iter().flat_map(|wanted| wanted.waiters) {
            // Whoever asked may have given up.
            waiter.send(Err(stale.clone())).ok();
        }
        self.wake();
        Some(name)
    }

    /// Revoked partitions that can be given up now, for what they wait for is over. `patience`: how
    /// long commits are waited for that only the application can make.
    pub(super) fn releasable(&self, patience: Duration, now: Instant) -> Vec<Hold> {
        let all = self.held.values();
        let over = all.filter(|held| {
            let Some(since) = held.revoked_at else {
                return false;
            };
            let is_idle = held.wanted.is_none() && !held.is_committing && held.unfinished() == 0;
            let is_late = since + patience <= now;
            is_idle && (held.is_settled() || held.tracker.is_some() || is_late)
        });
        over.map(|held| held.hold).collect()
    }

    pub(super) fn has_revoked(&self) -> bool {
        self.held.values().any(|held| !held.is_live())
    }

    /// What comes next for the application. `limit`: how many records of a partition may be
    /// unfinished, where handlers finish them.
    pub(super) fn take(&mut self, now: Instant, limit: Option<usize>) -> Taken {
        if let Some(error) = &self.fatal {
            return Taken::Error(error.clone());
        }
        if self.is_closed {
            return Taken::End;
        }
        if let Some(error) = self.errors.pop_front() {
            self.idle_since = now;
            return Taken::Error(error);
        }
        self.wants_resume |= std::mem::take(&mut self.is_dormant);
        while let Some(id) = self.ready.front().copied() {
            let Some(held) = self.held.get_mut(&id).filter(|held| held.hands_out(limit)) else {
                self.not_ready(id);
                continue;
            };
            let version = held.queue.version;
            match held.queue.next() {
                Next::Record(view, append_time_ms) => {
                    let grant = Grant {
                        member: self.identity,
                        hold: held.hold,
                        version: held.reading,
                    };
                    let record = hand_out(held, view, append_time_ms, grant, limit.is_some());
                    held.touched = now;
                    self.idle_since = now;
                    self.last = Some(LastRecord {
                        partition: held.name(),
                        offset: record.offset,
                    });
                    return Taken::Record(record);
                }
                Next::Check(batch) => {
                    let hold = held.hold;
                    return Taken::Check(Unopened {
                        hold,
                        version,
                        batch,
                    });
                }
                Next::BatchEnd => {
                    self.ready.rotate_left(1);
                    self.feed(id);
                    self.note_end(id);
                }
                Next::Damaged(damage) => {
                    tracing::warn!(partition = %held.name(), %damage, "records cannot be read; they are asked for again");
                    self.reread(id);
                }
                Next::Nothing => self.not_ready(id),
            }
        }
        Taken::Nothing
    }

    fn not_ready(&mut self, id: PartitionId) {
        self.ready.pop_front();
        if let Some(held) = self.held.get_mut(&id) {
            held.is_ready = false;
        }
        self.feed(id);
    }

    /// A batch was checked. `Some`: these records are missing or damaged.
    pub(super) fn checked(
        &mut self,
        unopened: &Unopened,
        outcome: Result<Open, BatchError>,
    ) -> Option<(TopicPartition, Range<Offset>)> {
        let held = self.held_mut(&unopened.hold)?;
        if held.queue.version != unopened.version {
            return None;
        }
        let header = unopened.batch.header();
        let missing = match outcome {
            Ok(open) => held.queue.opened(open, header.base_offset)?,
            Err(_) => held.position()?..header.end_offset(),
        };
        let name = held.name();
        self.reread(unopened.hold.partition);
        Some((name, missing))
    }

    /// Puts a partition into the queue of those that may have records.
    fn offer(&mut self, id: PartitionId) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        if !held.is_ready && held.hands_out(None) {
            held.is_ready = true;
            self.ready.push_back(id);
        }
        if !self.ready.is_empty() {
            self.wake();
        }
    }

    fn note_end(&mut self, id: PartitionId) {
        let is_at_end = |held: &Held| held.queue.is_caught_up();
        if self.held.get(&id).is_some_and(is_at_end) && self.held.values().all(is_at_end) {
            self.reached_end = true;
        }
    }

    /// Whether partitions want to ask; the group is to be joined again; the end was reached.
    pub(super) fn take_notes(&mut self) -> (bool, bool, bool) {
        (!self.hungry.is_empty(), self.wants_resume, self.take_end())
    }

    /// Whether the end was reached since the last call.
    pub(super) fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.reached_end)
    }

    /// Goes on from another place; the next commit may be lower.
    pub(super) fn seek(&mut self, hold: &Hold, place: Place) -> bool {
        let Some(held) = self.held_mut(hold) else {
            return false;
        };
        held.jump(place);
        held.may_rewind = true;
        self.feed(hold.partition);
        true
    }

    /// What was taken for handlers and not finished is handed out again.
    pub(super) fn give_back(&mut self) {
        let ids: Vec<PartitionId> = self.held.keys().copied().collect();
        for id in ids {
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            if let Some(tracker) = held.tracker.take().filter(|t| t.unfinished() > 0) {
                held.jump(Place::At(tracker.prefix()));
                self.feed(id);
            }
        }
    }

    pub(super) fn set_paused(&mut self, hold: &Hold, is_paused: bool, now: Instant) {
        if let Some(held) = self.held_mut(hold) {
            held.is_paused = is_paused;
            held.touched = now;
            self.offer(hold.partition);
        }
    }

    pub(super) fn progress(&self, now: Instant) -> Vec<GroupProgress> {
        let is_taking = self.waker.is_some();
        let all = self.held.values();
        all.map(|held| held.progress(is_taking, now)).collect()
    }

    /// Records behind the ends, as last heard.
    pub(super) fn lag(&self) -> u64 {
        self.held.values().map(|held| held.queue.lag()).sum()
    }

    /// For how long the application has taken nothing although there is something, and what it was
    /// given last.
    pub(super) fn idle(&self, now: Instant) -> Option<(Duration, LastRecord)> {
        let last = self.last.clone()?;
        let is_waiting = self.waker.is_some();
        let has_some = self.held.values().any(|held| held.hands_out(None));
        let is_idle = has_some && !is_waiting && !self.is_dormant && !self.is_closed;
        is_idle.then(|| (now.saturating_duration_since(self.idle_since), last))
    }

    /// The partitions were given up because the application was too slow.
    pub(super) fn rest(&mut self, error: ConsumerError) {
        self.is_dormant = true;
        self.errors.push_back(error);
        // Nothing more is handed out, although the broker is told only after this.
        let now = crate::clock::now();
        for held in self.held.values_mut() {
            held.revoked_at.get_or_insert(now);
        }
        self.wake();
    }

    /// An error that every later call ends with; the first stays.
    pub(super) fn fail(&mut self, error: ConsumerError) {
        self.fatal.get_or_insert(error);
        self.wake();
    }

    /// The same, unless it was closed.
    pub(super) fn fail_if_open(&mut self, error: ConsumerError) {
        if !self.is_closed {
            self.fail(error);
        }
    }

    /// The error that every call ended with; from now on the stream is at its end.
    pub(super) fn take_fatal(&mut self) -> Option<ConsumerError> {
        self.fatal.take()
    }

    /// Whether the application asked for records since the partitions were given up.
    pub(super) fn take_resume(&mut self) -> bool {
        std::mem::take(&mut self.wants_resume)
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.wake();
    }

    pub(super) fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.idle_since = crate::clock::now();
            waker.wake();
        }
    }
}

fn hand_out(
    held: &mut Held,
    view: RecordView,
    append_time_ms: i64,
    grant: Grant,
    is_tracked: bool,
) -> Delivered {
    if is_tracked {
        let tracker = held
            .tracker
            .get_or_insert_with(|| Tracker::new(view.offset));
        tracker.take(view.offset);
    }
    held.handed = Some(view.offset.advance(1));
    Delivered {
        topic: Arc::clone(&held.topic),
        partition: held.hold.partition.partition,
        offset: view.offset,
        timestamp_ms: view.timestamp_ms,
        append_time_ms,
        key: view.key,
        value: view.value,
        headers: view.headers,
        grant: Some(grant),
    }
}
