use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::io::{Disk, SimDisk};
use crate::store::Extent;
use crate::store::local::index::{Index, MemoryIndex, Opened, Paging, open};
use crate::store::local::journal::footer::{Summary, encode};

pub(in crate::store::local::index) fn partition(number: u32) -> PartitionId {
    PartitionId::new(1 + number % 2, number)
}

/// A segment of these extents as the keeper leaves it.
pub(in crate::store::local::index) fn seal(
    segments: &Segments,
    disk: &SimDisk,
    memory: &MemoryIndex,
    segment: u64,
) {
    let summary = Summary {
        segment,
        shares: memory.shares(segment),
        ..Summary::default()
    };
    let (bytes, summary_bytes) = encode(&summary, &memory.of_segment(segment));
    let seal = Seal {
        segment,
        nonce: 0,
        summary_bytes: u32::try_from(summary_bytes).unwrap(),
        groups_end: 4096,
        footer_position: 4096,
        footer_bytes: bytes.len() as u64,
        first_seq: 0,
        end_seq: 1,
    };
    let file = disk.create(&segments.path(segment)).unwrap();
    file.write_at(seal.footer_position, &bytes).unwrap();
    let info = SegmentInfo {
        file_bytes: u64::MAX,
        shares: summary.shares,
        seal: Some(seal),
        is_by_footer: true,
        ..SegmentInfo::default()
    };
    segments.infos_mut().insert(segment, info);
}

/// Random extents of segments, and where the partitions end.
pub(in crate::store::local::index) fn fill(
    random: &mut fastrand::Rng,
    on_segment: &mut dyn FnMut(&MemoryIndex, u64),
) -> (MemoryIndex, Vec<u64>) {
    let mut memory = MemoryIndex::default();
    let partitions = random.u32(1..40);
    let mut ends = vec![0_u64; partitions as usize];
    for segment in 1..random.u64(2..8) {
        for number in 0..partitions {
            let end = &mut ends[number as usize];
            let mut held: Vec<Range<Offset>> = Vec::new();
            for _ in 0..random.usize(0..60) {
                // Some leave offsets out, some repeat what is in an earlier segment.
                let gap = if random.u8(0..10) == 0 { 3 } else { 0 };
                let base = if random.u8(0..20) == 0 {
                    *end / 2
                } else {
                    *end + gap
                };
                let extent = Extent {
                    base_offset: Offset(base),
                    record_count: random.u32(1..5),
                    bytes: 100,
                    max_timestamp_ms: random.i64(0..1000),
                    append_time_ms: 0,
                };
                if base >= *end {
                    *end = extent.end_offset().0;
                }
                let place = Place {
                    segment,
                    position: 4096,
                    extent,
                    is_copy: false,
                };
                let range = extent.base_offset..extent.end_offset();
                let is_apart =
                    |other: &Range<Offset>| other.end <= range.start || range.end <= other.start;
                if held.iter().all(is_apart) {
                    held.push(range);
                    memory.insert(partition(number), place);
                }
            }
        }
        on_segment(&memory, segment);
    }
    (memory, ends)
}

#[test]
fn footers_answer_what_memory_answers() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20 {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/journal")).unwrap();
        let segments = Arc::new(Segments::new(
            Arc::new(disk.clone()),
            Path::new("/journal"),
            false,
        ));
        let (memory, ends) = fill(&mut random, &mut |memory, segment| {
            seal(&segments, &disk, memory, segment);
        });
        let partitions = u32::try_from(ends.len()).unwrap();
        let footers = Footers::new(segments);
        footers.recount();
        for _ in 0..2_000 {
            let number = random.u32(0..=partitions);
            let id = partition(number);
            let end = ends.get(number as usize).copied().unwrap_or(9);
            let from = Offset(random.u64(0..=end + 2));
            let found = footers.first_from(id, from).unwrap();
            assert_eq!(found, memory.first_from(id, from), "{id} {from:?}");
            let time = random.i64(-1..1001);
            let floor = footers.time_floor(id, time).unwrap();
            assert_eq!(floor, memory.time_floor(id, time), "{id} {time}");
            if let Some(place) = found {
                let dense = footers.dense_end(id, &place).unwrap();
                assert!(dense >= place.extent.end_offset());
                let mut at = place.extent.base_offset;
                while at < dense {
                    let next = memory.first_from(id, at).unwrap();
                    assert!(next.contains(at), "{id} {at:?} of {place:?} to {dense:?}");
                    at = next.extent.end_offset();
                }
            }
        }
    }
}

fn journal() -> (SimDisk, Arc<Segments>) {
    let disk = SimDisk::new();
    let dir = Path::new("/journal");
    disk.create_dir_all(dir).unwrap();
    let segments = Segments::new(Arc::new(disk.clone()), dir, false);
    (disk, Arc::new(segments))
}

/// Extents of ten records each from these offsets on, in one segment.
fn places(segment: u64, bases: &[u64]) -> MemoryIndex {
    let mut memory = MemoryIndex::default();
    for base in bases {
        let extent = Extent {
            base_offset: Offset(*base),
            record_count: 10,
            bytes: 100,
            max_timestamp_ms: 0,
            append_time_ms: 0,
        };
        let place = Place {
            segment,
            position: 4096,
            extent,
            is_copy: false,
        };
        memory.insert(partition(0), place);
    }
    memory
}

#[test]
fn a_footer_that_cannot_be_read_is_passed_over_where_another_has_the_extent() {
    let (disk, segments) = journal();
    seal(&segments, &disk, &places(1, &[0, 10]), 1);
    seal(&segments, &disk, &places(2, &[10, 40]), 2);
    let footers = Footers::new(Arc::clone(&segments));
    footers.recount();
    let find = |from| footers.first_from(partition(0), Offset(from));
    let segment_of = |from| find(from).unwrap().map(|place| place.segment);
    assert_eq!(segment_of(12), Some(2));
    assert!(disk.make_unreadable(&segments.path(2), 4096..1 << 20));
    assert_eq!(segment_of(12), Some(1), "the bytes are in both");
    assert_eq!(segment_of(3), Some(1));
    assert!(find(20).is_err(), "the other one may have it");
    assert!(find(41).is_err());
    assert_eq!(segment_of(60), None);
}

#[test]
fn a_footer_that_cannot_be_read_is_passed_over_where_sled_has_the_extent() {
    let (disk, segments) = journal();
    seal(&segments, &disk, &places(2, &[0, 40]), 2);
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&dir.path().join("index"), Duration::from_secs(60), &|| {
        false
    });
    let Opened::Ready(tree) = opened else {
        panic!("sled does not open");
    };
    let older = places(1, &[10]);
    seal(&segments, &disk, &older, 1);
    if let Some(info) = segments.infos_mut().get_mut(&1) {
        info.is_by_footer = false;
        info.is_indexed = true;
    }
    let mut paging = Paging::default();
    for (partition, place) in older.of_segment(1) {
        paging.add(partition, &place);
    }
    tree.insert(&paging.finish()).unwrap();
    let index = Index::new(MemoryIndex::default(), Arc::clone(&segments));
    index.set_tree(Some(tree));
    let find = |from| index.first_from(partition(0), Offset(from));
    assert!(disk.make_unreadable(&segments.path(2), 4096..1 << 20));
    assert_eq!(
        find(12).unwrap(),
        older.first_from(partition(0), Offset(12))
    );
    assert!(
        find(3).is_err(),
        "sled has what follows, the footer may have it"
    );
    assert!(!index.is_suspect(), "sled is not to blame");
}
