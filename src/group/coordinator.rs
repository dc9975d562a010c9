//! Who of which group is there, and who is granted what: the coordinator of all groups.
//!
//! Owns what may be lost: members, sessions, targets. Promises: a partition is granted only when its
//! fence is durable; every call is answered once; only what moves is paused. A state machine: time
//! comes in as milliseconds of any clock that never runs backwards, and what is to be done comes out.
//! Must not know: the writer, sockets, where time comes from.

mod describe;
mod event;
mod membership;
mod message;
mod moving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use falcon_protocol::limits::{
    GROUPS_MAX, INSTANCE_NAME_BYTES_MAX, MEMBER_PATTERNS_MAX, SESSION_MS_MAX, SESSION_MS_MIN,
};
use falcon_protocol::{MemberId, OwnerEpoch, PartitionId};

pub use describe::{Figures, MemberView};
pub use event::{Event, Happened};
pub use message::{
    FenceOutcome, Grant, Hold, Input, JoinError, News, Output, Reply, Report, Ticket, Wish,
};
pub use moving::Standing;

use crate::catalog::Catalog;
use membership::Group;

/// Times of the coordinator, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long an owner may take to give a partition up.
    pub revoke_ms: u64,
    /// How long, after the first join, a partition waits for the one who may hold it from before.
    pub settle_ms: u64,
    /// How long until a refused fence is tried again.
    pub retry_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            revoke_ms: 30_000,
            settle_ms: 2000,
            retry_ms: 500,
        }
    }
}

/// Of all groups.
#[derive(Debug)]
pub struct Coordinator {
    times: Times,
    catalog: Arc<Catalog>,
    groups: BTreeMap<String, Group>,
    /// When which group wants to be looked at.
    wakes: BTreeSet<(u64, String)>,
    active: usize,
    /// Partitions that something is known of, of all groups.
    partitions: usize,
    /// LIMIT: how many they may be; those read at the start are there anyway.
    partitions_max: usize,
    events: Vec<Event>,
}

/// What one input did.
struct Turn<'a> {
    now: u64,
    times: Times,
    catalog: &'a Catalog,
    out: Vec<Output>,
    events: Vec<Happened>,
    /// How many partitions a group may come to know.
    room: usize,
}

impl Coordinator {
    /// With the fences that are durable.
    pub fn new(
        times: Times,
        catalog: Arc<Catalog>,
        fences: impl IntoIterator<Item = (String, PartitionId, OwnerEpoch)>,
    ) -> Self {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for (name, partition, epoch) in fences {
            let group = groups.entry(name);
            group.or_default().restore(Hold { partition, epoch });
        }
        let partitions = groups.values().map(Group::partition_count).sum();
        Self {
            times,
            catalog,
            groups,
            wakes: BTreeSet::new(),
            active: 0,
            partitions,
            partitions_max: usize::MAX,
            events: Vec::new(),
        }
    }

