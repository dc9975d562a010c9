//! Several readers of what the tail cache does not have any more.

use super::*;
use crate::store::Lookup;

const END: u64 = 60;

/// Batches of 1 KiB, most of which are older than the cache.
fn filled() -> (Bench, Arc<LocalStore>) {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.segment_bytes = 256 << 10;
    bench.config.first_segment_bytes = 256 << 10;
    bench.config.cache_bytes = 32 << 10;
    let (store, ..) = bench.open();
    for base in 0..END {
        append(&store, P, base, &[&[b'v'; 1024]]);
    }
    (bench, store)
}

/// How many of the newest batches are in memory.
fn cached(store: &LocalStore) -> u64 {
    let is_cached = |base: &u64| {
        let found = store.lookup(P, Offset(*base), Offset(base + 1), 2000);
        matches!(found, Lookup::Cached(_))
    };
    (0..END).rev().take_while(is_cached).count() as u64
}

/// What the cache goes without.
fn lent(store: &LocalStore) -> usize {
    let cache = store.shared.cache.read().unwrap();
    cache
        .lent_bytes()
        .load(std::sync::atomic::Ordering::Relaxed)
}

/// Reads two batches at a time, and fetches no more.
fn read_through(store: &LocalStore, from: u64, to: u64) {
    for base in (from..to).step_by(2) {
        let runs = store.read(P, Offset(base), Offset(base + 2), 2400).unwrap();
        let mut next = base;
        for mut run in runs {
            while !run.is_empty() {
                let batch = Batch::split_from(&mut run).unwrap();
                batch.verify_in(P).unwrap();
                assert_eq!(batch.header().base_offset, Offset(next));
                next += 1;
            }
        }
        assert_eq!(next, base + 2);
    }
}

#[test]
fn readers_in_the_same_place_read_once() {
    let (bench, store) = filled();
    let before = bench.disk.reads();
    read_through(&store, 0, 20);
    let alone = bench.disk.reads() - before;
    assert!(alone >= 10, "{alone}");
    let before = bench.disk.reads();
    for base in (20..30).step_by(2) {
        for _ in 0..20 {
            read_through(&store, base, base + 2);
        }
    }
    let together = bench.disk.reads() - before;
    assert!(together <= alone / 2 + 2, "{together}, alone {alone}");
}

#[test]
fn who_reads_alone_pushes_nothing_out_of_the_cache() {
    let (_bench, store) = filled();
    let before = cached(&store);
    assert!((15..40).contains(&before), "{before}");
    read_through(&store, 0, END);
    assert_eq!((cached(&store), lent(&store)), (before, 0));
}

#[test]
fn what_others_read_costs_the_cache_a_quarter_at_most() {
    let (_bench, store) = filled();
    let before = cached(&store);
    for _ in 0..3 {
        read_through(&store, 0, 2);
    }
    read_through(&store, 2, 20);
    assert!((1..=8 << 10).contains(&lent(&store)), "{}", lent(&store));
    let after = cached(&store);
    assert!(
        after < before && after >= before * 3 / 4 - 1,
        "{before} {after}"
    );
}

#[test]
fn what_is_damaged_is_given_to_nobody() {
    let (bench, store) = filled();
    let path = bench.segment_path(1);
    let at = bench.find(&path, &[b'v'; 1024]).unwrap();
    for _ in 0..3 {
        read_through(&store, 2, 4);
    }
    assert!(bench.disk.flip_bit(&path, at + 100, 0));
    for _ in 0..3 {
        assert!(values(&store, P, 0, 2).is_err());
        read_through(&store, 2, 4);
    }
}
