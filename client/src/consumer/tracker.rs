//! Which records of a partition are finished: from ends in any order to what may be committed.

use std::collections::BTreeSet;

use falcon_protocol::Offset;

/// Records taken from a partition and not finished.
///
/// INVARIANT: every offset below [`prefix`](Self::prefix) that was taken is finished, and no offset
/// at or above it is skipped by committing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracker {
    start: Offset,
    /// Behind the last record taken.
    next: Offset,
    unfinished: BTreeSet<Offset>,
    /// The first that will not be finished here.
    abandoned: Option<Offset>,
}

impl Tracker {
    /// Nothing taken yet; the first will be at `start` or behind.
    pub(super) const fn new(start: Offset) -> Self {
        Self {
            start,
            next: start,
            unfinished: BTreeSet::new(),
            abandoned: None,
        }
    }

    /// A record was taken; offsets only grow.
    pub(super) fn take(&mut self, offset: Offset) {
        self.unfinished.insert(offset);
        self.next = self.next.max(offset.advance(1));
    }

    /// A record is finished. `false`: it was not under way.
    pub(super) fn finish(&mut self, offset: Offset) -> bool {
        self.unfinished.remove(&offset)
    }

    /// A record that was taken will not be handled: what is behind it cannot be committed.
    pub(super) fn abandon(&mut self, offset: Offset) {
        if self.unfinished.remove(&offset) {
            let first = self.abandoned.map_or(offset, |first| first.min(offset));
            self.abandoned = Some(first);
        }
    }

    /// How many are under way.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// What may be committed: everything before it is finished.
    pub(super) fn prefix(&self) -> Offset {
        let first = self.unfinished.first().copied().unwrap_or(self.next);
        self.abandoned
            .map_or(first, |abandoned| abandoned.min(first))
    }

    /// The same, once something is finished.
    pub(super) fn finished(&self) -> Option<Offset> {
        let prefix = self.prefix();
        (prefix > self.start).then_some(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_finished_out_of_order_wait_for_those_before() {
        let mut tracker = Tracker::new(Offset(5));
        assert_eq!(tracker.prefix(), Offset(5));
        for offset in 5..9 {
            tracker.take(Offset(offset));
        }
        assert_eq!(tracker.prefix(), Offset(5));
        assert!(tracker.finish(Offset(6)));
        assert!(tracker.finish(Offset(8)));
        assert_eq!(tracker.prefix(), Offset(5));
        assert!(tracker.finish(Offset(5)));
        assert_eq!(tracker.prefix(), Offset(7), "7 is under way");
        assert!(!tracker.finish(Offset(6)), "it is finished once");
        assert!(tracker.finish(Offset(7)));
        assert_eq!(tracker.prefix(), Offset(9));
    }

    #[test]
    fn offsets_that_do_not_exist_are_no_obstacle() {
        let mut tracker = Tracker::new(Offset(0));
        tracker.take(Offset(3));
        tracker.take(Offset(10));
        tracker.finish(Offset(3));
        assert_eq!(tracker.prefix(), Offset(10));
        tracker.finish(Offset(10));
        assert_eq!(tracker.prefix(), Offset(11));
    }

    #[test]
    fn what_was_abandoned_is_not_committed_over() {
        let mut tracker = Tracker::new(Offset(5));
        (5..9).for_each(|offset| tracker.take(Offset(offset)));
        tracker.abandon(Offset(7));
        tracker.finish(Offset(8));
        assert_eq!(tracker.finished(), None);
        tracker.finish(Offset(5));
        tracker.finish(Offset(6));
        assert_eq!(tracker.unfinished(), 0);
        assert_eq!(tracker.finished(), Some(Offset(7)));
    }

    /// Against the definition: the prefix is the largest offset with nothing unfinished before it.
    #[test]
    fn the_prefix_never_passes_an_unfinished_record_and_never_goes_back() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut tracker = Tracker::new(Offset(0));
            let mut under_way: Vec<u64> = Vec::new();
            let (mut next, mut last) = (0, Offset(0));
            for _ in 0..300 {
                if random.bool() || under_way.is_empty() {
                    next += random.u64(0..3);
                    tracker.take(Offset(next));
                    under_way.push(next);
                    next += 1;
                } else {
                    let chosen = under_way.swap_remove(random.usize(..under_way.len()));
                    assert!(tracker.finish(Offset(chosen)));
                }
                let prefix = tracker.prefix();
                let expected = under_way.iter().min().copied().unwrap_or(next);
                assert_eq!(prefix, Offset(expected), "seed {seed}");
                assert!(prefix >= last, "seed {seed}");
                assert_eq!(tracker.unfinished(), under_way.len());
                last = prefix;
            }
        }
    }
}
