//! The judge: what the broker promised, against what clients saw.
//!
//! Owns the rules. Knows histories only, so that no error of the broker or of its client can be
//! repeated here. Goes through the history three times, in time proportional to its length:
//!
//! 1. publishes: how many values each publisher sent;
//! 2. the final read: where each value is, and the rules within that read;
//! 3. everything else against those places.
//!
//! Memory is 6 bytes for each value published (a place: offset and partition), 600 MB for 10^8; no
//! entry is kept. Commits and fetches of offsets, of which there are few, are kept and sorted. Of
//! short-lived topics the records of those that exist are kept.
//!
//! LIMIT: offsets below 2^32 - 1, partitions and publishers by number as the history holds them.

pub mod groups;
mod offsets;
mod places;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod topic_tests;
mod topics;
mod verdict;

use std::collections::HashMap;

pub use verdict::{Counts, Verdict, Violation};

use crate::error::CrashError;
use crate::history::{Entry, History, Op, Outcome};
use offsets::OffsetRules;
use places::{Place, Places};
use topics::TopicRules;

/// Judges a history.
///
/// # Errors
/// [`CrashError::Malformed`] when it is not a history of one run: a publisher with holes in its
/// sequences, offsets beyond the limit. That is a fault of the rig.
pub fn check<H: History + ?Sized>(history: &H) -> Result<Verdict, CrashError> {
    judge(history, Judge::default())
}

/// Judges a history of topics that lose their oldest records by retention: the final read may begin
/// anywhere, and what was acknowledged or read below its first offset may be gone.
///
/// # Errors
/// As [`check`].
pub fn check_trimmed<H: History + ?Sized>(history: &H) -> Result<Verdict, CrashError> {
    let judge_of_trimmed = Judge {
        is_trimmed: true,
        ..Judge::default()
    };
    judge(history, judge_of_trimmed)
}

fn judge<H: History + ?Sized>(history: &H, mut judge: Judge) -> Result<Verdict, CrashError> {
    history.for_each(&mut |entry| judge.count(entry))?;
    judge.places.settle()?;
    history.for_each(&mut |entry| {
        if entry.op == Op::FinalRead {
            judge.read_finally(entry);
        }
    })?;
    history.for_each(&mut |entry| judge.compare(entry))?;
    judge.offsets.judge(&mut judge.verdict);
    match judge.beyond_limit {
        Some(offset) => Err(CrashError::Malformed(format!(
            "offset {offset} is too high"
        ))),
        None => Ok(judge.verdict),
    }
}

#[derive(Debug, Default)]
struct Judge {
    /// Whether old records may go by retention.
    is_trimmed: bool,
    places: Places,
    /// Of each partition in the final read.
    ends: HashMap<u16, PartitionEnd>,
    /// Next offset due, of each subscriber and partition.
    due: HashMap<(u32, u16), u64>,
    offsets: OffsetRules,
    topics: TopicRules,
    verdict: Verdict,
    beyond_limit: Option<u64>,
}

#[derive(Debug, Default)]
struct PartitionEnd {
    /// First offset of the final read.
    start: u64,
    next: u64,
    /// Last sequence of each publisher.
    last: HashMap<u32, u32>,
}

impl Judge {
    fn count(&mut self, entry: &Entry) {
        let counts = &mut self.verdict.counts;
        match (entry.op, entry.outcome) {
            (Op::Publish, outcome) => {
                self.places.announce(entry.value);
                match outcome {
                    Outcome::Ok => counts.acked += 1,
                    Outcome::Failed => counts.failed += 1,
                    Outcome::Unknown => counts.unknown += 1,
                }
            }
            (Op::Read, _) => counts.read += 1,
            (Op::FinalRead, _) => counts.stored += 1,
            (Op::Commit, _) => counts.commits += 1,
            (Op::Fetch, _) => counts.fetches += 1,
            (Op::CreateTopic, Outcome::Ok) => counts.topics_created += 1,
            (Op::DeleteTopic, Outcome::Ok) => counts.topics_deleted += 1,
            (Op::CreateTopic | Op::AlterTopic | Op::DeleteTopic, Outcome::Unknown) => {
                counts.topics_unknown += 1;
            }
            (Op::TopicPublish, outcome) => {
                self.topics.announce(entry);
                counts.topic_acked += u64::from(outcome == Outcome::Ok);
            }
            (Op::TopicRead, _) => counts.topic_read += 1,
            (
                Op::CreateTopic
                | Op::AlterTopic
                | Op::DeleteTopic
                | Op::SeeTopic
                | Op::TopicEnd
                // The rest is judged by `groups`.
                | Op::Own
                | Op::Disown
                | Op::Handled
                | Op::CommitOwned
                | Op::FetchOwned
                | Op::Output
                | Op::Alive
                | Op::Stalled
                | Op::Down
                | Op::Hiccup
                | Op::Exists,
                _,
            ) => {}
        }
    }

