//! For how long one partition of one group had no owner.
//!
//! A member owns a partition from the moment it knows until it gave it up, lost it, died, or froze; a
//! frozen one that wakes up owns it again unless another one was granted it meanwhile. Time counts while the
//! partition, a member that lives, and a broker are there. It begins anew when an outage is over, and when any
//! member of the group dies or freezes: that one may have been given the partition just then, and nobody can know
//! before its session is over.

use std::time::Duration;

use super::super::verdict::Violation;
use super::{Bounds, GroupVerdict, NEVER, Part, Seen, Span};
use crate::history::GroupPlace;

/// What changes at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Owned,
    Lives,
    Up,
    Disowned,
    Dies,
    Down,
}

pub(super) fn judge(
    (seen, place, part): (&Seen, GroupPlace, &Part),
    bounds: Bounds,
    found: &mut GroupVerdict,
) {
    let since = seen.logs.get(&place.to_log()).map_or(0, |log| log.since_ns);
    let lives = seen
        .lives
        .get(&place.group())
        .map_or(&[][..], Vec::as_slice);
    let mut changes: Vec<(u64, Change)> = Vec::new();
    for life in lives {
        changes.push((life.from, Change::Lives));
        changes.push((life.until, Change::Dies));
    }
    for outage in &seen.outages {
        changes.push((outage.from, Change::Down));
        changes.push((outage.until, Change::Up));
    }
    for owned in owned(part, lives) {
        changes.push((owned.from, Change::Owned));
        changes.push((owned.until, Change::Disowned));
    }
    changes.sort_unstable();

    let mut now = Now::default();
    for (at, change) in changes {
        let is_gap = now.is_gap();
        if is_gap {
            let from = now.since_ns.max(since);
            note((from, at), (seen, place), bounds, found);
        }
        now.change(change);
        // While it lasts, an arrival of one more member changes nothing.
        let goes_on = is_gap && now.is_gap() && change == Change::Lives;
        if !goes_on {
            now.since_ns = at;
        }
    }
}

/// When members owned it, each as long as it lived and no later epoch was known.
fn owned(part: &Part, lives: &[Span]) -> Vec<Span> {
    let mut owned = Vec::new();
    // The earliest begin of all later grants.
    let mut later_ns = NEVER;
    for grant in part.grants.values().rev() {
        let until = grant.ended_ns.min(later_ns);
        later_ns = later_ns.min(grant.begun_ns);
        let own = lives.iter().filter(|life| life.member == grant.member);
        let parts = own.map(|life| Span {
            member: grant.member,
            from: life.from.max(grant.begun_ns),
            until: life.until.min(until),
        });
        owned.extend(parts.filter(|span| span.from < span.until));
    }
    owned
}

#[derive(Debug, Default)]
struct Now {
    owners: u32,
    members: u32,
    outages: u32,
    /// When the state began.
    since_ns: u64,
}

impl Now {
    const fn is_gap(&self) -> bool {
        self.owners == 0 && self.members > 0 && self.outages == 0
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Owned => self.owners += 1,
            Change::Disowned => self.owners = self.owners.saturating_sub(1),
            Change::Lives => self.members += 1,
            Change::Dies => self.members = self.members.saturating_sub(1),
            Change::Down => self.outages += 1,
            Change::Up => self.outages = self.outages.saturating_sub(1),
        }
    }
}

/// A time without an owner, known to be over, or to go on under other conditions.
fn note(
    (from, until): (u64, u64),
    (seen, place): (&Seen, GroupPlace),
    bounds: Bounds,
    found: &mut GroupVerdict,
) {
    let length = Duration::from_nanos(until.saturating_sub(from));
    let is_long = length > bounds.ownerless;
    if is_long && seen.has_hiccup(from, until) {
        found.counts.ownerless_excluded += 1;
        return;
    }
    let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    found.counts.ownerless_ms_max = found.counts.ownerless_ms_max.max(ms);
    if is_long {
        found.verdict.tell(Violation::Ownerless, || {
            format!("{place:?} for {ms} ms, {from} to {until} ns")
        });
    }
}
