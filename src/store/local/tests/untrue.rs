//! Devices that say one thing and do another: syncs that keep nothing, writes and reads that go astray.
//!
//! Owns the work that is done on such a device, and where each of its commit groups was written.
//! `FALCON_MISDIRECTED` sets how many devices are tried, `FALCON_MISDIRECTED_SEED` which.

mod astray;
mod lying;

use std::ops::Range;

use super::points::from_env;
use super::*;

const PARTITIONS: [PartitionId; 3] = [P, Q, PartitionId::new(2, 0)];

fn seeds(default: u64) -> Range<u64> {
    let first = from_env("FALCON_MISDIRECTED_SEED", 1) * 1_000_000;
    first..first + from_env("FALCON_MISDIRECTED", default)
}

/// How the broker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Killed,
    /// When nothing had happened for a while.
    KilledIdle,
}

impl End {
    fn pick(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..3) {
            0 => Self::Clean,
            1 => Self::Killed,
            _ => Self::KilledIdle,
        }
    }
}

/// A commit group that was acknowledged, and where it is.
#[derive(Debug, Clone)]
struct Written {
    segment: u64,
    bytes: Range<u64>,
    batches: Vec<(PartitionId, Range<u64>)>,
    /// The key of the row in it.
    row: Option<u8>,
}

impl Written {
    /// Whether it says where a partition ends, at least: with a batch, or with the state that
    /// snapshots and idle marks have.
    fn tells_end_of(&self, partition: PartitionId) -> bool {
        let has_batch = self.batches.iter().any(|(of, _)| *of == partition);
        has_batch || self.row.is_none()
    }
}

/// All batches have the same size, so that one fits exactly where another was.
fn value(partition: PartitionId, offset: u64) -> Vec<u8> {
    let seed = u64::from(partition.topic.0) << 40 | u64::from(partition.partition.0) << 32 | offset;
    let mut random = fastrand::Rng::with_seed(seed);
    (0..200).map(|_| random.u8(..)).collect()
}

/// Work on a device, group by group, each with a sync of its own.
struct Work {
    bench: Bench,
    store: Option<Arc<LocalStore>>,
    random: fastrand::Rng,
    written: Vec<Written>,
    ends: BTreeMap<PartitionId, u64>,
    rows: BTreeMap<u8, u64>,
}

impl Work {
    fn new(seed: u64) -> Self {
        let mut bench = Bench::new();
        let mut random = fastrand::Rng::with_seed(seed);
        bench.config.index_dir = None;
        bench.config.cache_bytes = random.usize(0..2) * (4 << 10);
        bench.config.segment_bytes = 8 << 10;
        bench.config.first_segment_bytes = 8 << 10;
        bench.config.spare_segments = 0;
        let mut work = Self {
            store: Some(bench.open().0),
            bench,
            random,
            written: Vec::new(),
            ends: BTreeMap::new(),
            rows: BTreeMap::new(),
        };
        work.groups(5);
        work
    }

    fn store(&self) -> &LocalStore {
        self.store.as_ref().unwrap()
    }

    /// The segment that groups are appended to, and where it ends.
    fn end(&self) -> (u64, u64) {
        let infos = self.store().shared.segments.infos();
        let (segment, info) = infos.iter().next_back().unwrap();
        (*segment, info.groups_end)
    }

    fn snapshot(&self) -> Vec<Row> {
        let row = |(key, value): (&u8, &u64)| Row {
            table: Table::Offsets,
            key: Bytes::copy_from_slice(&[*key]),
            value: Some(Bytes::copy_from_slice(&value.to_le_bytes())),
        };
        self.rows.iter().map(row).collect()
    }

    fn groups(&mut self, count: u64) {
        for _ in 0..count {
            self.group();
        }
    }

    fn note(&mut self, from: u64, batches: Vec<(PartitionId, Range<u64>)>, row: Option<u8>) {
        let (segment, end) = self.end();
        self.written.push(Written {
            segment,
            bytes: from..end,
            batches,
            row,
        });
    }

    fn group(&mut self) {
        if self.store().wants_snapshot() {
            self.store().commit_snapshot(self.snapshot()).unwrap();
            self.note(4096, Vec::new(), None);
        }
        let (_, from) = self.end();
        let mut group = CommitGroup::default();
        let mut batches = Vec::new();
        for partition in PARTITIONS {
            if self.random.u8(0..3) > 0 {
                continue;
            }
            let end = self.ends.entry(partition).or_default();
            let bytes = value(partition, *end);
            group
                .batches
                .push(stamped(partition, *end, batch(&[&bytes], 5)));
            batches.push((partition, *end..*end + 1));
            *end += 1;
        }
        let key = self.random.u8(0..4);
        let number = self.written.len() as u64;
        self.rows.insert(key, number);
        group.rows.push(Row {
            table: Table::Offsets,
            key: Bytes::copy_from_slice(&[key]),
            value: Some(Bytes::copy_from_slice(&number.to_le_bytes())),
        });
        let seq = self.store().commit(group).unwrap();
        self.store().durable(seq).unwrap();
        self.note(from, batches, Some(key));
    }

    fn stop(&mut self, end: End) {
        match end {
            End::Clean => self.store().close(self.snapshot()).unwrap(),
            End::Killed => {}
            End::KilledIdle => {
                let (_, from) = self.end();
                self.store().tidy().unwrap();
                self.store().tidy().unwrap();
                self.note(from, Vec::new(), None);
            }
        }
        self.store = None;
    }

    fn end_in(store: &LocalStore, partition: PartitionId) -> u64 {
        let bounds = store.shared.bounds_of(partition);
        bounds.map_or(0, |bounds| bounds.end.0)
    }

    /// What a read of one offset gives: whether it is there, or refused as damaged. Anything else is
    /// a broken promise.
    fn is_served(store: &LocalStore, partition: PartitionId, offset: u64, at: &str) -> bool {
        match values(store, partition, offset, offset + 1) {
            Ok(found) => {
                assert_eq!(
                    found,
                    [(offset, value(partition, offset))],
                    "{at}: {partition}"
                );
                true
            }
            Err(ReadError::Damaged(damage)) => {
                assert!(damage.range.contains(&Offset(offset)), "{at}: {damage:?}");
                false
            }
            Err(error) => panic!("{at}: {partition} {offset}: {error}"),
        }
    }
}
