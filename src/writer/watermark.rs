//! High watermarks that rise together.
//!
//! A commit group may append to many partitions, and a reader of two of them must never find one half of
//! it. So the writer prepares a rise for each partition under the number of the group, where nobody sees
//! it, and makes all of them visible by storing that number once. Readers wait for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use falcon_protocol::Offset;

/// Number of the last rise that is visible. One for all partitions.
#[derive(Debug, Clone, Default)]
pub(super) struct Rises(Arc<AtomicU64>);

impl Rises {
    /// The number to prepare the next rise with. For the writer alone.
    pub(super) fn next(&self) -> u64 {
        self.0.load(SeqCst) + 1
    }

    /// Makes everything prepared with `rise` visible.
    pub(super) fn show(&self, rise: u64) {
        self.0.store(rise, SeqCst);
    }
}

/// One partition's high watermark.
#[derive(Debug)]
pub(super) struct Watermark {
    rises: Rises,
    /// Up to when `rise` is not visible.
    before: AtomicU64,
    /// From then on.
    after: AtomicU64,
    rise: AtomicU64,
}

impl Watermark {
    pub(super) fn new(rises: &Rises, offset: Offset) -> Self {
        Self {
            rises: rises.clone(),
            before: AtomicU64::new(offset.0),
            after: AtomicU64::new(offset.0),
            rise: AtomicU64::new(0),
        }
    }

    /// Prepares a rise. For the writer alone, and only when the one before is visible.
    ///
    /// ORDER: a reader that meets the new `after` finds the new `rise` when it looks again.
    pub(super) fn prepare(&self, rise: u64, offset: Offset) {
        self.before.store(self.after.load(SeqCst), SeqCst);
        self.rise.store(rise, SeqCst);
        self.after.store(offset.0, SeqCst);
    }

    /// As it is visible now.
    pub(super) fn get(&self) -> Offset {
        self.look(|| {})
    }

    /// Calls `meanwhile` at the point where a change would do most harm.
    fn look(&self, mut meanwhile: impl FnMut()) -> Offset {
        loop {
            let rise = self.rise.load(SeqCst);
            let is_visible = self.rises.0.load(SeqCst) >= rise;
            meanwhile();
            let offset = if is_visible {
                &self.after
            } else {
                &self.before
            };
            let offset = offset.load(SeqCst);
            if self.rise.load(SeqCst) == rise {
                return Offset(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_that_begins_under_a_reader_stays_unseen_until_it_is_shown() {
        let rises = Rises::default();
        let mark = Watermark::new(&rises, Offset(4));
        let mut is_prepared = false;
        let prepare = || {
            if !std::mem::replace(&mut is_prepared, true) {
                mark.prepare(1, Offset(9));
            }
        };
        assert_eq!(mark.look(prepare), Offset(4));
        assert_eq!(mark.get(), Offset(4));
        let show_and_go_on = || {
            if rises.next() == 1 {
                rises.show(1);
                mark.prepare(2, Offset(12));
            }
        };
        assert_eq!(mark.look(show_and_go_on), Offset(9));
        rises.show(2);
        assert_eq!(mark.get(), Offset(12));
    }

    #[test]
    fn a_reader_of_two_never_finds_one_half() {
        const RISES: u64 = 200_000;
        let rises = Rises::default();
        let marks = [(); 3].map(|()| Watermark::new(&rises, Offset::ZERO));
        std::thread::scope(|scope| {
            for (first, second) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
                let marks = &marks;
                scope.spawn(move || {
                    let mut seen = 0;
                    while seen < RISES {
                        seen = marks[first].get().get();
                        let then = marks[second].get().get();
                        assert!(then >= seen, "{then} of {second} after {seen} of {first}");
                    }
                });
            }
            for _ in 0..RISES {
                let rise = rises.next();
                for mark in &marks {
                    mark.prepare(rise, Offset(rise));
                }
                rises.show(rise);
            }
        });
    }
}
