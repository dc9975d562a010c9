//! Power cuts at random moments: what was durable is there, what was not is there whole or not at
//! all, and always a prefix.

use super::*;
use proptest::prelude::*;

type Written = (PartitionId, u64, Vec<Vec<u8>>);

/// What was committed, group by group.
#[derive(Debug, Default, Clone)]
struct History {
    /// Partition, base offset, values; and the rows as they were afterwards.
    groups: Vec<(Vec<Written>, Tables)>,
    durable: usize,
}

impl History {
    fn tables(&self) -> Tables {
        self.groups
            .last()
            .map(|(_, t)| t.clone())
            .unwrap_or_default()
    }

    /// Commits a random group; answers its sequence.
    fn commit(
        &mut self,
        store: &LocalStore,
        random: &mut fastrand::Rng,
    ) -> crate::store::CommitSeq {
        let mut tables = self.tables();
        let mut group = CommitGroup::default();
        let mut written = Vec::new();
        for _ in 0..random.usize(0..4) {
            let partition = PartitionId::new(random.u32(1..3), random.u32(0..2));
            let base = tables.ends.get(&partition).copied().unwrap_or(0);
            let count = random.usize(1..4);
            let values: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let bytes = random.usize(0..900);
                    (0..bytes).map(|_| random.u8(..)).collect()
                })
                .collect();
            let borrowed: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            group
                .batches
                .push(stamped(partition, base, batch(&borrowed, 5)));
            tables.ends.insert(partition, base + count as u64);
            written.push((partition, base, values));
        }
        for _ in 0..random.usize(0..3) {
            let key = vec![random.u8(0..5)];
            let value = random
                .bool()
                .then(|| vec![random.u8(..); random.usize(0..50)]);
            tables.row(Table::Offsets, &key, value.as_deref());
            group.rows.push(Row {
                table: Table::Offsets,
                key: key.into(),
                value: value.map(Into::into),
            });
        }
        if store.wants_snapshot() || random.u8(0..12) == 0 {
            let seq = store.commit_snapshot(self.tables().snapshot()).unwrap();
            store.durable(seq).unwrap();
            self.durable = self.groups.len();
        }
        let seq = store.commit(group).unwrap();
        self.groups.push((written, tables));
        seq
    }

    /// How many groups survived: the one whose outcome the store shows.
    fn survivors(&self, store: &LocalStore, rows: &Tables) -> usize {
        let bounds = super::super::locked(&store.shared.bounds);
        let ends: BTreeMap<PartitionId, u64> = bounds.iter().map(|(p, b)| (*p, b.end.0)).collect();
        let fits = |tables: &Tables| tables.ends == ends && tables.rows == rows.rows;
        let states = self.groups.iter().map(|(_, tables)| tables);
        let first = Tables::default();
        let states: Vec<&Tables> = std::iter::once(&first).chain(states).collect();
        (self.durable..states.len())
            .find(|at| fits(states[*at]))
            .unwrap_or_else(|| {
                panic!(
                    "no prefix from {} of {} fits {ends:?}",
                    self.durable,
                    self.groups.len()
                )
            })
    }

    fn check(&self, store: &LocalStore) {
        let mut expected: BTreeMap<PartitionId, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        for (partition, base, values) in self.groups.iter().flat_map(|(w, _)| w) {
            let all = expected.entry(*partition).or_default();
            all.extend(
                values
                    .iter()
                    .enumerate()
                    .map(|(i, v)| (base + i as u64, v.clone())),
            );
        }
        for (partition, expected) in expected {
            let end = expected.len() as u64;
            let mut found = Vec::new();
            while (found.len() as u64) < end {
                found.extend(values(store, partition, found.len() as u64, end).unwrap());
            }
            assert_eq!(found, expected, "{partition}");
            assert!(matches!(
                values(store, partition, end, end + 1),
                Err(ReadError::Missing { .. })
            ));
        }
    }
}

fn lives(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new();
    bench.config.spare_segments = random.usize(0..2);
    let mut history = History::default();
    for life in 0..random.u32(2..6) {
        let (store, report, tables) = bench.open();
        assert_eq!(report.damage, vec![], "life {life}");
        assert_eq!(report.rows_damaged, 0);
        let survivors = history.survivors(&store, &tables);
        history.groups.truncate(survivors);
        history.durable = survivors;
        history.check(&store);
        for _ in 0..random.u32(0..40) {
            let seq = history.commit(&store, &mut random);
            if random.u8(0..4) != 0 {
                store.durable(seq).unwrap();
                history.durable = history.groups.len();
            } else if random.bool() {
                store.write_only();
            }
        }
        if random.u8(0..3) == 0 {
            store.close(history.tables().snapshot()).unwrap();
            history.durable = history.groups.len();
            drop(store);
        } else if random.bool() {
            // The broker dies, the machine does not.
            drop(store);
        } else {
            // ORDER: the disk of the crash is taken while the keeper is still at work.
            let after = bench.disk.crash(random.u64(..));
            drop(store);
            bench.disk = after;
        }
    }
}

#[test]
fn groups_of_a_killed_broker_are_synced_before_they_count() {
    for seed in 0..20 {
        let mut bench = Bench::new();
        bench.config.spare_segments = 0;
        let (store, ..) = bench.open();
        let written = batch(&[&[b'w'; 1500]], 5);
        let group = CommitGroup {
            batches: vec![stamped(P, 0, written)],
            rows: Vec::new(),
        };
        store.commit(group).unwrap();
        store.write_only();
        drop(store);
        // The machine did not stop: the group is there, and readers are shown it.
        let (store, _, tables) = bench.open();
        assert_eq!(tables.ends.get(&P), Some(&1));
        assert_eq!(values(&store, P, 0, 1).unwrap().len(), 1);
        let after = bench.disk.crash(seed);
        drop(store);
        bench.disk = after;
        let (_, report, tables) = bench.open();
        assert_eq!(report.torn_tail, None, "seed {seed}");
        assert_eq!(tables.ends.get(&P), Some(&1), "seed {seed}");
    }
}

#[test]
fn a_segment_that_had_grown_is_recycled_without_looking_damaged() {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.disk.record();
    // Enough for commits, too little to prepare segments: the dead one is used again.
    bench.disk.set_free_bytes((1 << 20) + 4096);
    let (store, ..) = bench.open();
    for base in 0..30 {
        append(&store, P, base, &[&[b'v'; 1000]]);
    }
    store.commit_snapshot(Vec::new()).unwrap();
    store.trim(P, Some(Offset(30)));
    append(&store, P, 30, &[b"carries the trim"]);
    model::settle(&store);
    drop(store);
    let mut random = fastrand::Rng::with_seed(1);
    let mut recording = bench.disk.recording();
    bench.config.spare_segments = 0;
    while let Some(moment) = recording.step(&mut random, 1) {
        for disk in moment.images {
            let bench = Bench::on(disk, bench.config.clone());
            let (_, report, _) = bench.open();
            assert_eq!((report.damage, report.rows_damaged), (vec![], 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_durable_survives_and_the_rest_is_a_prefix(seed in any::<u64>()) {
        lives(seed);
    }
}
