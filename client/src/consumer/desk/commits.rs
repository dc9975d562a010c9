//! Which offsets are to be stored, and which are.

use std::sync::Arc;

use falcon_protocol::message::{CommitOwned, OwnedCommit};
use falcon_protocol::{Offset, Partition};
use tokio::sync::oneshot;

use super::Desk;
use super::held::{Waiter, Wanted};
use crate::consumer::events::TopicPartition;
use crate::consumer::grant::{Grant, Hold};
use crate::error::CommitError;

/// A commit that was asked for.
pub(in crate::consumer) enum Pledge {
    /// It is stored already.
    Done,
    /// It will be answered.
    Open(oneshot::Receiver<Result<(), CommitError>>),
}

/// What became of a record that its handler finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Finished {
    /// It counts.
    Yes,
    /// The partition was taken away meanwhile.
    Stale,
    /// The partition is read from elsewhere since.
    Moved,
}

/// An offset on its way to the broker.
pub(in crate::consumer) struct Entry {
    pub(in crate::consumer) hold: Hold,
    pub(in crate::consumer) commit: OwnedCommit,
    topic: Arc<str>,
    waiters: Vec<Waiter>,
}

impl Entry {
    /// Answers who waits.
    fn settle(self, outcome: &Result<(), CommitError>) {
        for waiter in self.waiters {
            // Whoever asked may have given up.
            waiter.send(outcome.clone()).ok();
        }
    }

    fn name(&self) -> TopicPartition {
        TopicPartition {
            topic: Arc::clone(&self.topic),
            partition: self.partition(),
        }
    }

    const fn partition(&self) -> Partition {
        self.hold.partition.partition
    }

    fn stale(&self) -> CommitError {
        CommitError::StaleOwner {
            topic: self.topic.to_string(),
            partition: self.partition(),
        }
    }
}

impl Desk {
    /// Asks for an offset of a partition to be stored.
    pub(in crate::consumer) fn want(
        &mut self,
        hold: &Hold,
        topic: &str,
        next: Offset,
    ) -> Result<Pledge, CommitError> {
        let stale = || CommitError::StaleOwner {
            topic: topic.to_owned(),
            partition: hold.partition.partition,
        };
        let held = self.held_mut(hold).ok_or_else(stale)?;
        held.check_order(next)?;
        if held.is_stored(next) {
            return Ok(Pledge::Done);
        }
        let (waiter, answer) = oneshot::channel();
        let may_rewind = held.may_rewind;
        if let Some(wanted) = &mut held.wanted {
            wanted.offset = if may_rewind {
                next
            } else {
                wanted.offset.max(next)
            };
            wanted.waiters.push(waiter);
        } else {
            held.wanted = Some(Wanted {
                offset: next,
                waiters: vec![waiter],
            });
            self.dirty.push_back(hold.partition);
        }
        Ok(Pledge::Open(answer))
    }

    /// Asks for everything handed out to be stored.
    pub(in crate::consumer) fn want_all(&mut self) -> (Vec<Pledge>, Option<CommitError>) {
        let all = self.held.values();
        let handed = all.filter_map(|held| Some((held.hold, held.topic.clone(), held.handed?)));
        let handed: Vec<_> = handed.collect();
        let mut error = self.lost_uncommitted.take();
        let mut pledges = Vec::with_capacity(handed.len());
        for (hold, topic, next) in handed {
            match self.want(&hold, &topic, next) {
                Ok(pledge) => pledges.push(pledge),
                Err(refused) => {
                    error.get_or_insert(refused);
                }
            }
        }
        (pledges, error)
    }

    /// Asks for everything that handlers have finished to be stored. `true`: there is something.
    pub(in crate::consumer) fn want_finished(&mut self) -> bool {
        let all = self.held.values();
        let finished =
            all.filter_map(|held| Some((held.hold, held.topic.clone(), held.finished()?)));
        let finished: Vec<_> = finished.collect();
        for (hold, topic, next) in finished {
            // Nobody waits for these: what is refused shows when the partition is lost.
            self.want(&hold, &topic, next).ok();
        }
        !self.dirty.is_empty()
    }

    /// Takes out what is to be stored, as much as one request may have.
    pub(in crate::consumer) fn take_dirty(&mut self, max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        while entries.len() < max {
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            let Some(wanted) = held.wanted.take() else {
                continue;
            };
            held.is_committing = true;
            entries.push(Entry {
                hold: held.hold,
                commit: OwnedCommit {
                    hold: held.hold.to_wire(),
                    offset: wanted.offset,
                    may_rewind: held.may_rewind,
                    note: String::new(),
                },
                topic: Arc::clone(&held.topic),
                waiters: wanted.waiters,
            });
        }
        entries
    }

