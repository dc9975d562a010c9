//! Logs and tables in a folder of this machine: a journal for the bytes, sled for the index.
//!
//! Owns the data folder: lock, identity, segments, index, background work. Promises what
//! [`Store`] says, plus: a start never cuts what was acknowledged, damage is named by offset range
//! and everything else stays readable, and losing the index costs time only. Must not know: what
//! rows mean, sockets, tokio. `docs/STORAGE.md` draws every byte.

mod append;
mod cache;
mod config;
mod damaged;
mod forward;
mod identity;
mod index;
mod inspect;
mod journal;
mod keeper;
mod open;
mod read;
mod recovery;
mod rescue;
mod segments;
mod synced;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use falcon_protocol::{Offset, PartitionId};

use self::append::{Appender, Device};
use self::cache::TailCache;
use self::forward::Forward;
use self::identity::Identity;
use self::index::Index;
pub use self::inspect::{Finding, FindingKind, IndexVerdict, Inspection, OnRead};
use self::journal::state::{Bounds, StoreState};
use self::keeper::Signal;
use self::open::gaps::Doubts;
pub use self::rescue::{Rescue, RescueError};
use self::segments::Segments;
use super::{
    Ahead, CommitError, CommitGroup, CommitSeq, Damage, Extent, Lookup, Purpose, ReadError, Row,
    Store, Usage,
};
use crate::io::{Disk, DiskFile, DiskLock, IoError};
pub use config::{IndexReport, LocalConfig, OpenError, RecoveryReport, TornTail};

/// Where less than so many segments would fit, dead and sparse ones are not kept waiting.
const AMPLE_SEGMENTS: u64 = 8;

/// A [`Store`] in a folder. The folder's lock is released when the last reference is dropped.
#[derive(Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    /// Lays groups out.
    appender: Mutex<Appender>,
    /// Makes them durable.
    device: Arc<Device>,
    /// The keeper, and the thread that opens the index.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped last: nobody else may open the folder while the index is still open.
    _lock: Box<dyn DiskLock>,
}

/// What the writer, the readers and the keeper share.
#[derive(Debug)]
struct Shared {
    config: LocalConfig,
    disk: Arc<dyn Disk>,
    identity: Identity,
    segments: Arc<Segments>,
    index: Index,
    cache: RwLock<TailCache>,
    recent: read::Recent,
    bounds: Mutex<HashMap<PartitionId, Bounds>>,
    /// Trims that no commit group carries yet.
    trims: Mutex<Vec<(PartitionId, Option<Offset>)>>,
    damage: Mutex<Vec<Damage>>,
    /// Until the log starts are known.
    doubts: Mutex<Option<Doubts>>,
    /// The segment with the newest snapshot; only those before it may be reclaimed.
    snapshot_segment: AtomicU64,
    signal: Signal,
    forward: Forward,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn bounds_of(&self, partition: PartitionId) -> Option<Bounds> {
        locked(&self.bounds).get(&partition).copied()
    }

    /// The file of a segment that is appended to.
    fn open_for_appends(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        if self.config.direct_io {
            self.disk.open_direct(path)
        } else {
            self.disk.open(path)
        }
    }

    /// Whether space is so short that dead and sparse segments cannot wait.
    fn is_space_short(&self) -> bool {
        let config = &self.config;
        let free = self.disk.free_bytes(&config.data_dir).unwrap_or(0);
        let ample = config.segment_bytes.saturating_mul(AMPLE_SEGMENTS);
        free < config.free_floor_bytes.saturating_add(ample)
    }

    /// What a snapshot taken now has to say.
    fn state(&self) -> StoreState {
        let segments = self.segments.infos().keys().copied().collect();
        let mut partitions: Vec<_> = locked(&self.bounds)
            .iter()
            .map(|(partition, bounds)| (*partition, *bounds))
            .collect();
        partitions.sort_unstable_by_key(|(partition, _)| *partition);
        StoreState {
            segments,
            partitions,
        }
    }

