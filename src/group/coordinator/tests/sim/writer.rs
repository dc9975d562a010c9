//! What the writer keeps: fences, committed offsets; and the judge of commits.

use std::collections::{BTreeMap, BTreeSet};

use falcon_protocol::{Offset, OwnerEpoch, PartitionId, TopicId};

use crate::group::coordinator::Hold;

#[derive(Debug, Clone)]
pub(super) enum Job {
    Fence(Vec<Hold>),
    Commit {
        peer: usize,
        hold: Hold,
        offset: u64,
    },
    Reset(PartitionId, u64),
    Delete,
}

#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Fenced(Hold, Option<Offset>),
    Refused(Hold, OwnerEpoch),
    Raised(Vec<Hold>),
    /// Whatever is granted later is at or above these epochs.
    Deleted(BTreeMap<PartitionId, OwnerEpoch>),
    Committed {
        peer: usize,
        hold: Hold,
        offset: u64,
        is_stale: bool,
    },
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) fences: BTreeMap<PartitionId, OwnerEpoch>,
    pub(super) committed: BTreeMap<PartitionId, u64>,
    floor: OwnerEpoch,
    /// The judge's: up to where records are handled under the fence in force, from the offset it began at.
    handled: BTreeMap<PartitionId, u64>,
    /// The judge's: the latest fence ever, also of what was deleted.
    pub(super) latest: BTreeMap<PartitionId, OwnerEpoch>,
    gone: BTreeSet<TopicId>,
    /// How often a fence was put in force.
    pub(super) changes: u64,
}

impl Writer {
    pub(super) fn fence(&self, id: PartitionId) -> OwnerEpoch {
        self.fences.get(&id).copied().unwrap_or_default()
    }

    pub(super) fn offset(&self, id: PartitionId) -> Option<Offset> {
        self.committed.get(&id).copied().map(Offset)
    }

    /// A member's application has finished a record.
    pub(super) fn handle(&mut self, hold: Hold, offset: u64) {
        if self.fence(hold.partition) == hold.epoch {
            let handled = self.handled.entry(hold.partition).or_default();
            assert!(
                offset <= *handled,
                "{hold:?} skips from {handled} to {offset}"
            );
            *handled = (*handled).max(offset + 1);
        }
    }

    pub(super) fn decide(&mut self, job: Job) -> Vec<Outcome> {
        match job {
            Job::Fence(holds) => holds.into_iter().map(|hold| self.grant(hold)).collect(),
            Job::Commit { peer, hold, offset } => vec![self.commit(peer, hold, offset)],
            Job::Reset(id, offset) => {
                self.committed.insert(id, offset);
                let mut raised = Vec::new();
                if self.fences.contains_key(&id) {
                    let epoch = OwnerEpoch(self.fence(id).max(self.floor).0 + 1);
                    let hold = Hold {
                        partition: id,
                        epoch,
                    };
                    self.put(hold);
                    raised.push(hold);
                }
                vec![Outcome::Raised(raised)]
            }
            Job::Delete => {
                let highest = self.fences.values().max().copied().unwrap_or_default();
                self.floor = self.floor.max(highest);
                self.fences.clear();
                self.committed.clear();
                self.handled.clear();
                let above =
                    |(id, epoch): (&PartitionId, &OwnerEpoch)| (*id, OwnerEpoch(epoch.0 + 1));
                vec![Outcome::Deleted(self.latest.iter().map(above).collect())]
            }
        }
    }

    pub(super) fn delete_topic(&mut self, topic: TopicId) {
        self.gone.insert(topic);
        self.fences.retain(|id, _| id.topic != topic);
        self.committed.retain(|id, _| id.topic != topic);
    }

    fn grant(&mut self, hold: Hold) -> Outcome {
        let current = self.fence(hold.partition).max(self.floor);
        if hold.epoch <= current || self.gone.contains(&hold.partition.topic) {
            return Outcome::Refused(hold, current);
        }
        self.put(hold);
        Outcome::Fenced(hold, self.offset(hold.partition))
    }

    fn put(&mut self, hold: Hold) {
        let latest = self.latest.entry(hold.partition).or_default();
        assert!(hold.epoch > *latest, "{hold:?} comes again after {latest}");
        *latest = hold.epoch;
        self.fences.insert(hold.partition, hold.epoch);
        let offset = self.committed.get(&hold.partition).copied();
        self.handled
            .insert(hold.partition, offset.unwrap_or_default());
        self.changes += 1;
    }

    fn commit(&mut self, peer: usize, hold: Hold, offset: u64) -> Outcome {
        let is_stale = self.fence(hold.partition) != hold.epoch;
        if !is_stale {
            let handled = self.handled.get(&hold.partition).copied();
            let handled = handled.unwrap_or_default();
            assert!(
                offset <= handled,
                "{hold:?} committed {offset}, its owners handled {handled}"
            );
            let committed = self.committed.entry(hold.partition).or_default();
            *committed = (*committed).max(offset);
        }
        Outcome::Committed {
            peer,
            hold,
            offset,
            is_stale,
        }
    }
}