    /// Holds no more partitions of all groups together than this; those beyond get no owner.
    #[must_use]
    pub fn with_partitions_max(mut self, partitions_max: usize) -> Self {
        self.partitions_max = partitions_max;
        self
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits.
    pub fn next_timer(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// How each partition of a group stands, for people; nothing for a group that is not known.
    pub fn standings(&self, group: &str) -> Vec<(PartitionId, Standing)> {
        let group = self.groups.get(group);
        group.map(Group::standings).unwrap_or_default()
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: u64, input: Input) -> Vec<Output> {
        match input {
            Input::Join(ticket, report, wish) => {
                let is_new = !self.is_active(&report.group);
                if let Err(refusal) = check(&wish, is_new && self.active >= GROUPS_MAX) {
                    return vec![Output::Answer(ticket, Reply::Refused(refusal))];
                }
                let name = report.group.clone();
                self.groups.entry(name.clone()).or_default();
                self.turn(now, &name, |group, turn| {
                    group.join(ticket, report, wish, turn);
                })
            }
            Input::Heartbeat(ticket, report) => {
                if !self.groups.contains_key(&report.group) {
                    return vec![Output::Answer(ticket, Reply::UnknownMember)];
                }
                let name = report.group.clone();
                self.turn(now, &name, |group, turn| {
                    group.heartbeat(ticket, report, turn);
                })
            }
            Input::Leave(ticket, name, member) => {
                let leave = |group: &mut Group, turn: &mut Turn<'_>| group.leave(member, turn);
                let mut out = self.turn(now, &name, leave);
                out.push(Output::Answer(ticket, Reply::Left));
                out
            }
            Input::Catalog(catalog) => {
                self.catalog = catalog;
                let names: Vec<String> = self.groups.keys().cloned().collect();
                let change = |group: &mut Group, turn: &mut Turn<'_>| group.topics_changed(turn);
                let turns = names.iter().map(|name| self.turn(now, name, change));
                turns.collect::<Vec<_>>().concat()
            }
            Input::Fenced(name, hold, committed) => self.turn(now, &name, |group, _| {
                group.fenced(hold, committed, now);
            }),
            Input::FenceRefused(name, hold, fence) => self.turn(now, &name, |group, turn| {
                group.fence_refused(hold, fence, turn);
            }),
            Input::Raised(name, fences) => {
                let raise = |group: &mut Group, _: &mut Turn<'_>| group.raised(&fences);
                self.turn(now, &name, raise)
            }
            Input::Deleted(name) => self.turn(now, &name, |group, _| group.deleted()),
            Input::Tick => self.tick(now),
        }
    }

    /// Takes in what the writer answered to fences of one group, in one step for all.
    pub fn handle_fences(
        &mut self,
        now: u64,
        name: &str,
        outcomes: Vec<FenceOutcome>,
    ) -> Vec<Output> {
        self.turn(now, name, |group, turn| {
            for outcome in outcomes {
                match outcome {
                    FenceOutcome::Durable(hold, committed) => group.fenced(hold, committed, now),
                    FenceOutcome::Refused(hold, fence) => group.fence_refused(hold, fence, turn),
                }
            }
        })
    }

    fn tick(&mut self, now: u64) -> Vec<Output> {
        let mut out = Vec::new();
        let mut due: Vec<String> = Vec::new();
        due.extend(
            self.wakes
                .iter()
                .take_while(|(at, _)| *at <= now)
                .map(|(_, name)| name.clone()),
        );
        for name in due {
            out.extend(self.turn(now, &name, |_, _| ()));
        }
        out
    }

    fn is_active(&self, name: &str) -> bool {
        self.groups.get(name).is_some_and(Group::is_active)
    }

    fn turn(
        &mut self,
        now: u64,
        name: &str,
        change: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) -> Vec<Output> {
        let mut turn = Turn {
            now,
            times: self.times,
            catalog: &self.catalog,
            out: Vec::new(),
            events: Vec::new(),
            room: self.partitions_max.saturating_sub(self.partitions),
        };
        let Some(group) = self.groups.get_mut(name) else {
            return turn.out;
        };
        let (was_active, before) = (group.is_active(), group.partition_count());
        let wake = group.wake.take();
        change(group, &mut turn);
        group.expire(&mut turn);
        let fences = group.advance(&mut turn);
        group.answer(&mut turn);
        if !fences.is_empty() {
            turn.out.push(Output::Fence(name.to_owned(), fences));
        }
        self.active = self.active + usize::from(group.is_active()) - usize::from(was_active);
        self.partitions = self.partitions + group.partition_count() - before;
        if let Some(wake) = wake {
            self.wakes.remove(&(wake, name.to_owned()));
        }
        group.wake = group.next_wake(now);
        if let Some(wake) = group.wake {
            self.wakes.insert((wake, name.to_owned()));
        } else if group.is_forgettable() {
            self.groups.remove(name);
        }
        let event = |what| Event {
            group: name.to_owned(),
            what,
        };
        self.events.extend(turn.events.into_iter().map(event));
        turn.out
    }
}

fn check(wish: &Wish, is_full: bool) -> Result<(), JoinError> {
    if is_full {
        return Err(JoinError::TooManyGroups { max: GROUPS_MAX });
    }
    let given = wish.patterns.len();
    if given == 0 || given > MEMBER_PATTERNS_MAX {
        let max = MEMBER_PATTERNS_MAX;
        return Err(JoinError::Patterns { given, max });
    }
    let bytes = wish.instance.as_ref().map_or(1, String::len);
    if bytes == 0 || bytes > INSTANCE_NAME_BYTES_MAX {
        let max = INSTANCE_NAME_BYTES_MAX;
        return Err(JoinError::InstanceName { bytes, max });
    }
    if !(SESSION_MS_MIN..=SESSION_MS_MAX).contains(&wish.session_ms) {
        return Err(JoinError::Session {
            given_ms: wish.session_ms,
            min_ms: SESSION_MS_MIN,
            max_ms: SESSION_MS_MAX,
        });
    }
    Ok(())
}

/// Order of members in an assignment: by instance name, so that a restart keeps the place.
type Place<'a> = (Option<&'a str>, MemberId);