    /// Remembers damage that was not known yet and reports it once.
    fn note_damage(&self, damage: &Damage) {
        let mut known = locked(&self.damage);
        if known.contains(damage) {
            return;
        }
        tracing::error!(
            partition = %damage.partition,
            from = damage.range.start.0,
            to = damage.range.end.0,
            "records are damaged and cannot be read"
        );
        self.config.metrics.reads.damage_found.add(1);
        known.push(damage.clone());
        drop(known);
        damaged::write(self);
    }
}

impl LocalStore {
    /// Writes what was committed, without a sync.
    #[cfg(test)]
    fn write_only(&self) {
        self.device.write_only(&self.shared);
    }

    /// Ends the store's threads and waits for them.
    fn stop_threads(&self) {
        self.shared.signal.stop();
        for thread in std::mem::take(&mut *locked(&self.threads)) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(name, "a thread of the store panicked");
            }
        }
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Store for LocalStore {
    fn epoch(&self) -> u32 {
        self.shared.identity.epoch
    }

    fn identity(&self) -> String {
        format!("{:032x}", self.shared.identity.journal_id)
    }

    fn commit(&self, group: CommitGroup) -> Result<CommitSeq, CommitError> {
        locked(&self.appender).commit(&self.shared, &group)
    }

    fn check_room(&self, purpose: Purpose, bytes: u64) -> Result<(), CommitError> {
        locked(&self.appender).check_room(&self.shared, purpose, bytes)
    }

    fn durable(&self, seq: CommitSeq) -> Result<(), CommitError> {
        self.device.durable(&self.shared, seq.0)
    }

    fn wants_snapshot(&self) -> bool {
        locked(&self.appender).wants_snapshot(&self.shared)
    }

    fn commit_snapshot(&self, rows: Vec<Row>) -> Result<CommitSeq, CommitError> {
        locked(&self.appender).commit_snapshot(&self.shared, &rows)
    }

    fn lookup(
        &self,
        partition: PartitionId,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Lookup {
        read::lookup(&self.shared, partition, offset..end, bytes_max)
    }

    fn read_telling(
        &self,
        partition: PartitionId,
        range: Range<Offset>,
        bytes_max: usize,
        tell: &mut dyn FnMut(Ahead),
    ) -> Result<Vec<bytes::Bytes>, ReadError> {
        read::read(&self.shared, partition, (range, bytes_max), tell)
    }

    fn find_time(
        &self,
        partition: PartitionId,
        from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        read::find_time(&self.shared, partition, from, timestamp_ms)
    }

    fn extents(
        &self,
        partition: PartitionId,
        from: Offset,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        read::extents(&self.shared, partition, from, visit)
    }

    fn trim(&self, partition: PartitionId, log_start: Option<Offset>) {
        keeper::trim(&self.shared, partition, log_start);
    }

    fn retain(&self, live: &[(PartitionId, Offset)]) {
        keeper::retain(&self.shared, live);
    }

    fn gather(&self) -> bool {
        self.shared.forward.gather(&self.shared)
    }

    fn tidy(&self) -> Result<(), CommitError> {
        locked(&self.appender).tidy(&self.shared)
    }

    fn damage(&self) -> Vec<Damage> {
        locked(&self.shared.damage).clone()
    }

    fn usage(&self) -> Usage {
        let (segments, segment_bytes) = {
            let infos = self.shared.segments.infos();
            let bytes = infos.values().map(|info| info.file_bytes).sum();
            (infos.len() as u64, bytes)
        };
        let free_bytes = self.shared.disk.free_bytes(&self.shared.config.data_dir);
        Usage {
            segment_bytes,
            segments,
            free_bytes: free_bytes.unwrap_or(0),
        }
    }

    fn close(&self, rows: Vec<Row>) -> Result<(), CommitError> {
        let closed = locked(&self.appender).close(&self.shared, &rows);
        self.stop_threads();
        let end = closed?;
        open::write_clean_marker(&self.shared, end);
        Ok(())
    }
}
