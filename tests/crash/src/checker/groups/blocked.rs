//! A member that stalls holds up its own partitions only.
//!
//! A record waits from the moment when it was acknowledged, its owner had begun, and the one before it
//! was done with. While another member of the group stalls that wait stays short, unless the owner itself stalled or
//! froze, or the broker was away.

use std::collections::HashMap;
use std::time::Duration;

use super::super::verdict::Violation;
use super::{Bounds, GroupVerdict, NEVER, Seen, Span};
use crate::history::{Entry, GroupPlace};

pub(super) struct BlockedRule<'a> {
    seen: &'a Seen,
    bounds: Bounds,
    /// When the last record was done with, of each place and epoch.
    last_ns: HashMap<(GroupPlace, u64), u64>,
    /// Of each member; numbers of members are those of a run, not of a group.
    lives: HashMap<u32, Vec<Span>>,
}

impl<'a> BlockedRule<'a> {
    pub(super) fn new(seen: &'a Seen, bounds: Bounds) -> Self {
        let mut lives: HashMap<u32, Vec<Span>> = HashMap::new();
        for life in seen.lives.values().flatten() {
            lives.entry(life.member).or_default().push(*life);
        }
        Self {
            seen,
            bounds,
            last_ns: HashMap::new(),
            lives,
        }
    }

    pub(super) fn handled(&mut self, entry: &Entry, found: &mut GroupVerdict) {
        let place = GroupPlace(entry.partition);
        let epoch = entry.value.epoch();
        let until = entry.completed_ns;
        let last = self.last_ns.insert((place, epoch), until);
        let part = self.seen.parts.get(&place);
        let begun = part.and_then(|part| part.grants.get(&epoch));
        let begun = begun.map_or(NEVER, |grant| grant.begun_ns);
        let acked = self.seen.logs.get(&place.to_log());
        let index = usize::try_from(entry.offset).ok();
        let acked = acked.and_then(|log| log.acked_ns.get(index?)).copied();
        // Without an acknowledgement nobody knows since when it is there.
        let Some(acked) = acked.filter(|at| *at != NEVER) else {
            return;
        };
        let from = acked.max(begun).max(last.unwrap_or_default());
        if from >= until || !self.is_beside_stalled(place.group(), entry.actor, (from, until)) {
            return;
        }
        found.counts.handled_beside_stalled += 1;
        let waited = Duration::from_nanos(until - from);
        let is_long = waited > self.bounds.blocked;
        if is_long && self.is_excused((from, until)) {
            return;
        }
        let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let counts = &mut found.counts;
        counts.blocked_by_stalled_ms_max = counts.blocked_by_stalled_ms_max.max(ms);
        if is_long {
            found.verdict.add(Violation::Blocked, entry, || {
                format!("it waited for {ms} ms while another member stalled")
            });
        }
    }

    /// Whether another one stalled, and its owner was at work all the time.
    fn is_beside_stalled(&self, group: u16, owner: u32, (from, until): (u64, u64)) -> bool {
        let stalls = self.seen.stalls.get(&group).map_or(&[][..], Vec::as_slice);
        let begun = stalls.partition_point(|stall| stall.from <= until);
        let earliest = from.saturating_sub(self.seen.stall_ns_max);
        let recent = stalls.iter().take(begun).rev();
        let mut is_beside = false;
        for stall in recent.take_while(|stall| stall.from >= earliest) {
            if stall.meets(from, until) {
                if stall.member == owner {
                    return false;
                }
                is_beside = true;
            }
        }
        let lives = self.lives.get(&owner).map_or(&[][..], Vec::as_slice);
        let mut lives = lives.iter();
        is_beside && lives.any(|life| life.from <= from && life.until >= until)
    }

    /// Whether the broker was away, or the machine stood still.
    fn is_excused(&self, (from, until): (u64, u64)) -> bool {
        let recovery = u64::try_from(self.bounds.recovery.as_nanos()).unwrap_or(NEVER);
        let is_away =
            |outage: &Span| outage.from <= until && from <= outage.until.saturating_add(recovery);
        self.seen.outages.iter().any(is_away) || self.seen.has_hiccup(from, until)
    }
}