    /// The broker stored these.
    pub(in crate::consumer) fn stored(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if let Some(held) = self.held_mut(&entry.hold) {
                held.is_committing = false;
            }
            self.note_stored(&entry.commit);
            entry.settle(&Ok(()));
        }
    }

    /// Something else stored these for this consumer.
    pub(in crate::consumer) fn note_stored(&mut self, commit: &OwnedCommit) {
        let Some(held) = self.held_mut(&Hold::of(&commit.hold)) else {
            return;
        };
        let higher = held
            .committed
            .filter(|committed| *committed > commit.offset);
        held.committed = Some(match higher {
            Some(committed) if !commit.may_rewind => committed,
            Some(_) | None => commit.offset,
        });
        if commit.may_rewind {
            held.may_rewind = false;
        }
    }

    /// The broker refused one entry: the partition has another owner.
    pub(in crate::consumer) fn refused_stale(&mut self, entry: Entry) -> TopicPartition {
        let name = entry.name();
        if let Some(held) = self.held_mut(&entry.hold) {
            held.is_committing = false;
        }
        let stale = Err(entry.stale());
        entry.settle(&stale);
        name
    }

    /// Storing these did not succeed.
    pub(in crate::consumer) fn not_stored(&mut self, entries: Vec<Entry>, error: &CommitError) {
        for entry in entries {
            if let Some(held) = self.held_mut(&entry.hold) {
                held.is_committing = false;
            }
            entry.settle(&Err(error.clone()));
        }
    }

    /// Nobody stores anything any more.
    pub(in crate::consumer) fn abandon_commits(&mut self) {
        let entries = self.take_dirty(usize::MAX);
        self.not_stored(entries, &CommitError::Closed);
    }

    pub(in crate::consumer) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.held.values().any(|held| held.is_committing)
    }

    /// The commits of a step.
    pub(in crate::consumer) fn step_commit(
        &mut self,
        group: &str,
        marks: &[(Grant, Offset)],
    ) -> Result<CommitOwned, CommitError> {
        let mut offsets: Vec<OwnedCommit> = Vec::with_capacity(marks.len());
        for (grant, next) in marks {
            let held = self.held.get(&grant.hold.partition);
            let Some(held) = held.filter(|held| held.hold == grant.hold) else {
                let topic = held.map_or_else(String::new, |held| held.topic.to_string());
                let partition = grant.hold.partition.partition;
                return Err(CommitError::StaleOwner { topic, partition });
            };
            held.check_order(*next)?;
            let mut earlier = offsets.iter_mut();
            match earlier.find(|commit| Hold::of(&commit.hold) == grant.hold) {
                Some(commit) => commit.offset = commit.offset.max(*next),
                None => offsets.push(OwnedCommit {
                    hold: grant.hold.to_wire(),
                    offset: *next,
                    may_rewind: held.may_rewind,
                    note: String::new(),
                }),
            }
        }
        Ok(CommitOwned {
            group: group.to_owned(),
            offsets,
        })
    }

    /// A handler may begin with a record that was taken for it. `false`: it is not held any more.
    pub(in crate::consumer) fn begin(&mut self, grant: &Grant, offset: Offset) -> bool {
        let Some(held) = self.held_mut(&grant.hold) else {
            return false;
        };
        let is_same_reading = held.reading == grant.version;
        if is_same_reading
            && !held.is_live()
            && let Some(tracker) = held.tracker.as_mut()
        {
            tracker.abandon(offset);
        }
        is_same_reading && held.is_live()
    }

    /// A commit under a grant was refused.
    pub(in crate::consumer) fn note_over(&mut self, hold: &Hold) {
        if let Some(held) = self.held_mut(hold) {
            held.is_over = true;
        }
    }

    /// Whether the partition of a grant was taken away, as far as is known.
    pub(in crate::consumer) fn is_over(&self, hold: &Hold) -> bool {
        self.held(hold).is_none_or(|held| held.is_over)
    }

    /// A handler is done with a record.
    pub(in crate::consumer) fn finish(&mut self, grant: &Grant, offset: Offset) -> Finished {
        let Some(held) = self.held_mut(&grant.hold) else {
            return Finished::Stale;
        };
        let is_same_reading = held.reading == grant.version;
        let tracker = held.tracker.as_mut().filter(|_| is_same_reading);
        let is_counted = tracker.is_some_and(|tracker| tracker.finish(offset));
        let id = grant.hold.partition;
        self.offer(id);
        if is_counted {
            Finished::Yes
        } else {
            Finished::Moved
        }
    }
}
