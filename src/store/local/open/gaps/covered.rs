//! What all extents of a journal hold, in one pass over the footers.
//!
//! Folders with trimmed segments are the rule, and to look up extent after extent in them would make every start
//! slow. Says only what is held for sure: who is in doubt looks closer.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::PoisonError;

use falcon_protocol::{Offset, PartitionId};

use super::Kept;
use crate::store::local::Shared;
use crate::store::local::index::Place;
use crate::store::local::journal::segment::Seal;
use crate::store::local::recovery::visit_extents;

/// Offsets that extents hold.
#[derive(Debug, Default)]
pub(super) struct Covered {
    /// Sorted ranges that do not touch. Few: extents lie back to back.
    ranges: HashMap<PartitionId, Vec<Range<Offset>>>,
}

impl Covered {
    /// Everything that is held; `None` when a footer cannot be read.
    pub(super) fn of(shared: &Shared, kept: &Kept<'_>) -> Option<Self> {
        let mut covered = Self::default();
        let mut add = |partition, place: Place| {
            if kept.is_there(&place) {
                let extent = place.extent;
                covered.add(partition, extent.base_offset..extent.end_offset());
            }
        };
        let segments: Vec<(u64, Option<Seal>)> = {
            let infos = shared.segments.infos();
            let seal = infos.iter().map(|(segment, info)| (*segment, info.seal));
            seal.collect()
        };
        for (segment, seal) in segments {
            if let Some(seal) = seal {
                let file = shared.segments.handle(segment).ok()?;
                let is_whole = visit_extents(file.as_ref(), &seal, &mut add);
                is_whole.ok().filter(|is_whole| *is_whole)?;
                continue;
            }
            let held = {
                let memory = shared.index.memory.read();
                let memory = memory.unwrap_or_else(PoisonError::into_inner);
                memory.of_segment(segment)
            };
            for (partition, place) in held {
                add(partition, place);
            }
        }
        Some(covered)
    }

    fn add(&mut self, partition: PartitionId, range: Range<Offset>) {
        let ranges = self.ranges.entry(partition).or_default();
        if let Some(last) = ranges.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
            return;
        }
        let from = ranges.partition_point(|held| held.end < range.start);
        let to = ranges.partition_point(|held| held.start <= range.end);
        let touched = ranges.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(range.start, |held| held.start);
        let end = touched.last().map_or(range.end, |held| held.end);
        let merged = start.min(range.start)..end.max(range.end);
        ranges.splice(from..to.max(from), [merged]);
    }

    /// Whether every offset in `range` is held.
    pub(super) fn holds(&self, partition: PartitionId, range: &Range<Offset>) -> bool {
        let ranges = self.ranges.get(&partition);
        let mut ranges = ranges.into_iter().flatten();
        range.is_empty() || ranges.any(|held| held.start <= range.start && range.end <= held.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId::new(1, 0);

    fn range(from: u64, to: u64) -> Range<Offset> {
        Offset(from)..Offset(to)
    }

    #[test]
    fn ranges_are_the_union_of_what_was_added_in_any_order() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let mut covered = Covered::default();
            let mut held = [false; 64];
            for _ in 0..random.usize(0..20) {
                let from = random.usize(0..60);
                let to = random.usize(from + 1..=(from + 8).min(64));
                held[from..to].fill(true);
                covered.add(P, range(from as u64, to as u64));
            }
            for from in 0..64 {
                for to in from..64 {
                    let is_held = held[from..to].iter().all(|held| *held);
                    let says = covered.holds(P, &range(from as u64, to as u64));
                    assert_eq!(says, is_held, "{from}..{to} of {covered:?}");
                }
            }
        }
        assert!(!Covered::default().holds(P, &range(3, 4)));
    }
}
