//! What is fetched past the page cache is what the file has, whatever memory it went through.

use std::collections::HashSet;
use std::io::Write as _;
use std::iter;
use std::path::PathBuf;
use std::thread;

use super::scratch::{self, PLACE_BYTES, Scratch};
use super::*;
use crate::io::BLOCK_BYTES;

const FILE_BYTES: usize = 4 * PLACE_BYTES + 1234;

/// No two places of it have the same bytes around them.
fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    iter::repeat_with(|| random.u8(..))
        .take(FILE_BYTES)
        .collect()
}

fn file_of(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    let mut file = File::create(&path).expect("a file");
    file.write_all(content).expect("room for it");
    file.sync_all().expect("a disk");
    (dir, path)
}

/// All that are free: other tests of the process may have some.
fn all_places() -> Vec<Scratch> {
    iter::from_fn(scratch::take).collect()
}

fn fetch_and_compare(file: &dyn DiskFile, content: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for nth in 0..60 {
        let from = match random.u8(0..3) {
            0 => random.usize(0..content.len() / BLOCK_BYTES) * BLOCK_BYTES,
            _ => random.usize(0..content.len() + 3 * BLOCK_BYTES),
        };
        let bytes = match random.u8(0..4) {
            0 => random.usize(1..100),
            1 => random.usize(1..64) * BLOCK_BYTES,
            2 => random.usize(PLACE_BYTES - BLOCK_BYTES..PLACE_BYTES + BLOCK_BYTES),
            _ => random.usize(1..3 * PLACE_BYTES),
        };
        let got = file.fetch(from as u64, bytes).expect("a disk");
        let end = (from + bytes).min(content.len());
        let known = content.get(from..end).unwrap_or_default();
        assert!(got == known, "seed {seed}, {nth}: {bytes} bytes at {from}");
    }
}

#[test]
fn many_fetch_past_the_page_cache_at_a_time() {
    let content = content();
    let (_dir, path) = file_of(&content);
    let file = RealDisk.open_direct(&path).expect("a file");
    // More than there are places.
    thread::scope(|scope| {
        for seed in 0..8 {
            let (file, content) = (file.as_ref(), content.as_slice());
            scope.spawn(move || fetch_and_compare(file, content, seed));
        }
    });
}

#[test]
fn who_finds_no_place_reads_into_memory_of_his_own() {
    let content = content();
    let (_dir, path) = file_of(&content);
    let file = RealDisk.open_direct(&path).expect("a file");
    let places = all_places();
    fetch_and_compare(file.as_ref(), &content, 8);
    drop(places);
    fetch_and_compare(file.as_ref(), &content, 9);
}

#[test]
fn places_suit_the_device_lie_apart_and_come_back() {
    let mut seen = HashSet::new();
    for _ in 0..20 {
        for place in all_places() {
            assert_eq!(place.len(), PLACE_BYTES);
            assert!(place.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            seen.insert(place.as_ptr().addr());
        }
    }
    let mut starts: Vec<_> = seen.into_iter().collect();
    starts.sort_unstable();
    assert!((1..=3).contains(&starts.len()), "{} places", starts.len());
    let are_apart = |pair: &[usize]| pair[1] - pair[0] >= PLACE_BYTES;
    assert!(starts.windows(2).all(are_apart));
}

#[test]
fn what_a_fetch_returns_stays_when_others_read() {
    let content = content();
    let (_dir, path) = file_of(&content);
    let file = RealDisk.open_direct(&path).expect("a file");
    let kept: Vec<_> = (0..20_usize)
        .map(|nth| {
            let from = nth * 5000;
            let got = file.fetch(from as u64, 300_000).expect("a disk");
            (from, got)
        })
        .collect();
    for (from, got) in kept {
        assert!(got == content[from..from + 300_000], "at {from}");
    }
}
