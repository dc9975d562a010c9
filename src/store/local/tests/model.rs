//! Reads, times and trims against a plain vector.

use std::ops::ControlFlow;

use super::*;
use crate::store::local::locked;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Log {
    /// Base offset, records, latest time; one per extent.
    extents: Vec<(u64, u64, i64)>,
    start: u64,
}

impl Log {
    fn end(&self) -> u64 {
        self.extents
            .last()
            .map_or(0, |(base, count, _)| base + count)
    }

    fn find_time(&self, from: u64, time: i64) -> Option<u64> {
        let mut after = self
            .extents
            .iter()
            .filter(|(base, count, _)| base + count > from);
        after
            .find(|(.., max)| *max >= time)
            .map(|(base, ..)| (*base).max(from))
    }
}

/// Waits until the keeper has nothing left to seal, index or reclaim.
pub(super) fn settle(store: &LocalStore) {
    let deadline = std::time::Duration::from_secs(20);
    let mut waited = std::time::Duration::ZERO;
    let step = std::time::Duration::from_millis(2);
    loop {
        store.shared.signal.wake();
        let newest = store
            .shared
            .snapshot_segment
            .load(std::sync::atomic::Ordering::Acquire);
        let is_settled = {
            let bounds = locked(&store.shared.bounds);
            let infos = store.shared.segments.infos();
            infos.range(..newest).all(|(_, info)| {
                (info.is_indexed || store.shared.index.tree().is_none())
                    && store.shared.index.report().is_some()
                    && !info.is_moved
                    && info
                        .shares
                        .iter()
                        .any(|(p, share)| share.live_bytes(bounds.get(p)) > 0)
            })
        };
        if is_settled {
            return;
        }
        assert!(waited < deadline, "the keeper did not finish");
        std::thread::sleep(step);
        waited += step;
    }
}

fn compare(store: &LocalStore, random: &mut fastrand::Rng, logs: &BTreeMap<PartitionId, Log>) {
    for (partition, log) in logs {
        for _ in 0..12 {
            let end = log.end();
            let from = random.u64(log.start..=end);
            let max = random.usize(1..5000);
            let read = store.read(*partition, Offset(from), Offset(end), max);
            if from == end {
                assert_eq!(read.unwrap().len(), 0);
            } else {
                let first = read.unwrap().remove(0);
                let header = BatchHeader::decode(&first).unwrap();
                let holds = header.base_offset.0 <= from && from < header.end_offset().0;
                assert!(holds, "{partition} {from}: {header:?}");
            }
            let time = random.i64(0..120);
            let found = store.find_time(*partition, Offset(from), time).unwrap();
            assert_eq!(
                found.map(|o| o.0),
                log.find_time(from, time),
                "{from} {time} {log:?}"
            );
            let mut seen = Vec::new();
            store
                .extents(*partition, Offset(from), &mut |extent| {
                    seen.push((
                        extent.base_offset.0,
                        u64::from(extent.record_count),
                        extent.max_timestamp_ms,
                    ));
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected = log
                .extents
                .iter()
                .filter(|(base, count, _)| base + count > from);
            assert_eq!(seen, expected.copied().collect::<Vec<_>>());
        }
        if log.start > 0 {
            let read = store.read(*partition, Offset(0), Offset(log.end()), 1);
            // Dead records may still be there, while their segment is.
            assert!(
                matches!(read, Ok(_) | Err(ReadError::Missing { .. })),
                "{read:?}"
            );
        }
    }
}

fn run(seed: u64, has_sled: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new();
    bench.config.cache_bytes = random.usize(0..20_000);
    bench.config.index_dir = bench.config.index_dir.filter(|_| has_sled);
    let mut logs: BTreeMap<PartitionId, Log> = BTreeMap::new();
    let (mut store, ..) = bench.open();
    for _ in 0..random.u32(1..120) {
        let partition = if random.bool() { P } else { Q };
        let log = logs.entry(partition).or_insert(Log {
            extents: Vec::new(),
            start: 0,
        });
        match random.u8(0..20) {
            0 => {
                log.start = random.u64(log.start..=log.end());
                store.trim(partition, Some(Offset(log.start)));
            }
            1 => settle(&store),
            4 => tidy(&store),
            2 if random.bool() => {
                if random.bool() {
                    store.close(Vec::new()).unwrap();
                }
                drop(store);
                store = bench.open().0;
                // As the writer does, which keeps the log starts in its tables.
                for (partition, log) in &logs {
                    store.trim(*partition, Some(Offset(log.start)));
                }
            }
            3 => compare(&store, &mut random, &logs),
            _ => {
                let count = random.u64(1..5);
                let time = random.i64(0..100);
                let bytes = random.usize(0..700);
                let values = vec![vec![7_u8; bytes]; usize::try_from(count).unwrap()];
                let borrowed: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
                if store.wants_snapshot() {
                    store.commit_snapshot(Vec::new()).unwrap();
                }
                let group = CommitGroup {
                    batches: vec![stamped(partition, log.end(), batch(&borrowed, time))],
                    rows: Vec::new(),
                };
                let seq = store.commit(group).unwrap();
                store.durable(seq).unwrap();
                log.extents.push((log.end(), count, time));
            }
        }
    }
    compare(&store, &mut random, &logs);
    tidy(&store);
    compare(&store, &mut random, &logs);
    settle(&store);
    compare(&store, &mut random, &logs);
    assert_eq!(store.damage(), vec![]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn reads_times_and_trims_equal_a_vector(seed in any::<u64>()) {
        run(seed, true);
    }

    #[test]
    fn reads_times_and_trims_equal_a_vector_where_footers_are_the_index(seed in any::<u64>()) {
        run(seed, false);
    }
}

#[test]
fn dead_segments_are_reclaimed_and_stay_dead_after_a_restart() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    for base in 0..60 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        append(&store, P, base, &[&[1; 1000]]);
        append(&store, Q, base, &[&[2; 200]]);
    }
    let before = store.usage().segments;
    store.trim(P, Some(Offset(50)));
    store.trim(Q, None);
    settle(&store);
    assert!(
        store.usage().segments < before / 2,
        "{:?} of {before}",
        store.usage()
    );
    assert_eq!(values(&store, P, 50, 60).unwrap().len(), 10);
    assert!(matches!(
        values(&store, P, 0, 60),
        Err(ReadError::Missing { .. })
    ));
    append(&store, P, 60, &[b"carries the trims"]);
    drop(store);
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![]);
    let bounds = locked(&store.shared.bounds).clone();
    assert_eq!(bounds.get(&P).map(|b| (b.start.0, b.end.0)), Some((50, 61)));
    assert_eq!(bounds.get(&Q), None);
}
