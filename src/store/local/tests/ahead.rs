//! Where a read ends is told before it is read, and is true.

use super::*;
use crate::store::Ahead;

/// Reads, and what was told of it.
fn told(
    store: &LocalStore,
    range: core::ops::Range<u64>,
    bytes_max: usize,
) -> (Option<Ahead>, Result<u64, ReadError>) {
    let mut ahead = None;
    let range = Offset(range.start)..Offset(range.end);
    let mut tell = |told| assert_eq!(ahead.replace(told), None, "once");
    let runs = store.read_telling(P, range, bytes_max, &mut tell);
    let end = runs.map(|runs| {
        let mut end = 0;
        let mut bytes = 0;
        for mut run in runs {
            while !run.is_empty() {
                let batch = Batch::split_from(&mut run).unwrap();
                bytes += batch.bytes().len();
                end = batch.header().end_offset().0;
            }
        }
        assert!(ahead.is_none_or(|ahead| bytes <= ahead.bytes));
        end
    });
    (ahead, end)
}

#[test]
fn a_read_ends_where_it_was_told_to() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let (store, ..) = bench.open();
    let mut random = fastrand::Rng::with_seed(3);
    let mut end = 0;
    for other in 0..80 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        let values = vec![&[b'v'; 90][..]; random.usize(1..12)];
        append(&store, P, end, &values);
        end += values.len() as u64;
        append(&store, Q, other, &[&[b'q'; 50]]);
    }
    let mut tellings = 0;
    for _ in 0..500 {
        let from = random.u64(0..end);
        let to = random.u64(from + 1..=end);
        let (ahead, came) = told(&store, from..to, random.usize(1..20_000));
        let came = came.unwrap();
        if let Some(ahead) = ahead {
            assert_eq!(came, ahead.end.0);
            assert!(from < came && came <= to);
            tellings += 1;
        }
    }
    assert!(tellings > 200, "{tellings}");
}

#[test]
fn damage_ends_a_read_before_it_was_told_to() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let (store, ..) = bench.open();
    for base in 0..10 {
        append(&store, P, base, &[format!("value {base}").as_bytes()]);
    }
    let path = bench.segment_path(1);
    let at = bench.find(&path, b"value 4").unwrap();
    assert!(bench.disk.flip_bit(&path, at, 0));
    let (ahead, came) = told(&store, 0..10, 1 << 20);
    assert_eq!(ahead.map(|ahead| ahead.end), Some(Offset(10)));
    assert_eq!(came.unwrap(), 4, "what follows was read for nothing");
    let (_, came) = told(&store, 4..10, 1 << 20);
    assert!(matches!(came, Err(ReadError::Damaged(_))));
    let (ahead, came) = told(&store, 5..10, 1 << 20);
    assert_eq!(
        (ahead.map(|ahead| ahead.end.0), came.unwrap()),
        (Some(10), 10)
    );
}