    fn read_finally(&mut self, entry: &Entry) {
        let is_trimmed = self.is_trimmed;
        let begin = || {
            let start = if is_trimmed { entry.offset } else { 0 };
            PartitionEnd {
                start,
                next: start,
                last: HashMap::new(),
            }
        };
        let end = self.ends.entry(entry.partition).or_insert_with(begin);
        if entry.offset > end.next {
            let missing = entry.offset - end.next;
            self.verdict.add(Violation::Gap, entry, || {
                format!("{missing} offsets before it are missing in the final read")
            });
        }
        if entry.offset < end.next {
            self.verdict.add(Violation::Duplicate, entry, || {
                "the final read came to this offset twice".into()
            });
        }
        end.next = end.next.max(entry.offset.saturating_add(1));
        let Some(place) = Place::of(entry) else {
            self.beyond_limit = Some(entry.offset);
            return;
        };
        if !self.places.is_known(entry.value) {
            self.verdict.add(Violation::Phantom, entry, || {
                "nobody published what is stored here".into()
            });
            return;
        }
        if let Some(first) = self.places.put(entry.value, place) {
            self.verdict.add(Violation::Duplicate, entry, || {
                format!("the value is also at {first}")
            });
        }
        let last = end.last.entry(entry.value.publisher).or_default();
        let (before, now) = (*last, entry.value.sequence);
        if now < before {
            self.verdict.add(Violation::Reordered, entry, || {
                format!("sequence {before} of the same publisher comes before it")
            });
        }
        *last = now.max(before);
    }

    fn compare(&mut self, entry: &Entry) {
        match (entry.op, entry.outcome) {
            (Op::Publish, Outcome::Ok) => self.compare_ack(entry),
            (Op::Publish, Outcome::Failed) => {
                if let Some(place) = self.places.find(entry.value) {
                    self.verdict.add(Violation::Phantom, entry, || {
                        format!("it was refused, and is stored at {place}")
                    });
                }
            }
            (Op::Read, _) => self.compare_read(entry),
            (Op::Commit | Op::Fetch, _) => self.offsets.note(entry),
            (Op::CreateTopic | Op::AlterTopic | Op::DeleteTopic | Op::SeeTopic, _) => {
                self.topics.change(entry, &mut self.verdict);
            }
            (Op::TopicPublish | Op::TopicRead | Op::TopicEnd, _) => {
                self.topics.record(entry, &mut self.verdict);
            }
            (Op::Publish, Outcome::Unknown)
            | (
                Op::FinalRead
                | Op::Own
                | Op::Disown
                | Op::Handled
                | Op::CommitOwned
                | Op::FetchOwned
                | Op::Output
                | Op::Alive
                | Op::Stalled
                | Op::Down
                | Op::Hiccup
                | Op::Exists,
                _,
            ) => {}
        }
    }

    fn compare_ack(&mut self, entry: &Entry) {
        match (self.places.find(entry.value), Place::of(entry)) {
            (None, _) if self.may_be_trimmed(entry) => {}
            (None, _) => self.verdict.add(Violation::Lost, entry, || {
                "it was acknowledged, and is not stored".into()
            }),
            (Some(stored), acked) if acked != Some(stored) => {
                self.verdict.add(Violation::OffsetMismatch, entry, || {
                    format!("it was acknowledged here, and is stored at {stored}")
                });
            }
            (Some(_), _) => {}
        }
    }

    fn may_be_trimmed(&self, entry: &Entry) -> bool {
        let end = self.ends.get(&entry.partition);
        self.is_trimmed && end.is_some_and(|end| entry.offset < end.start)
    }

    fn compare_read(&mut self, entry: &Entry) {
        let due = self.due.entry((entry.actor, entry.partition));
        let due = due.or_insert(entry.offset);
        let expected = *due;
        *due = entry.offset.saturating_add(1).max(expected);
        if entry.offset > expected && !self.is_trimmed {
            self.verdict.add(Violation::Gap, entry, || {
                format!("a subscriber was due offset {expected}")
            });
        }
        if entry.offset < expected {
            self.verdict.add(Violation::Duplicate, entry, || {
                format!("a subscriber was past it, at {expected}")
            });
        }
        if !self.places.is_known(entry.value) {
            self.verdict.add(Violation::Phantom, entry, || {
                "nobody published what a subscriber was given".into()
            });
            return;
        }
        match (self.places.find(entry.value), Place::of(entry)) {
            (None, _) if self.may_be_trimmed(entry) => {}
            (None, _) => self.verdict.add(Violation::ReadBeforeDurable, entry, || {
                "a subscriber was given it, and it is not stored".into()
            }),
            (Some(stored), read) if read != Some(stored) => {
                self.verdict.add(Violation::OffsetMismatch, entry, || {
                    format!("a subscriber was given it here, and it is stored at {stored}")
                });
            }
            (Some(_), _) => {}
        }
    }
}
