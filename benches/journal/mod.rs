//! A local store to measure, through the trait that the broker uses.
#![allow(dead_code, reason = "each bench uses its part")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use falcon::io::RealDisk;
use falcon::store::local::{LocalConfig, LocalStore, RecoveryReport};
use falcon::store::{CommitGroup, Replay, StampedBatch, Store, Table};
use falcon_protocol::{
    Batch, BatchBuilder, BatchHeader, Codec, Offset, PartitionId, Producer, Record, Stamp,
};

/// The one partition of most loads.
pub(crate) const P: PartitionId = PartitionId::new(1, 0);

/// Keeps nothing of what is recovered.
struct Nothing;

impl Replay for Nothing {
    fn row(&mut self, _: Table, _: &[u8], _: Option<&[u8]>) {}
    fn batch(&mut self, _: PartitionId, _: &BatchHeader) {}
    fn end(&mut self, _: PartitionId, _: Offset) {}
}

/// Whether criterion only looks if it runs.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// A folder on a real disk; the one for temporary files is often memory.
pub(crate) fn folder() -> tempfile::TempDir {
    std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A batch of about so many bytes, of 100 B records.
pub(crate) fn batch(bytes: usize) -> Batch {
    let record = Record::new(vec![b'x'; 100]);
    let mut builder = BatchBuilder::new(Codec::None, bytes);
    while builder.push(&record, 1_700_000_000_000).is_ok() {}
    let bytes = builder.build(Producer::default()).unwrap();
    Batch::from_bytes(bytes).unwrap()
}

/// A store and where its partitions end.
pub(crate) struct Log {
    /// The store.
    pub(crate) store: Arc<LocalStore>,
    ends: HashMap<PartitionId, u64>,
}

impl Log {
    /// Opens or creates.
    pub(crate) fn open(config: LocalConfig) -> (Self, RecoveryReport) {
        Self::open_again(config, HashMap::new())
    }

    /// With partitions that are known to end somewhere.
    pub(crate) fn open_again(
        config: LocalConfig,
        ends: HashMap<PartitionId, u64>,
    ) -> (Self, RecoveryReport) {
        let opened = LocalStore::open(config, Arc::new(RealDisk), &mut Nothing);
        let (store, report) = opened.unwrap();
        (Self { store, ends }, report)
    }

    /// Where its partitions end, after an orderly stop.
    pub(crate) fn close(self) -> HashMap<PartitionId, u64> {
        self.store.close(Vec::new()).unwrap();
        self.ends
    }

    /// At default settings.
    pub(crate) fn open_default(folder: &Path) -> (Self, RecoveryReport) {
        Self::open(LocalConfig::new(folder))
    }

    /// One group, durable when this returns, with the batch in each of the partitions.
    pub(crate) fn append(&mut self, batch: &Batch, partitions: impl Iterator<Item = PartitionId>) {
        if self.store.wants_snapshot() {
            let seq = self.store.commit_snapshot(Vec::new()).unwrap();
            self.store.durable(seq).unwrap();
        }
        let records = batch.header().end_offset().0;
        let stamped = partitions.map(|partition| {
            let end = self.ends.entry(partition).or_default();
            let stamp = Stamp {
                partition,
                base_offset: Offset(*end),
                append_time_ms: 1_700_000_000_000,
                epoch: self.store.epoch(),
            };
            *end += records;
            StampedBatch {
                stamp,
                batch: batch.clone(),
            }
        });
        let group = CommitGroup {
            batches: stamped.collect(),
            rows: Vec::new(),
        };
        let seq = self.store.commit(group).unwrap();
        self.store.durable(seq).unwrap();
    }

    /// Offset after the last record of a partition.
    pub(crate) fn end(&self, partition: PartitionId) -> u64 {
        self.ends.get(&partition).copied().unwrap_or_default()
    }

    /// Lets everything go but so many records of each partition.
    pub(crate) fn keep(&self, records: u64) {
        for (partition, end) in &self.ends {
            let start = end.saturating_sub(records);
            self.store.trim(*partition, Some(Offset(start)));
        }
    }
}
