//! Commits of one partition of one group: fenced, after the handling, never back.
//!
//! An epoch is granted when its fence is durable. So once anybody knows of an epoch, no commit under a
//! lower one that begins from then on can succeed.

use std::collections::HashMap;

use super::super::offsets::Heights;
use super::super::verdict::{Verdict, Violation};
use super::{GroupVerdict, NEVER, Part, Seen};
use crate::history::{Entry, GroupPlace, Outcome};

pub(super) fn judge((_, place, part): (&Seen, GroupPlace, &Part), found: &mut GroupVerdict) {
    fenced(part, &mut found.verdict);
    let handled = Handled::new(part);
    after_handling(part, &handled, &mut found.verdict);
    again(part, &mut found.verdict);
    back(part, &mut found.verdict);
    let last = part.fetches.iter().max_by_key(|fetch| fetch.completed_ns);
    let skipped = last.map_or(0, |fetch| handled.missing_below(fetch.offset));
    if skipped > 0 {
        found.verdict.tell(Violation::Skipped, || {
            format!("{skipped} records of {place:?} below the committed offset were never handled")
        });
    }
}

/// When everything below an offset was done with.
struct Handled {
    /// At `n`: when all of the first `n` records were; [`NEVER`] when one was not.
    all_ns: Vec<u64>,
    missing: Vec<u64>,
}

impl Handled {
    fn new(part: &Part) -> Self {
        let mut latest = 0;
        let times = part.handled_ns.iter();
        let later = times.map(|at| {
            latest = latest.max(*at);
            latest
        });
        let all_ns = std::iter::once(0).chain(later).collect();
        let offsets = part.handled_ns.iter().zip(0..);
        let missing = offsets.filter(|(at, _)| **at == NEVER);
        let missing = missing.map(|(_, offset)| offset).collect();
        Self { all_ns, missing }
    }

    fn below(&self, offset: u64) -> u64 {
        let index = usize::try_from(offset).ok();
        let all = index.and_then(|index| self.all_ns.get(index));
        all.copied().unwrap_or(NEVER)
    }

    fn missing_below(&self, offset: u64) -> u64 {
        let known = self.missing.partition_point(|missing| *missing < offset);
        let length = self.all_ns.len() as u64 - 1;
        known as u64 + offset.saturating_sub(length)
    }
}

/// No commit under an epoch begins after a higher one is known, and succeeds. What the same owner had
/// stored already is done without asking anybody.
fn fenced(part: &Part, verdict: &mut Verdict) {
    let mut stored: HashMap<u64, u64> = HashMap::new();
    let done = part.commits.iter();
    for commit in done.filter(|commit| commit.outcome == Outcome::Ok) {
        let epoch = commit.value.epoch();
        let stored = stored.entry(epoch).or_default();
        if commit.offset <= *stored {
            continue;
        }
        *stored = commit.offset;
        // Grants are few, and mostly in the order of time: the next one nearly always decides.
        let later = part.grants.range(epoch.saturating_add(1)..);
        let known = later.map(|(epoch, grant)| (grant.begun_ns, *epoch)).min();
        if let Some((_, higher)) = known.filter(|(begun, _)| *begun < commit.invoked_ns) {
            verdict.add(Violation::DoubleOwner, commit, || {
                format!("a commit under epoch {epoch} succeeded after epoch {higher} was granted")
            });
        }
    }
}

/// Whatever is seen as committed, or was to be, was done with before.
fn after_handling(part: &Part, handled: &Handled, verdict: &mut Verdict) {
    let wanted = part.commits.iter();
    let wanted = wanted.filter(|commit| commit.outcome != Outcome::Failed);
    let wanted = wanted.map(|commit| (commit, commit.invoked_ns));
    let seen = part.fetches.iter().map(|fetch| (fetch, fetch.completed_ns));
    for (entry, at) in wanted.chain(seen) {
        let done = handled.below(entry.offset);
        // What nobody ever handled is told once, as skipped.
        if done > at && done != NEVER {
            verdict.add(Violation::CommittedBeforeHandled, entry, || {
                format!(
                    "a record below it was done with {} us later",
                    (done - at) / 1_000
                )
            });
        }
    }
}

/// An owner begins where the ones before it ended.
fn again(part: &Part, verdict: &mut Verdict) {
    let is_ok = |commit: &&Entry| commit.outcome == Outcome::Ok;
    let mut commits: Vec<(u64, u64)> = part
        .commits
        .iter()
        .filter(is_ok)
        .map(|commit| (commit.value.epoch(), commit.offset))
        .collect();
    commits.sort_unstable();
    let seen = Heights::new(part.fetches.iter().map(|f| (f.completed_ns, f.offset)));
    let mut commits = commits.into_iter().peekable();
    let mut committed = 0;
    for (epoch, grant) in &part.grants {
        while let Some((_, offset)) = commits.next_if(|(of, _)| of < epoch) {
            committed = committed.max(offset);
        }
        let before = committed.max(seen.before(grant.begun_ns).unwrap_or_default());
        if let Some((lowest, _)) = grant.handled.filter(|(lowest, _)| *lowest < before) {
            verdict.tell(Violation::HandledAgain, || {
                format!(
                    "offset {lowest} under epoch {epoch} by member {}, {before} was committed",
                    grant.member
                )
            });
        }
    }
}

/// What is stored never goes back, and is at least what a commit was told to be stored.
fn back(part: &Part, verdict: &mut Verdict) {
    let is_ok = |commit: &&Entry| commit.outcome == Outcome::Ok;
    let done = part.commits.iter().filter(is_ok).chain(&part.fetches);
    let done = Heights::new(done.map(|entry| (entry.completed_ns, entry.offset)));
    for fetch in &part.fetches {
        let low = done.before(fetch.invoked_ns);
        if let Some(low) = low.filter(|low| *low > fetch.offset) {
            verdict.add(Violation::CommitRegression, fetch, || {
                format!("offset {low} had been committed")
            });
        }
    }
}
