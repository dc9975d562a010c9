//! What is missing in what is kept: offsets between log start and log end that no extent holds.

mod covered;

use std::collections::{BTreeMap, HashMap};

use falcon_protocol::PartitionId;

use self::covered::Covered;
use crate::store::Damage;
use crate::store::local::index::{Index, Place};
use crate::store::local::journal::state::Bounds;
use crate::store::local::segments::{SegmentInfo, Segments};
use crate::store::local::{Shared, damaged, locked};

/// Looks for what a start could not see: gaps, and what was damaged before. Later calls do nothing.
pub(in crate::store::local) fn look(shared: &Shared) {
    let Some(doubts) = locked(&shared.doubts).take() else {
        return;
    };
    let found = {
        let bounds = locked(&shared.bounds).clone();
        let kept = Kept {
            bounds: &bounds,
            index: &shared.index,
            files: Files::of(&shared.segments),
        };
        kept.find(doubts.is_suspect, &|kept| Covered::of(shared, kept))
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

/// Bytes of each segment's file, and where its groups end.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<u64, (u64, u64)>);

impl Files {
    pub(super) fn of(segments: &Segments) -> Self {
        let infos = segments.infos();
        let bytes =
            |(segment, info): (&u64, &SegmentInfo)| (*segment, (info.file_bytes, info.groups_end));
        Self(infos.iter().map(bytes).collect())
    }
}

/// What a start found, to look for gaps in.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    pub(super) bounds: &'a HashMap<PartitionId, Bounds>,
    pub(super) index: &'a Index,
    pub(super) files: Files,
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
    /// the removal of a segment. Where there is a sign of loss, `cover` answers what all extents hold.
    fn find(&self, is_suspect: bool, cover: &dyn Fn(&Self) -> Option<Covered>) -> Vec<Damage> {
        let mut all = Vec::new();
        let has_holes = is_suspect || self.has_holes();
        let covered = has_holes.then(|| cover(self)).flatten();
        for (partition, bounds) in self.bounds {
            let range = bounds.start..bounds.end;
            let is_doubtful = match &covered {
                Some(covered) => !covered.holds(*partition, &range),
                // Without a sign of loss, one look at each partition's front.
                None => has_holes || self.lacks_front(*partition, bounds),
            };
            if is_doubtful {
                let partition = *partition;
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
        let numbers = self.files.0.keys();
        let next = self.files.0.keys().skip(1);
        let has_gap = numbers.zip(next).any(|(number, next)| number + 1 != *next);
        let is_short = |(file_bytes, groups_end): &(u64, u64)| file_bytes < groups_end;
        has_gap || self.files.0.values().any(is_short)
    }

    /// Whether the bytes can be there at all.
    fn is_there(&self, place: &Place) -> bool {
        let file = self.files.0.get(&place.segment);
        let end = place.position.saturating_add(place.extent.bytes.into());
        file.is_some_and(|(file_bytes, _)| end <= *file_bytes)
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
            let is_there = found.is_some_and(|place| self.is_there(&place));
            let next = match (found, place) {
                (Some(found), _) if is_there => self.index.dense_end(partition, &found),
                (Some(found), _) => found.extent.end_offset(),
                (None, Some(later)) => later.extent.base_offset.min(end),
                (None, None) => end,
            };
            if !is_there {
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
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use falcon_protocol::Offset;

    use super::*;
    use crate::io::SimDisk;
    use crate::store::local::index::{MemoryIndex, Opened, open};

    const P: PartitionId = PartitionId::new(1, 0);

    /// What is found in an index without extents, and what stays of the damage 3..5.
    fn looked(is_spoiled: bool) -> (Vec<Damage>, Vec<Damage>, Vec<Damage>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let opened = open(folder.path(), Duration::from_secs(60), &|| false);
        let Opened::Ready(tree) = opened else {
            panic!("{opened:?}");
        };
        if is_spoiled {
            tree.spoil(P);
        }
        let segments = Segments::new(Arc::new(SimDisk::new()), Path::new("/journal"), false);
        let index = Index::new(MemoryIndex::default(), Arc::new(segments));
        index.set_tree(Some(tree));
        let bounds = Bounds {
            start: Offset(0),
            end: Offset(10),
        };
        let bounds = HashMap::from([(P, bounds)]);
        let kept = Kept {
            bounds: &bounds,
            index: &index,
            files: Files::default(),
        };
        let known = damage(3..5);
        let find = |is_suspect| kept.find(is_suspect, &|_| None);
        (find(true), find(false), kept.confirm(known))
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
