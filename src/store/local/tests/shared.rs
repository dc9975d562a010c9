//! Several readers of what the tail cache does not have any more.

use super::*;
use crate::store::Lookup;

const END: u64 = 60;

/// 1 KiB that is in no other batch.
fn value(base: u64) -> Vec<u8> {
    format!("{base:01024}").into_bytes()
}

/// Batches of 1 KiB, most of which are older than the cache. The first group has as many as it is told.
fn filled_behind(first: u64) -> (Bench, Arc<LocalStore>) {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.segment_bytes = 256 << 10;
    bench.config.first_segment_bytes = 256 << 10;
    bench.config.extent_bytes = 4 << 10;
    bench.config.cache_bytes = 32 << 10;
    let (store, ..) = bench.open();
    let batches = (0..first).map(|base| stamped(P, base, batch(&[&value(base)], 1000)));
    let group = CommitGroup {
        batches: batches.collect(),
        rows: Vec::new(),
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
    for base in first..END {
        append(&store, P, base, &[&value(base)]);
    }
    (bench, store)
}

fn filled() -> (Bench, Arc<LocalStore>) {
    filled_behind(1)
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

/// Reads up to two batches, fetches no more, and answers where that ended.
fn read(store: &LocalStore, from: u64, to: u64) -> Result<u64, ReadError> {
    let runs = store.read(P, Offset(from), Offset(to), 2400)?;
    let mut next = from;
    for mut run in runs {
        while !run.is_empty() {
            let batch = Batch::split_from(&mut run).unwrap();
            batch.verify_in(P).unwrap();
            assert_eq!(batch.header().base_offset, Offset(next));
            next += 1;
        }
    }
    Ok(next)
}

/// Reads two batches at a time.
fn read_through(store: &LocalStore, from: u64, to: u64) {
    for base in (from..to).step_by(2) {
        assert_eq!(read(store, base, base + 2).unwrap(), base + 2);
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
    let at = bench.find(&path, &value(4)).unwrap();
    assert!(bench.disk.flip_bit(&path, at + 100, 0));
    for _ in 0..3 {
        // Fetches the next one along.
        read_through(&store, 2, 4);
        assert!(read(&store, 4, 6).is_err());
        // What precedes the damage is worth having.
        assert_eq!(read(&store, 3, 5).unwrap(), 4);
    }
    assert!(lent(&store) > 0, "nothing stayed");
}

#[test]
fn nor_is_the_rest_of_an_extent_that_nobody_wanted() {
    for (damaged, wanted) in [(0, 1), (1, 0)] {
        let (bench, store) = filled_behind(2);
        let path = bench.segment_path(1);
        let at = bench.find(&path, &value(damaged)).unwrap();
        assert!(bench.disk.flip_bit(&path, at + 100, 0));
        for _ in 0..3 {
            // There are several readers, so what was checked stays.
            read_through(&store, 2, 6);
            assert_eq!(read(&store, wanted, wanted + 1).unwrap(), wanted + 1);
            assert!(read(&store, damaged, damaged + 1).is_err());
        }
        assert!(lent(&store) > 0, "nothing stayed");
    }
}

#[test]
fn nobody_waits_for_himself() {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.segment_bytes = 4 << 20;
    bench.config.first_segment_bytes = 4 << 20;
    let (store, ..) = bench.open();
    for base in 0..40 {
        append(&store, P, base, &[&vec![b'v'; 64 << 10]]);
    }
    // More than is fetched at once.
    let read_all = move || {
        let runs = store.read(P, Offset(0), Offset(30), 3 << 20).unwrap();
        runs.iter().map(Bytes::len).sum::<usize>()
    };
    let reading = std::thread::Builder::new().spawn(read_all).unwrap();
    wait_until(|| reading.is_finished());
    assert!(reading.join().unwrap() > 30 * (64 << 10));
}
