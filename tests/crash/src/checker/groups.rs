//! What groups promise, against what their members did.
//!
//! Owns the rules: of the unfenced members of a group at most one owns a partition; no record is skipped, none
//! committed before it was handled, none handled again by an owner that began after its commit; no partition is
//! without an owner for long while a member lives; a member that stalls holds up its own partitions only; what
//! steps publish is there exactly once. Knows histories only. Goes through the history twice, and sorts what
//! is few: grants, commits, lives of members.
//!
//! Memory is 8 bytes for each record of each group and log, and 60 for each commit and fetch.
//!
//! Must not know: how members and brokers were troubled. It is told in lives, stalls and outages.

mod blocked;
mod commits;
mod owners;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::verdict::{Verdict, Violation};
use crate::error::CrashError;
use crate::history::{Entry, GroupPlace, History, Op, Outcome, ValueId};
use blocked::BlockedRule;

/// What groups promise in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Longest time without an owner while a member lives.
    pub ownerless: Duration,
    /// Longest time for which a partition may stand still while a member that does not own it stalls.
    pub blocked: Duration,
    /// After an outage members need so long to find back.
    pub recovery: Duration,
}

/// What was judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Partitions granted.
    pub grants: u64,
    /// Different epochs of grants, in all groups.
    pub epochs: u64,
    /// Records handled.
    pub handled: u64,
    /// Of them, handled by another owner before.
    pub redelivered: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits refused because they were stale.
    pub commits_refused_as_stale: u64,
    /// Records in the output of steps.
    pub outputs: u64,
    /// Longest time that a partition was without an owner.
    pub ownerless_ms_max: u64,
    /// Such times, too long, that do not count because the machine stood still.
    pub ownerless_excluded: u64,
    /// Longest time that a partition stood still while another member stalled.
    pub blocked_by_stalled_ms_max: u64,
    /// Records handled while another member stalled.
    pub handled_beside_stalled: u64,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct GroupVerdict {
    /// What was judged.
    pub counts: GroupCounts,
    /// What was broken.
    pub verdict: Verdict,
}

/// Judges the groups in a history.
///
/// # Errors
/// [`CrashError::Malformed`] when the files are no history, or offsets are beyond what fits into memory.
pub fn check<H: History + ?Sized>(history: &H, bounds: Bounds) -> Result<GroupVerdict, CrashError> {
    let mut seen = Seen::default();
    history.for_each(&mut |entry| seen.note(entry))?;
    if let Some(offset) = seen.beyond_limit {
        let said = format!("offset {offset} is too high");
        return Err(CrashError::Malformed(said));
    }
    seen.settle();
    let mut found = GroupVerdict {
        verdict: std::mem::take(&mut seen.verdict),
        ..GroupVerdict::default()
    };
    let mut blocked = BlockedRule::new(&seen, bounds);
    history.for_each(&mut |entry| {
        if entry.op == Op::Handled {
            blocked.handled(entry, &mut found);
        }
    })?;
    for (place, part) in &seen.parts {
        owners::judge((&seen, *place, part), bounds, &mut found);
        commits::judge((&seen, *place, part), &mut found);
    }
    seen.judge_reached(&mut found.verdict);
    seen.judge_output(&mut found.verdict);
    seen.count(&mut found.counts);
    Ok(found)
}

/// Offsets beyond are not of a run.
const OFFSET_MAX: u64 = 1 << 32;
/// Stands for "not handled".
const NEVER: u64 = u64::MAX;

/// A time from when to when, and whose.
#[derive(Debug, Clone, Copy)]
struct Span {
    member: u32,
    from: u64,
    until: u64,
}

impl Span {
    const fn meets(&self, from: u64, until: u64) -> bool {
        self.from <= until && from <= self.until
    }
}

/// Everything that the rules need, gathered in one go.
#[derive(Debug, Default)]
struct Seen {
    parts: BTreeMap<GroupPlace, Part>,
    /// Of each log: where it ends, when each record was acknowledged, when it appeared.
    logs: BTreeMap<GroupPlace, Log>,
    /// Of each group.
    lives: HashMap<u16, Vec<Span>>,
    /// Of each group, by time.
    stalls: HashMap<u16, Vec<Span>>,
    stall_ns_max: u64,
    outages: Vec<Span>,
    hiccups: Vec<Span>,
    /// How often each value is in the output.
    outputs: HashMap<ValueId, u32>,
    inputs: Vec<ValueId>,
    /// What the entries alone show.
    verdict: Verdict,
    beyond_limit: Option<u64>,
}

