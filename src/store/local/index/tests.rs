use std::path::Path;
use std::time::Duration;

use super::footers::tests::{fill, partition, seal};
use super::*;
use crate::io::{Disk, SimDisk};

/// An index with sled and no segment in it.
fn empty(folder: &Path) -> (Index, Arc<Segments>, SimDisk) {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/journal")).unwrap();
    let opener: Arc<dyn Disk> = Arc::new(disk.clone());
    let segments = Arc::new(Segments::new(opener, Path::new("/journal"), false));
    let index = Index::new(MemoryIndex::default(), Arc::clone(&segments));
    let opened = open(folder, Duration::from_secs(60), &|| false);
    let Opened::Ready(tree) = opened else {
        panic!("{opened:?}");
    };
    index.set_tree(Some(tree));
    (index, segments, disk)
}

fn pages(memory: &MemoryIndex, segment: u64) -> Vec<(PartitionId, Page)> {
    let mut paging = Paging::default();
    for (partition, place) in memory.of_segment(segment) {
        paging.add(partition, &place);
    }
    paging.finish()
}

fn compare(index: &Index, memory: &MemoryIndex, ends: &[u64], random: &mut fastrand::Rng) {
    for _ in 0..1_000 {
        let number = random.u32(0..=u32::try_from(ends.len()).unwrap());
        let id = partition(number);
        let end = ends.get(number as usize).copied().unwrap_or(9);
        let from = Offset(random.u64(0..=end + 2));
        let found = index.first_from(id, from).unwrap();
        assert_eq!(found, memory.first_from(id, from), "{id} {from:?}");
        let time = random.i64(-1..1001);
        let floor = index.time_floor(id, time).unwrap();
        match memory.time_floor(id, time) {
            // Of a page, the first extent that has the time is a few extents on.
            Some(first) => assert!(floor.is_some_and(|floor| floor <= first), "{id} {time}"),
            None => assert_eq!(floor, None, "{id} {time}"),
        }
    }
}

#[test]
fn sled_answers_what_memory_answers_while_segments_come_and_go() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let (index, segments, disk) = empty(folder.path());
        let mut numbers = Vec::new();
        let (mut memory, ends) = fill(&mut random, &mut |memory, segment| {
            seal(&segments, &disk, memory, segment);
            numbers.push(segment);
        });
        for info in segments.infos_mut().values_mut() {
            info.is_by_footer = false;
            info.is_indexed = true;
        }
        // The keeper takes them in turn, but may leave one out until later, and begins anew after a crash.
        random.shuffle(&mut numbers);
        for number in numbers.iter().chain(numbers.first()) {
            let tree = index.tree().unwrap();
            tree.insert(&pages(&memory, *number)).unwrap();
        }
        compare(&index, &memory, &ends, &mut random);
        numbers.sort_unstable();
        for number in numbers {
            let shares = memory.shares(number);
            memory.remove(number);
            index.tree().unwrap().remove(number, &shares).unwrap();
            segments.forget(number);
            compare_places(&index, &memory, &ends, &mut random);
        }
        assert_eq!(index.tree().unwrap().pages().count(), 0);
    }
}

fn compare_places(index: &Index, memory: &MemoryIndex, ends: &[u64], random: &mut fastrand::Rng) {
    for _ in 0..200 {
        let number = random.u32(0..u32::try_from(ends.len()).unwrap());
        let id = partition(number);
        let from = Offset(random.u64(0..=ends[number as usize]));
        let found = index.first_from(id, from).unwrap();
        assert_eq!(found, memory.first_from(id, from), "{id} {from:?}");
    }
}

#[test]
fn a_segment_has_far_fewer_pages_than_extents_and_a_page_has_a_limit() {
    let mut paging = Paging::default();
    let mut rows = 0;
    for number in 0..3 {
        for base in 0..200 {
            let extent = Extent {
                base_offset: Offset(base),
                record_count: 1,
                bytes: 100,
                max_timestamp_ms: 0,
                append_time_ms: 0,
            };
            let place = Place {
                segment: 1,
                position: 4096,
                extent,
                is_copy: false,
            };
            paging.add(partition(number), &place);
            rows += 1;
        }
    }
    let pages = paging.finish();
    assert_eq!(pages.len(), 9);
    assert_eq!(pages.iter().map(|(_, page)| page.rows).sum::<u32>(), rows);
    assert!(pages.iter().all(|(_, page)| page.rows <= 85));
}

/// A lookup that looked into memory before the copy came, and into the footers after the original went, would find
/// neither.
#[test]
fn a_time_is_found_while_the_extent_that_has_it_moves() {
    const MOVES: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let (index, segments, disk) = empty(folder.path());
    let id = partition(1);
    let place = |segment| Place {
        segment,
        position: 4096,
        extent: Extent {
            base_offset: Offset(3),
            record_count: 1,
            bytes: 100,
            max_timestamp_ms: 5,
            append_time_ms: 5,
        },
        is_copy: segment > 1,
    };
    let mut original = MemoryIndex::default();
    original.insert(id, place(1));
    seal(&segments, &disk, &original, 1);
    index.recount_footers();
    let info = segments.infos().get(&1).unwrap().clone();
    let is_over = AtomicBool::new(false);
    let look = || {
        while !is_over.load(Ordering::Relaxed) {
            assert_eq!(index.time_floor(id, 5).unwrap(), Some(Offset(3)));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
        for _ in 0..MOVES {
            // Who looked into memory waits here before it looks at the footers.
            let mut infos = segments.infos_mut();
            std::thread::yield_now();
            index.memory.write().unwrap().insert(id, place(2));
            index.note_removal();
            infos.remove(&1);
            drop(infos);
            index.note_removal();
            index.recount_footers();
            segments.infos_mut().insert(1, info.clone());
            index.recount_footers();
            index.remove_from_memory(2);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
