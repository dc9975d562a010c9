//! Copy-forward: space follows live data, bytes and offsets stay, damage is left where it is.

use super::model::settle;
use super::*;
use crate::store::Damage;

/// P gets a little, Q gets much; Q is trimmed all the time.
fn mix(store: &LocalStore, rounds: std::ops::Range<u64>) {
    for base in rounds {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        if base.is_multiple_of(8) {
            append(
                store,
                P,
                base / 8,
                &[format!("kept-{}", base / 8).as_bytes()],
            );
        }
        append(store, Q, base, &[&[2; 900]]);
        store.trim(Q, Some(Offset(base.saturating_sub(4))));
    }
}

fn check(store: &LocalStore, records: u64) {
    let expected = (0..records).map(|n| (n, format!("kept-{n}").into_bytes()));
    let mut found = Vec::new();
    while (found.len() as u64) < records {
        found.extend(values(store, P, found.len() as u64, records).unwrap());
    }
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn space_follows_live_data_whatever_else_is_in_the_segments() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    for round in 0..10 {
        mix(&store, round * 80..(round + 1) * 80);
        tidy(&store);
        settle(&store);
        assert!(store.usage().segments <= 5, "{:?}", store.usage());
        check(&store, (round + 1) * 10);
    }
    append(&store, Q, 800, &[b"carries the trims"]);
    store.close(Vec::new()).unwrap();
    drop(store);
    for is_clean in [true, false] {
        let (store, report, _) = bench.open();
        assert_eq!((report.damage, report.was_clean), (vec![], is_clean));
        check(&store, 100);
        let found = store.find_time(P, Offset(3), 1000).unwrap();
        assert_eq!(found, Some(Offset(3)));
    }
}

#[test]
fn a_deleted_topic_gives_its_space_back_through_its_neighbours() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    for base in 0..80 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        if base % 8 == 0 {
            append(
                &store,
                P,
                base / 8,
                &[format!("kept-{}", base / 8).as_bytes()],
            );
        }
        append(&store, Q, base, &[&[2; 900]]);
    }
    let before = store.usage().segments;
    store.trim(Q, None);
    tidy(&store);
    settle(&store);
    assert!(
        store.usage().segments <= 2,
        "{:?} of {before}",
        store.usage()
    );
    check(&store, 10);
}

#[test]
fn a_segment_with_live_damage_is_left_as_it_is() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let (store, ..) = bench.open();
    mix(&store, 0..80);
    settle(&store);
    let path = bench.segment_path(2);
    let at = bench.find(&path, b"kept-").unwrap();
    assert!(bench.disk.flip_bit(&path, at, 0));
    tidy(&store);
    settle(&store);
    let damage = store.damage();
    let [
        Damage {
            partition: P,
            range,
        },
    ] = damage.as_slice()
    else {
        panic!("{damage:?}");
    };
    assert_eq!(range.end.0, range.start.0 + 1);
    assert!(bench.disk.open(&path).is_ok(), "the bytes are gone");
    let read = values(&store, P, range.start.0, 10);
    assert!(matches!(read, Err(ReadError::Damaged(_))), "{read:?}");
    assert_eq!(
        values(&store, P, range.end.0, range.end.0 + 1)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn rot_in_a_copy_is_no_loss_while_the_original_is_there() {
    let mut bench = Bench::new();
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    mix(&store, 0..40);
    settle(&store);
    // The copies are durable; what they were copied from is not reclaimed yet.
    assert!(store.gather());
    store.tidy().unwrap();
    append(&store, Q, 40, &[b"after"]);
    drop(store);
    let last = bench
        .disk
        .paths()
        .into_iter()
        .rfind(|path| bench.find(path, b"kept-0").is_some());
    let last = last.unwrap();
    assert_ne!(last, bench.segment_path(1));
    let at = bench.find(&last, b"kept-0").unwrap();
    assert!(bench.disk.flip_bit(&last, at, 0));
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![]);
    check(&store, 5);
}

#[test]
fn a_reader_is_not_disturbed_while_what_it_reads_moves() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let (store, ..) = bench.open();
    mix(&store, 0..80);
    let reader = Arc::clone(&store);
    let thread = std::thread::Builder::new().spawn(move || {
        for _ in 0..800 {
            check(&reader, 10);
        }
    });
    let thread = thread.unwrap();
    let mut round = 1;
    while !thread.is_finished() {
        mix(&store, round * 80..(round + 1) * 80);
        tidy(&store);
        round += 1;
    }
    thread.join().unwrap();
    assert_eq!(store.damage(), vec![]);
}

#[test]
fn records_that_lie_far_apart_hold_little_more_than_their_own_bytes() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    for base in 0..20 {
        append(&store, P, base, &[b"small"]);
        append(&store, Q, base, &[&[2; 9_000]]);
    }
    store.close(Vec::new()).unwrap();
    drop(store);
    // Nothing is in the cache.
    let (store, ..) = bench.open();
    let small = |batches: Vec<Bytes>| {
        for batch in batches {
            let bytes = batch.len();
            let held = batch.try_into_mut().expect("nobody else has it").capacity();
            assert!(held <= bytes * 4, "{held} bytes are held for {bytes}");
        }
    };
    small(store.read(P, Offset(0), Offset(20), 1 << 20).unwrap());
    for base in 0..20 {
        let place = store.shared.index.first_from(P, Offset(base)).unwrap();
        small(crate::store::local::read::whole_extent(&store.shared, P, &place.unwrap()).unwrap());
    }
}