/// A partition of a topic.
#[derive(Debug, Default)]
struct Log {
    end: u64,
    acked_ns: Vec<u64>,
    since_ns: u64,
}

/// A partition as one group sees it.
#[derive(Debug, Default)]
struct Part {
    /// By epoch.
    grants: BTreeMap<u64, Grant>,
    /// When each record was first done with.
    handled_ns: Vec<u64>,
    handled: u64,
    commits: Vec<Entry>,
    fetches: Vec<Entry>,
}

/// What one member did under one epoch.
#[derive(Debug, Clone, Copy)]
struct Grant {
    member: u32,
    /// When the member knew: the grant was durable by then.
    begun_ns: u64,
    ended_ns: u64,
    /// The lowest offset handled, and the next one due.
    handled: Option<(u64, u64)>,
}

impl Seen {
    fn note(&mut self, entry: &Entry) {
        let place = GroupPlace(entry.partition);
        let span = Span {
            member: entry.actor,
            from: entry.invoked_ns,
            until: entry.completed_ns,
        };
        match (entry.op, entry.outcome) {
            (Op::Own, _) => self.own(entry),
            (Op::Disown, _) => {
                let part = self.parts.entry(place).or_default();
                let grant = part.grants.get_mut(&entry.value.epoch());
                if let Some(grant) = grant.filter(|grant| grant.member == entry.actor) {
                    grant.ended_ns = entry.completed_ns;
                }
            }
            (Op::Handled, _) => self.handled(entry),
            (Op::CommitOwned, _) => self.part(place).commits.push(*entry),
            (Op::FetchOwned, Outcome::Ok) => self.part(place).fetches.push(*entry),
            (Op::Output, _) => *self.outputs.entry(entry.value).or_default() += 1,
            (Op::Alive, _) => self.lives.entry(place.group()).or_default().push(span),
            (Op::Stalled, _) => self.stalls.entry(place.group()).or_default().push(span),
            (Op::Down, _) => self.outages.push(span),
            (Op::Hiccup, _) => self.hiccups.push(span),
            (Op::Exists, _) => {
                self.logs.entry(place.to_log()).or_default().since_ns = entry.completed_ns;
            }
            (Op::Publish, Outcome::Ok) => {
                let log = self.logs.entry(place.to_log()).or_default();
                if !put(&mut log.acked_ns, entry.offset, entry.completed_ns) {
                    self.beyond_limit = Some(entry.offset);
                }
            }
            (Op::FinalRead, _) => {
                let log = self.logs.entry(place.to_log()).or_default();
                log.end = log.end.max(entry.offset.saturating_add(1));
                self.inputs.push(entry.value);
            }
            (
                Op::Publish
                | Op::Read
                | Op::Commit
                | Op::Fetch
                | Op::FetchOwned
                | Op::CreateTopic
                | Op::AlterTopic
                | Op::DeleteTopic
                | Op::SeeTopic
                | Op::TopicPublish
                | Op::TopicRead
                | Op::TopicEnd,
                _,
            ) => {}
        }
    }

    fn part(&mut self, place: GroupPlace) -> &mut Part {
        self.parts.entry(place).or_default()
    }

    /// The grant under which a member acts. A second member under the same epoch is one owner too many.
    fn grant(&mut self, entry: &Entry, begun_ns: u64) -> &mut Grant {
        let part = self.parts.entry(GroupPlace(entry.partition)).or_default();
        let grant = part.grants.entry(entry.value.epoch());
        let grant = grant.or_insert(Grant {
            member: entry.actor,
            begun_ns,
            ended_ns: NEVER,
            handled: None,
        });
        grant.begun_ns = grant.begun_ns.min(begun_ns);
        if grant.member != entry.actor {
            let other = grant.member;
            self.verdict.add(Violation::DoubleOwner, entry, || {
                format!("member {other} owned it under the same epoch")
            });
        }
        grant
    }

    fn own(&mut self, entry: &Entry) {
        self.grant(entry, entry.completed_ns);
    }

