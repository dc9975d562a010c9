//! The local store against a model, under crashes, rot and failing devices.

mod ahead;
mod blocks;
mod crash;
mod faults;
mod flip;
mod forward;
mod fuzz;
mod index;
mod inspected;
mod model;
mod paced;
mod points;
mod rot;
mod shared;
mod strays;
mod untrue;
mod upgrade;
mod verdicts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{
    Batch, BatchBuilder, BatchHeader, Codec, Offset, PartitionId, Producer, Record, Stamp,
};

use super::{IndexReport, LocalConfig, LocalStore, OpenError, RecoveryReport};
use crate::io::{Disk, SimDisk};
use crate::store::{CommitGroup, ReadError, Replay, Row, StampedBatch, Store, Table};

pub(super) const P: PartitionId = PartitionId::new(1, 0);
pub(super) const Q: PartitionId = PartitionId::new(1, 1);

/// What the writer would have rebuilt from the replay.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    pub(super) ends: BTreeMap<PartitionId, u64>,
}

impl Replay for Tables {
    fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let key = (table.number(), key.to_vec());
        match value {
            Some(value) => drop(self.rows.insert(key, value.to_vec())),
            None => drop(self.rows.remove(&key)),
        }
    }

    fn batch(&mut self, partition: PartitionId, header: &BatchHeader) {
        self.ends.insert(partition, header.end_offset().0);
    }

    fn end(&mut self, partition: PartitionId, end: Offset) {
        self.ends.insert(partition, end.0);
    }
}

impl Tables {
    pub(super) fn snapshot(&self) -> Vec<Row> {
        let row = |((table, key), value): (&(u8, Vec<u8>), &Vec<u8>)| Row {
            table: Table::from_number(*table).unwrap(),
            key: Bytes::copy_from_slice(key),
            value: Some(Bytes::copy_from_slice(value)),
        };
        self.rows.iter().map(row).collect()
    }
}

/// A simulated disk and a real folder for sled.
pub(super) struct Bench {
    pub(super) disk: SimDisk,
    pub(super) config: LocalConfig,
    dir: Option<tempfile::TempDir>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            index_dir: Some(dir.path().join("index")),
            segment_bytes: 16 << 10,
            first_segment_bytes: 16 << 10,
            extent_bytes: 2 << 10,
            cache_bytes: 8 << 10,
            free_floor_bytes: 1 << 20,
            forward_after: std::time::Duration::ZERO,
            reuse_within: std::time::Duration::ZERO,
            busy_for: std::time::Duration::from_secs(2),
            removal_bytes: 4 << 10,
            ..LocalConfig::new("/data")
        };
        Self {
            disk: SimDisk::new(),
            config,
            dir: Some(dir),
        }
    }

    /// On a disk that is there; `config` must do without a real folder.
    pub(super) fn on(disk: SimDisk, config: LocalConfig) -> Self {
        Self {
            disk,
            config,
            dir: None,
        }
    }

    /// Keeps a folder until the bench is dropped.
    pub(super) fn keeping(mut self, dir: tempfile::TempDir) -> Self {
        self.dir = Some(dir);
        self
    }

    pub(super) fn try_open(
        &self,
        tables: &mut Tables,
    ) -> Result<(Arc<LocalStore>, RecoveryReport), OpenError> {
        LocalStore::open(self.config.clone(), Arc::new(self.disk.clone()), tables)
    }

    pub(super) fn open(&self) -> (Arc<LocalStore>, RecoveryReport, Tables) {
        let mut tables = Tables::default();
        let (store, report) = self.try_open(&mut tables).unwrap();
        (store, report, tables)
    }

    /// The same folder after a power cut.
    pub(super) fn crash(&mut self, seed: u64) {
        self.disk = self.disk.crash(seed);
    }

    pub(super) fn segment_path(&self, number: u64) -> PathBuf {
        let journal = self.config.data_dir.join("journal");
        journal.join(format!("{number:016x}.seg"))
    }

    /// Position of `needle` in a file.
    pub(super) fn find(&self, path: &Path, needle: &[u8]) -> Option<u64> {
        let file = self.disk.open(path).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).ok()?;
        let at = bytes.windows(needle.len()).position(|w| w == needle)?;
        Some(at as u64)
    }
}

pub(super) fn batch(values: &[&[u8]], time_ms: i64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    for value in values {
        builder.push(&Record::new(value.to_vec()), time_ms).unwrap();
    }
    Batch::from_bytes(builder.build(Producer::default()).unwrap()).unwrap()
}

pub(super) fn stamped(partition: PartitionId, base: u64, batch: Batch) -> StampedBatch {
    StampedBatch {
        stamp: Stamp {
            partition,
            base_offset: Offset(base),
            append_time_ms: 7,
            epoch: 1,
        },
        batch,
    }
}

pub(super) fn put(table: Table, key: &str, value: &str) -> Row {
    Row {
        table,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

/// Commits one batch and makes it durable.
pub(super) fn append(store: &LocalStore, partition: PartitionId, base: u64, values: &[&[u8]]) {
    let group = CommitGroup {
        batches: vec![stamped(partition, base, batch(values, 1000))],
        rows: Vec::new(),
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
}

/// What became of the index, once it is known.
pub(super) fn index_report(store: &LocalStore) -> IndexReport {
    for _ in 0..10_000 {
        if let Some(report) = store.shared.index.report() {
            return report.clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    panic!("the index was never opened");
}

/// Looks again and again, for twenty seconds at most.
pub(super) fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it never came to be");
}

/// As the housekeeping does it, until nothing is left to copy.
pub(super) fn tidy(store: &LocalStore) {
    for _ in 0..100 {
        let is_more = store.gather();
        store.tidy().unwrap();
        if !is_more {
            return;
        }
    }
    panic!("copying does not come to an end");
}

/// Values of the records from `offset` up to `end`, in one read.
pub(super) fn values(
    store: &LocalStore,
    partition: PartitionId,
    offset: u64,
    end: u64,
) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let runs = store.read(partition, Offset(offset), Offset(end), 1 << 20)?;
    let mut values = Vec::new();
    for mut run in runs {
        while !run.is_empty() {
            let batch = Batch::split_from(&mut run).unwrap();
            batch.verify_in(partition).unwrap();
            let base = batch.header().base_offset.0;
            for (at, record) in (base..).zip(batch.records().unwrap()) {
                let value = record.unwrap().value.unwrap_or_default().to_vec();
                if at >= offset {
                    values.push((at, value));
                }
            }
        }
    }
    Ok(values)
}
