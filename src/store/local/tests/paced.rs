//! What is dead is used again before it is removed, and what is about to die is not copied.

use std::time::Duration;

use super::*;
use crate::clock::Instant;
use crate::io::{SimFault, SimOperation, SimTimes};
use crate::store::local::forward::Watched;

const LONG: Duration = Duration::from_secs(3600);

/// A busy broker that keeps what is dead for later.
fn busy() -> Bench {
    let mut bench = Bench::new();
    bench.config.spare_segments = 1;
    bench.config.reuse_within = LONG;
    bench.config.forward_after = LONG;
    bench
}

/// Appends until so many segments were begun; answers the next offset.
fn roll(store: &LocalStore, mut base: u64, segments: usize) -> u64 {
    for _ in 0..segments {
        wait_until(|| store.shared.signal.spares() > 0);
        while !store.wants_snapshot() {
            append(store, P, base, &[&[b'v'; 900]]);
            base += 1;
        }
        store.commit_snapshot(Vec::new()).unwrap();
    }
    base
}

/// A store with eight segments behind it and a spare; and the next offset.
fn rolled(bench: &Bench) -> (Arc<LocalStore>, u64) {
    let (store, ..) = bench.open();
    index_report(&store);
    append(&store, P, 0, &[b"first"]);
    let end = roll(&store, 1, 8);
    wait_until(|| store.shared.signal.spares() > 0);
    (store, end)
}

fn prepared(store: &LocalStore) -> u64 {
    store.shared.config.metrics.journal.bytes_prepared.value()
}

fn reclaimed(store: &LocalStore) -> u64 {
    store.shared.config.metrics.reads.segments_reclaimed.value()
}

#[test]
fn segments_to_come_are_made_of_dead_ones() {
    let bench = busy();
    let (store, end) = rolled(&bench);
    let before = (prepared(&store), reclaimed(&store));
    store.trim(P, Some(Offset(end)));
    let again = roll(&store, end, 6);
    wait_until(|| store.shared.signal.spares() > 0);
    assert_eq!(prepared(&store), before.0, "none was filled");
    assert_eq!(reclaimed(&store), before.1 + 6, "none was removed");
    assert_eq!(
        values(&store, P, again - 1, again).unwrap(),
        vec![(again - 1, vec![b'v'; 900])]
    );
}

#[test]
fn what_is_kept_for_later_goes_at_once_when_space_is_short() {
    let bench = busy();
    let (store, end) = rolled(&bench);
    store.trim(P, Some(Offset(end)));
    // Removed as soon as somebody looks, which a keeper with nothing to do but wait does by itself.
    bench.disk.set_free_bytes(bench.config.free_floor_bytes + 1);
    wait_until(|| store.usage().segments == 1);
}

/// P has a record in each segment for as long as it wants, Q is trimmed.
fn sparse(bench: &Bench) -> (Arc<LocalStore>, u64) {
    let (store, ..) = bench.open();
    index_report(&store);
    append(&store, Q, 0, &[b"stays"]);
    append(&store, P, 0, &[b"first"]);
    let end = roll(&store, 1, 3);
    store.trim(P, Some(Offset(end)));
    (store, end)
}

#[test]
fn a_segment_of_which_little_is_left_waits_before_it_is_copied_and_not_when_space_is_short() {
    let mut bench = busy();
    let copied = |store: &LocalStore| store.shared.config.metrics.journal.bytes_copied.value();
    let (store, _) = sparse(&bench);
    tidy(&store);
    assert_eq!(copied(&store), 0);
    bench.disk.set_free_bytes(bench.config.free_floor_bytes + 1);
    tidy(&store);
    assert!(copied(&store) > 0);
    drop(store);
    bench = busy();
    bench.config.forward_after = Duration::ZERO;
    let (store, _) = sparse(&bench);
    tidy(&store);
    assert!(copied(&store) > 0);
    assert_eq!(values(&store, Q, 0, 1).unwrap().len(), 1);
}

#[test]
fn what_halves_again_and_again_is_left_alone_and_what_does_not_is_due() {
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    let mut watched = Watched::default();
    assert!(!watched.is_due((1, 100), minute, start));
    assert!(!watched.is_due((1, 100), minute, start.after(minute / 2)));
    let mut live = 100;
    let mut now = start;
    for _ in 0..5 {
        (now, live) = (now.after(minute), live / 2);
        assert!(!watched.is_due((1, live), minute, now), "{live}");
    }
    now = now.after(minute);
    assert!(watched.is_due((1, live), minute, now));
    assert!(
        !watched.is_due((2, 7), minute, now),
        "it was not seen before"
    );
}

/// A store whose `n`th sync failed after another segment was begun, if that was the keeper's and of a segment; and
/// the next offset.
fn with_a_failed_seal(bench: &Bench, n: u64) -> Option<(Arc<LocalStore>, u64)> {
    let (store, ..) = bench.open();
    index_report(&store);
    append(&store, P, 0, &[b"first"]);
    let mut end = roll(&store, 1, 3);
    wait_until(|| store.shared.signal.spares() > 0);
    while !store.wants_snapshot() {
        append(&store, P, end, &[&[b'v'; 900]]);
        end += 1;
    }
    bench.disk.fail_sync(n, SimFault::Device);
    store.commit_snapshot(Vec::new()).ok()?;
    wait_until(|| !bench.disk.failures().is_empty());
    let failure = bench.disk.failures().pop()?;
    let name = failure.path.file_name()?.to_str()?;
    let is_seal = failure.thread == "falcon-keeper" && !name.starts_with("spare");
    is_seal.then_some((store, end))
}