    fn handled(&mut self, entry: &Entry) {
        let offset = entry.offset;
        let grant = self.grant(entry, entry.invoked_ns);
        let due = grant.handled.map(|(_, due)| due);
        let lowest = grant
            .handled
            .map_or(offset, |(lowest, _)| lowest.min(offset));
        let next = offset.saturating_add(1).max(due.unwrap_or_default());
        grant.handled = Some((lowest, next));
        let found = match due {
            Some(due) if offset < due => Some((Violation::HandledAgain, due)),
            Some(due) if offset > due => Some((Violation::Skipped, due)),
            Some(_) | None => None,
        };
        if let Some((violation, due)) = found {
            self.verdict.add(violation, entry, || {
                format!("offset {due} was due under the same epoch")
            });
        }
        let part = self.part(GroupPlace(entry.partition));
        part.handled += 1;
        if !put(&mut part.handled_ns, offset, entry.completed_ns) {
            self.beyond_limit = Some(offset);
        }
    }

    fn settle(&mut self) {
        let of_groups = self.lives.values_mut().chain(self.stalls.values_mut());
        for spans in of_groups.chain([&mut self.outages, &mut self.hiccups]) {
            spans.sort_unstable_by_key(|span| (span.from, span.until));
        }
        let stalls = self.stalls.values().flatten();
        let lengths = stalls.map(|stall| stall.until.saturating_sub(stall.from));
        self.stall_ns_max = lengths.max().unwrap_or_default();
        // Every group wants every log, also those of which nobody was granted any.
        let groups: BTreeSet<u16> = self.lives.keys().copied().collect();
        for log in self.logs.keys() {
            for group in &groups {
                self.parts.entry(log.of(*group)).or_default();
            }
        }
    }

    /// In the end everything is committed.
    fn judge_reached(&self, verdict: &mut Verdict) {
        for (place, part) in &self.parts {
            let end = self.logs.get(&place.to_log()).map_or(0, |log| log.end);
            let last = part.fetches.iter().max_by_key(|fetch| fetch.completed_ns);
            let committed = last.map_or(0, |fetch| fetch.offset);
            if committed < end {
                *verdict.violations.entry(Violation::NotReached).or_default() += end - committed;
                verdict.examples.push(format!(
                    "never committed: of {place:?} offsets {committed}..{end}"
                ));
            }
        }
    }

    /// Every record that was there for a step is in the output once.
    fn judge_output(&self, verdict: &mut Verdict) {
        if self.outputs.is_empty() {
            return;
        }
        let wrong = self.inputs.iter();
        let wrong = wrong.filter(|value| self.outputs.get(value) != Some(&1));
        for value in wrong {
            let times = self.outputs.get(value).copied().unwrap_or_default();
            verdict.tell(Violation::NotExactlyOnce, || {
                format!("{value:?} is there {times} times")
            });
        }
        if self.outputs.len() > self.inputs.len() {
            let more = self.outputs.len() - self.inputs.len();
            verdict.tell(Violation::Phantom, || {
                format!("{more} values in the output are of no record")
            });
        }
    }

    fn count(&self, counts: &mut GroupCounts) {
        let mut epochs = BTreeSet::new();
        for (place, part) in &self.parts {
            let of_part = part.grants.keys().map(|epoch| (place.group(), *epoch));
            epochs.extend(of_part);
            counts.grants += part.grants.len() as u64;
            counts.handled += part.handled;
            let different = part.handled_ns.iter().filter(|at| **at != NEVER).count();
            counts.redelivered += part.handled - different as u64;
            let outcomes = part.commits.iter().map(|commit| commit.outcome);
            for outcome in outcomes {
                counts.commits += u64::from(outcome == Outcome::Ok);
                counts.commits_refused_as_stale += u64::from(outcome == Outcome::Failed);
            }
        }
        counts.epochs = epochs.len() as u64;
        counts.outputs = self.outputs.values().map(|times| u64::from(*times)).sum();
    }

    /// Whether the machine stood still at any time between.
    fn has_hiccup(&self, from: u64, until: u64) -> bool {
        self.hiccups.iter().any(|hiccup| hiccup.meets(from, until))
    }
}

/// Notes a time for an offset, the first one.
fn put(times: &mut Vec<u64>, offset: u64, at: u64) -> bool {
    let Some(index) = usize::try_from(offset).ok().filter(|_| offset < OFFSET_MAX) else {
        return false;
    };
    if times.len() <= index {
        times.resize(index + 1, NEVER);
    }
    if let Some(time) = times.get_mut(index) {
        *time = at.min(*time);
    }
    true
}
