//! Committed offsets never go back, and are never what nobody stored.
//!
//! A group stores growing offsets, one commit after the other. So what a fetch finds is at least the
//! highest offset of the commits that had succeeded before it began, and at most the highest of those
//! that had begun before it ended, the failed ones excepted.

use std::collections::HashMap;

use super::verdict::{Verdict, Violation};
use crate::history::{Entry, NO_OFFSET, Op, Outcome};

#[derive(Debug, Default)]
pub(super) struct OffsetRules {
    groups: HashMap<(u32, u16), Group>,
}

#[derive(Debug, Default)]
struct Group {
    commits: Vec<Entry>,
    fetches: Vec<Entry>,
}

impl OffsetRules {
    pub(super) fn note(&mut self, entry: &Entry) {
        let group = self.groups.entry((entry.actor, entry.partition));
        let group = group.or_default();
        if entry.op == Op::Commit && entry.outcome != Outcome::Failed {
            group.commits.push(*entry);
        } else if entry.op == Op::Fetch && entry.outcome == Outcome::Ok {
            group.fetches.push(*entry);
        }
    }

    pub(super) fn judge(&self, verdict: &mut Verdict) {
        for group in self.groups.values() {
            let is_ok = |commit: &&Entry| commit.outcome == Outcome::Ok;
            let done = group.commits.iter().filter(is_ok);
            let done = Heights::new(done.map(|commit| (commit.completed_ns, commit.offset)));
            let begun = group.commits.iter();
            let begun = Heights::new(begun.map(|commit| (commit.invoked_ns, commit.offset)));
            for fetch in &group.fetches {
                let found = Some(fetch.offset).filter(|offset| *offset != NO_OFFSET);
                let low = done.before(fetch.invoked_ns);
                let high = begun.before(fetch.completed_ns);
                if found < low {
                    verdict.add(Violation::CommitRegression, fetch, || {
                        format!("offset {low:?} had been committed, {found:?} was found")
                    });
                }
                if found > high {
                    verdict.add(Violation::Phantom, fetch, || {
                        format!(
                            "the committed offset {found:?} was found, at most {high:?} was stored"
                        )
                    });
                }
            }
        }
    }
}

/// The highest offset up to a time.
pub(super) struct Heights {
    /// By time; offsets rise.
    steps: Vec<(u64, u64)>,
}

impl Heights {
    pub(super) fn new(commits: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut steps: Vec<(u64, u64)> = commits.collect();
        steps.sort_unstable();
        let mut highest = 0;
        for (_, offset) in &mut steps {
            highest = highest.max(*offset);
            *offset = highest;
        }
        Self { steps }
    }

    pub(super) fn before(&self, time: u64) -> Option<u64> {
        let count = self.steps.partition_point(|(at, _)| *at < time);
        let last = count.checked_sub(1).and_then(|last| self.steps.get(last));
        last.map(|(_, offset)| *offset)
    }
}
