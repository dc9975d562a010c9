//! What is missing in what is kept: offsets between log start and log end that no extent holds.

use std::collections::{BTreeMap, HashMap};

use falcon_protocol::PartitionId;

use crate::store::Damage;
use crate::store::local::index::{Index, Place};
use crate::store::local::journal::state::Bounds;
use crate::store::local::segments::SegmentInfo;
use crate::store::local::{Shared, damaged, locked};

/// Looks for what a start could not see: gaps, and what was damaged before. Later calls do nothing.
pub(in crate::store::local) fn look(shared: &Shared) {
    let Some(doubts) = locked(&shared.doubts).take() else {
        return;
    };
    let found = {
        let bounds = locked(&shared.bounds).clone();
        let infos = shared.segments.infos();
        let kept = Kept {
            bounds: &bounds,
            index: &shared.index,
            infos: &infos,
        };
        kept.find(doubts.is_suspect)
    };
    for damage in &found {
        shared.note_damage(damage);
    }
    damaged::look_again(shared, &doubts.known);
    let is_changed = *locked(&shared.damage) != doubts.known;
    if is_changed {
        damaged::write(shared);
    }
}

/// What a start has to look at once the log starts are known.
#[derive(Debug)]
pub(in crate::store::local) struct Doubts {
    /// Damage that the broker before knew of.
    pub(in crate::store::local) known: Vec<Damage>,
    /// Segments are missing.
    pub(in crate::store::local) is_suspect: bool,
}

/// What a start found, to look for gaps in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) bounds: &'a HashMap<PartitionId, Bounds>,
    pub(super) index: &'a Index,
    pub(super) infos: &'a BTreeMap<u64, SegmentInfo>,
}

impl Kept<'_> {
    /// Of `damage` what is damaged indeed. Records before a log start are dead, damaged or not, and of records
    /// that were copied forward either place may be whole.
    pub(super) fn confirm(&self, damage: Vec<Damage>) -> Vec<Damage> {
        self.all_gaps(damage, true)
    }

    /// `is_known`: damage, unless all of it is found; else suspicion, and only what is not found.
    fn all_gaps(&self, mut damage: Vec<Damage>, is_known: bool) -> Vec<Damage> {
        damage.sort_unstable_by_key(|damage| (damage.partition, damage.range.start));
        let mut kept: Vec<Damage> = Vec::new();
        for Damage { partition, range } in damage {
            self.gaps(partition, range, (is_known, &mut kept));
        }
        kept
    }

    /// Every gap. The log starts must be those of the tables: what the journal says of them may be older than
    /// the removal of a segment.
    pub(super) fn find(&self, is_suspect: bool) -> Vec<Damage> {
        let mut all = Vec::new();
        let has_holes = is_suspect || self.has_holes();
        for (partition, bounds) in self.bounds {
            // Without a sign of loss, one look at each partition's front.
            if has_holes || self.lacks_front(*partition, bounds) {
                let (partition, range) = (*partition, bounds.start..bounds.end);
                all.push(Damage { partition, range });
            }
        }
        self.all_gaps(all, false)
    }

    /// An index that does not answer says nothing about the records.
    fn lacks_front(&self, partition: PartitionId, bounds: &Bounds) -> bool {
        let found = self.index.first_from(partition, bounds.start);
        let holds = |place: &Place| place.contains(bounds.start) && self.is_there(place);
        found.is_ok_and(|place| !place.as_ref().is_some_and(holds))
    }

    /// Whether a number is left out or a file is too short. Both can be lawful.
    fn has_holes(&self) -> bool {
        let numbers = self.infos.keys();
        let next = self.infos.keys().skip(1);
        let has_gap = numbers.zip(next).any(|(number, next)| number + 1 != *next);
        let is_short = |info: &SegmentInfo| info.file_bytes < info.groups_end;
        has_gap || self.infos.values().any(is_short)
    }

    /// Whether the bytes can be there at all.
    fn is_there(&self, place: &Place) -> bool {
        let info = self.infos.get(&place.segment);
        let end = place.position.saturating_add(place.extent.bytes.into());
        info.is_some_and(|info| end <= info.file_bytes)
    }

    fn gaps(
        &self,
        partition: PartitionId,
        range: std::ops::Range<falcon_protocol::Offset>,
        (is_known, kept): (bool, &mut Vec<Damage>),
    ) {
        let Some(bounds) = self.bounds.get(&partition) else {
            return;
        };
        let mut at = range.start.max(bounds.start);
        // A damaged batch may announce more records than its partition ever had.
        let end = range.end.min(bounds.end);
        while at < end {
            // An index that does not answer: reads find out, once it is rebuilt.
            let Ok(place) = self.index.first_from(partition, at) else {
                if is_known {
                    let range = at..end;
                    kept.push(Damage { partition, range });
                }
                return;
            };
            let found = place.filter(|place| place.contains(at));
            let next = match (found, place) {
                (Some(found), _) => found.extent.end_offset(),
                (None, Some(later)) => later.extent.base_offset.min(end),
                (None, None) => end,
            };
            if !found.is_some_and(|place| self.is_there(&place)) {
                let range = at..next;
                match kept.last_mut() {
                    Some(last) if last.partition == partition && last.range.end >= at => {
                        last.range.end = last.range.end.max(next);
                    }
                    Some(_) | None => kept.push(Damage { partition, range }),
                }
            }
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use falcon_protocol::Offset;

    use super::*;
    use crate::store::local::index::{MemoryIndex, Opened, open};

    const P: PartitionId = PartitionId::new(1, 0);

    /// What is found in an index without extents, and what stays of the damage 3..5.
    fn looked(is_spoiled: bool) -> (Vec<Damage>, Vec<Damage>, Vec<Damage>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let opened = open(folder.path(), Duration::from_secs(60));
        let Opened::Ready(tree) = opened else {
            panic!("{opened:?}");
        };
        if is_spoiled {
            tree.spoil(P);
        }
        let index = Index::new(MemoryIndex::default(), Some(tree));
        let bounds = Bounds {
            start: Offset(0),
            end: Offset(10),
        };
        let bounds = HashMap::from([(P, bounds)]);
        let kept = Kept {
            bounds: &bounds,
            index: &index,
            infos: &BTreeMap::new(),
        };
        let known = damage(3..5);
        (kept.find(true), kept.find(false), kept.confirm(known))
    }

    fn damage(range: std::ops::Range<u64>) -> Vec<Damage> {
        let range = Offset(range.start)..Offset(range.end);
        vec![Damage {
            partition: P,
            range,
        }]
    }

    #[test]
    fn an_index_that_does_not_answer_proves_no_loss_and_hides_none() {
        assert_eq!(looked(true), (vec![], vec![], damage(3..5)));
        assert_eq!(looked(false), (damage(0..10), damage(0..10), damage(3..5)));
    }
}
