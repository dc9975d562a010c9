//! Extents of recent segments.

use std::collections::{BTreeMap, HashMap};

use falcon_protocol::{Offset, PartitionId};

use super::Place;
use crate::store::local::segments::Share;

/// By segment, then partition, sorted by base offset.
#[derive(Debug, Default)]
pub(in crate::store::local) struct MemoryIndex {
    segments: BTreeMap<u64, SegmentExtents>,
}

#[derive(Debug, Default)]
struct SegmentExtents {
    count: usize,
    partitions: HashMap<PartitionId, Vec<Place>>,
}

impl MemoryIndex {
    pub(in crate::store::local) fn insert(&mut self, partition: PartitionId, place: Place) {
        let segment = self.segments.entry(place.segment).or_default();
        let places = segment.partitions.entry(partition).or_default();
        let base = place.extent.base_offset;
        let at = places.partition_point(|other| other.extent.base_offset < base);
        match places.get_mut(at) {
            Some(other) if other.extent.base_offset == base => *other = place,
            _ => {
                places.insert(at, place);
                segment.count += 1;
            }
        }
    }

    /// How many extents of a segment are held.
    pub(in crate::store::local) fn count(&self, segment: u64) -> usize {
        self.segments.get(&segment).map_or(0, |held| held.count)
    }

    /// All extents of a segment, sorted by partition and offset.
    pub(in crate::store::local) fn of_segment(&self, segment: u64) -> Vec<(PartitionId, Place)> {
        let Some(held) = self.segments.get(&segment) else {
            return Vec::new();
        };
        let mut all = Vec::with_capacity(held.count);
        for (partition, places) in &held.partitions {
            all.extend(places.iter().map(|place| (*partition, *place)));
        }
        all.sort_unstable_by_key(|(partition, place)| (*partition, place.extent.base_offset));
        all
    }

    /// The partitions that a segment has extents of, sorted.
    pub(in crate::store::local) fn partitions(&self, segment: u64) -> Vec<PartitionId> {
        let held = self.segments.get(&segment);
        let mut all: Vec<_> =
            held.map_or_else(Vec::new, |held| held.partitions.keys().copied().collect());
        all.sort_unstable();
        all
    }

    /// Up to `most` extents of a partition in a segment from the one with number `from` on, in order.
    pub(in crate::store::local) fn some_of(
        &self,
        (segment, partition): (u64, PartitionId),
        from: usize,
        most: usize,
    ) -> &[Place] {
        let held = self.segments.get(&segment);
        let places = held.and_then(|held| held.partitions.get(&partition));
        let rest = places.and_then(|places| places.get(from..));
        let rest = rest.unwrap_or_default();
        rest.get(..most).unwrap_or(rest)
    }

    /// What a segment holds of each partition, sorted.
    pub(in crate::store::local) fn shares(&self, segment: u64) -> Vec<(PartitionId, Share)> {
        let Some(held) = self.segments.get(&segment) else {
            return Vec::new();
        };
        let share =
            |(partition, places): (&PartitionId, &Vec<Place>)| (*partition, Share::of(places));
        let mut shares: Vec<_> = held.partitions.iter().map(share).collect();
        shares.sort_unstable_by_key(|(partition, _)| *partition);
        shares
    }

    pub(in crate::store::local) fn remove(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// The extent that contains `from`, else the first one after it. Of two that contain it the one
    /// in the later segment counts.
    pub(in crate::store::local) fn first_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Option<Place> {
        let mut after: Option<Place> = None;
        for held in self.segments.values().rev() {
            let Some(places) = held.partitions.get(&partition) else {
                continue;
            };
            let at = places.partition_point(|place| place.extent.end_offset() <= from);
            let Some(place) = places.get(at) else {
                continue;
            };
            if place.contains(from) {
                return Some(*place);
            }
            let is_nearer =
                after.is_none_or(|nearest| place.extent.base_offset < nearest.extent.base_offset);
            if is_nearer {
                after = Some(*place);
            }
        }
        after
    }

    /// Base offset of the first extent held of a partition with a record time of `timestamp_ms` or
    /// later.
    pub(in crate::store::local) fn time_floor(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Option<Offset> {
        let bases = self.segments.values().filter_map(|held| {
            let mut places = held.partitions.get(&partition)?.iter();
            let found = places.find(|place| place.extent.max_timestamp_ms >= timestamp_ms)?;
            Some(found.extent.base_offset)
        });
        bases.min()
    }
}
