//! Filling a fresh folder with batches that already have their offsets.
//!
//! Owns a folder in the making. Promises: batches keep partition, offset, append time and epoch;
//! offsets that are not appended are a hole, which a broker names as damaged and refuses; and the
//! folder cannot be served before it is complete, because IDENTITY gets its name last. Must not
//! know: where the batches come from, what rows mean.

use std::path::PathBuf;
use std::sync::Arc;

use falcon_protocol::{Batch, Offset, PartitionId, Stamp};
use thiserror::Error;

use super::identity::Identity;
use super::journal::state::Bounds;
use super::open::IDENTITY;
use super::{LocalConfig, LocalStore, OpenError, locked};
use crate::io::{Disk, IoError};
use crate::store::{CommitError, CommitGroup, Purpose, Replay, Row, StampedBatch, Store, Table};

/// Batches are handed on when they reach this.
const GROUP_BYTES: usize = 4 << 20;

/// Why a folder could not be filled.
#[derive(Debug, Error)]
pub enum RescueError {
    /// There is something already.
    #[error("the folder {} is not empty: choose one that does not exist", .path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The folder cannot be changed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The journal cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A fresh folder has nothing to replay.
struct Nothing;

impl Replay for Nothing {
    fn row(&mut self, _table: Table, _key: &[u8], _value: Option<&[u8]>) {}
    fn batch(&mut self, _partition: PartitionId, _header: &falcon_protocol::BatchHeader) {}
    fn end(&mut self, _partition: PartitionId, _end: Offset) {}
}

/// A folder in the making.
#[derive(Debug)]
pub struct Rescue {
    store: Arc<LocalStore>,
    disk: Arc<dyn Disk>,
    /// IDENTITY while the folder is incomplete, and when it is complete.
    names: (PathBuf, PathBuf),
    rows: Vec<Row>,
    group: CommitGroup,
    group_bytes: usize,
}

impl Rescue {
    /// Creates the folder, with all rows. Its owners' epochs go on after `epoch`.
    pub fn create(
        config: LocalConfig,
        disk: Arc<dyn Disk>,
        epoch: u32,
        rows: Vec<Row>,
    ) -> Result<Self, RescueError> {
        let dir = config.data_dir.clone();
        disk.create_dir_all(&dir)?;
        if !disk.list(&dir)?.is_empty() {
            return Err(RescueError::NotEmpty { path: dir });
        }
        let complete = dir.join(IDENTITY);
        let identity = Identity {
            journal_id: fastrand::u128(1..),
            epoch,
        };
        identity.create(disk.as_ref(), &complete)?;
        let (store, _) = LocalStore::open(config, Arc::clone(&disk), &mut Nothing)?;
        let incomplete = complete.with_extension("tmp");
        disk.rename(&complete, &incomplete)?;
        disk.sync_dir(&dir)?;
        let rescue = Self {
            store,
            disk,
            names: (incomplete, complete),
            rows,
            group: CommitGroup::default(),
            group_bytes: 0,
        };
        rescue.commit(CommitGroup {
            batches: Vec::new(),
            rows: rescue.rows.clone(),
        })?;
        Ok(rescue)
    }

    /// Appends a whole batch with the stamp it has. Those of one partition come in order.
    pub fn append(&mut self, partition: PartitionId, batch: Batch) -> Result<(), RescueError> {
        let header = batch.header();
        let stamp = Stamp {
            partition,
            base_offset: header.base_offset,
            append_time_ms: header.append_time_ms,
            epoch: header.epoch,
        };
        self.group_bytes += batch.bytes().len();
        self.group.batches.push(StampedBatch { stamp, batch });
        if self.group_bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RescueError> {
        self.group_bytes = 0;
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return Ok(());
        }
        self.commit(group)
    }

    fn commit(&self, group: CommitGroup) -> Result<(), RescueError> {
        let batches = group.batches.iter();
        let bytes: usize = batches.map(|stamped| stamped.batch.bytes().len()).sum();
        self.store.check_room(Purpose::Batches, bytes as u64)?;
        if self.store.wants_snapshot() {
            self.store.commit_snapshot(self.rows.clone())?;
            self.store.check_room(Purpose::Batches, bytes as u64)?;
        }
        let seq = self.store.commit(group)?;
        Ok(self.store.durable(seq)?)
    }

    /// Makes the folder complete, with all rows as they shall be. `bounds` are the log start and end of every partition: with an
    /// end beyond its last batch, the offsets up to it are taken and lost.
    pub fn finish(
        mut self,
        rows: Vec<Row>,
        bounds: &[(PartitionId, Offset, Offset)],
    ) -> Result<(), RescueError> {
        self.flush()?;
        {
            let mut known = locked(&self.store.shared.bounds);
            for (partition, start, end) in bounds {
                let (start, end) = (*start, *end);
                known.insert(*partition, Bounds { start, end });
            }
        }
        self.store.close(rows)?;
        // ORDER: the name that makes it a data folder comes after everything in it is durable.
        let (incomplete, complete) = &self.names;
        self.disk.rename(incomplete, complete)?;
        let dir = &self.store.shared.config.data_dir;
        self.disk.sync_dir(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // A parent that may not be read was there before, and its names are durable.
            drop(self.disk.sync_dir(parent));
        }
        Ok(())
    }
}