#[test]
fn a_dead_segment_that_a_sync_failed_on_is_removed_and_not_written_over() {
    let mut seals = 0;
    for n in 1..=4 {
        let bench = busy();
        let Some((store, end)) = with_a_failed_seal(&bench, n) else {
            continue;
        };
        seals += 1;
        store.trim(P, Some(Offset(end)));
        roll(&store, end, 6);
        assert_eq!(bench.disk.used_after_failed_sync(), 0, "sync {n}");
        wait_until(|| reclaimed(&store) == 4);
    }
    assert!(seals > 0, "no segment was sealed");
}

/// Files without meaning.
fn spares(bench: &Bench) -> usize {
    let names = bench.disk.paths().into_iter();
    names
        .filter(|path| path.to_string_lossy().contains("spare-"))
        .count()
}

/// Sizes of those that are shorter than a segment.
fn cut_files(bench: &Bench) -> Vec<u64> {
    let dir = bench.config.data_dir.join("journal");
    let paths = bench.disk.paths().into_iter();
    let spares =
        paths.filter(|path| path.starts_with(&dir) && path.to_string_lossy().contains("spare-"));
    let sizes = spares.filter_map(|path| bench.disk.open(&path).ok()?.len_bytes().ok());
    sizes
        .filter(|bytes| *bytes < bench.config.segment_bytes)
        .collect()
}

/// A broker with dead segments that it does not keep, which go in eight pieces; and the next offset.
fn removing() -> (Bench, Arc<LocalStore>, u64) {
    let mut bench = Bench::new();
    bench.config.spare_segments = 1;
    bench.config.forward_after = LONG;
    bench.config.segment_bytes = 256 << 10;
    bench.config.removal_bytes = 32 << 10;
    bench.config.busy_for = Duration::from_millis(100);
    let (store, end) = rolled(&bench);
    // It has not rolled for longer than it counts as busy, but it writes.
    let mut next = end;
    let rolled = Instant::now();
    wait_until(|| {
        append(&store, P, next, &[b"v"]);
        next += 1;
        Instant::now().since(rolled) > bench.config.busy_for * 2
    });
    store.trim(P, Some(Offset(end)));
    append(&store, P, next, &[b"the trim rides in this"]);
    wait_until(|| !cut_files(&bench).is_empty());
    (bench, store, next + 1)
}

#[test]
fn a_dead_segment_gets_shorter_piece_by_piece_while_somebody_commits() {
    let (bench, store, mut next) = removing();
    let mut seen = std::collections::BTreeSet::new();
    let mut files = 0;
    let (begun, before) = (Instant::now(), bench.disk.count(SimOperation::SetLen));
    wait_until(|| {
        append(&store, P, next, &[b"v"]);
        next += 1;
        let sizes = cut_files(&bench);
        files = files.max(sizes.len());
        seen.extend(sizes.iter().copied());
        store.usage().segments <= 2 && sizes.is_empty()
    });
    let piece = bench.config.removal_bytes;
    assert!(seen.iter().all(|bytes| bytes % piece == 0), "{seen:?}");
    assert!(seen.len() > 5, "{seen:?}");
    assert_eq!(files, 1, "one at a time");
    let cuts = bench.disk.count(SimOperation::SetLen) - before;
    let pauses = Duration::from_millis(16) * u32::try_from(cuts).unwrap();
    let took = Instant::now().since(begun);
    assert!(took >= pauses, "{cuts} cuts in {took:?}");
}

#[test]
fn what_is_left_of_a_dead_segment_goes_at_once_when_space_is_short_or_the_broker_stops() {
    for is_stopped in [false, true] {
        let (bench, store, _) = removing();
        if is_stopped {
            drop(store);
            assert!(cut_files(&bench).is_empty());
            continue;
        }
        let cuts = || bench.disk.count(SimOperation::SetLen);
        let before = cuts();
        bench.disk.set_free_bytes(bench.config.free_floor_bytes + 1);
        wait_until(|| cut_files(&bench).is_empty() && store.usage().segments <= 2);
        assert!(cuts() - before < 3, "it was cut on");
    }
}

#[test]
fn a_start_removes_what_a_kill_left_of_a_dead_segment_and_keeps_the_spare() {
    // In which order the names are found is left to chance.
    for _ in 0..6 {
        let (mut bench, store, _) = removing();
        let mut killed = bench.disk.killed();
        wait_until(|| {
            killed = bench.disk.killed();
            std::mem::swap(&mut bench.disk, &mut killed);
            let is_so = !cut_files(&bench).is_empty() && spares(&bench) == 2;
            std::mem::swap(&mut bench.disk, &mut killed);
            is_so
        });
        drop(store);
        bench.disk = killed;
        let (store, ..) = bench.open();
        let before = prepared(&store);
        assert!(cut_files(&bench).is_empty());
        wait_until(|| store.shared.signal.spares() > 0);
        assert_eq!(prepared(&store), before, "it was there already");
    }
}

#[test]
fn a_dead_segment_that_cannot_be_cut_is_removed_whole() {
    let (bench, store, _) = removing();
    let cuts = || bench.disk.count(SimOperation::SetLen);
    let before = cuts();
    bench
        .disk
        .fail(SimOperation::SetLen, 1, SimFault::Device, SimTimes::Sticky);
    wait_until(|| store.usage().segments <= 2 && cut_files(&bench).is_empty());
    assert!(cuts() - before < 16, "one try a segment");
}
