//! The second step of a commit: groups that were laid out are written, synced and made readable.
//!
//! Owns the groups on their way and the mark of the last sync. Promises: a group is written after the sync of
//! all before it and published after its own, and after the first failed write or sync nothing is written or synced
//! again. Must not know: how groups are laid out, segments that come after this one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use falcon_protocol::PartitionId;

use crate::clock::Instant;
use crate::io::{DiskFile, IoError};
use crate::store::CommitError;
use crate::store::local::index::Place;
use crate::store::local::journal::group::{Encoded, EncodedExtent};
use crate::store::local::journal::state::Bounds;
use crate::store::local::synced::{SYNCED_PARTITIONS_MAX, SyncedFile};
use crate::store::local::{Shared, locked};

/// A group that has its place and was not written yet.
#[derive(Debug)]
pub(super) struct LaidOut {
    pub(super) seq: u64,
    pub(super) segment: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) position: u64,
    pub(super) group: Encoded,
}

/// A group that was written and not yet synced.
#[derive(Debug)]
struct Written {
    seq: u64,
    segment: u64,
    file: Arc<dyn DiskFile>,
    position: u64,
    bytes: Bytes,
    extents: Vec<EncodedExtent>,
}

impl Written {
    /// Where the next group begins.
    fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

/// The device's end of the journal. One thread lays out, another may make durable.
#[derive(Debug)]
pub(in crate::store::local) struct Device {
    waiting: Mutex<VecDeque<LaidOut>>,
    /// Extents of groups that are not readable yet.
    extents: AtomicUsize,
    is_stopped: AtomicBool,
    synced: Mutex<Synced>,
}

#[derive(Debug)]
struct Synced {
    /// Every group below it is durable.
    seq: u64,
    written: Vec<Written>,
    marks: SyncedFile,
}

impl Device {
    /// Every group below `next_seq` is durable.
    pub(super) fn new(next_seq: u64, marks: SyncedFile) -> Self {
        Self {
            waiting: Mutex::default(),
            extents: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            synced: Mutex::new(Synced {
                seq: next_seq,
                written: Vec::new(),
                marks,
            }),
        }
    }

    /// Whether nothing is written any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// A failed write or sync is final: the page cache may have dropped the bytes, and a second
    /// sync would report success for data that is gone.
    pub(super) fn poison(&self, error: IoError) -> CommitError {
        self.stop();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the journal cannot be written, commits are refused until the next start"
        );
        CommitError::Failed(Arc::new(error))
    }

    /// Takes a group that follows all before it.
    pub(super) fn take(&self, group: LaidOut) {
        let extents = group.group.extents.len();
        self.extents.fetch_add(extents, Ordering::AcqRel);
        locked(&self.waiting).push_back(group);
    }

    /// Extents of groups that are not readable yet.
    pub(super) fn extents(&self) -> usize {
        self.extents.load(Ordering::Acquire)
    }

    /// Every group below it is durable.
    pub(super) fn synced_seq(&self) -> u64 {
        locked(&self.synced).seq
    }

    /// Notes that the group `seq - 1` was made durable as the front of a segment, of which it is all so far.
    pub(super) fn note_front(&self, seq: u64, segment: u64, end: u64) {
        let mut synced = locked(&self.synced);
        synced.seq = seq;
        synced.marks.note(seq, (segment, end), Vec::new());
    }

    /// Blocks until every group up to `seq` is durable and readable.
    pub(in crate::store::local) fn durable(
        &self,
        shared: &Shared,
        seq: u64,
    ) -> Result<(), CommitError> {
        let Ok(mut synced) = self.synced.lock() else {
            // Somebody panicked half-way: what he had in hand is lost, and nothing may follow it.
            self.stop();
            return Err(CommitError::Stopped);
        };
        if seq < synced.seq {
            return Ok(());
        }
        if self.is_stopped() {
            return Err(CommitError::Stopped);
        }
        self.write(shared, seq, &mut synced)?;
        let groups = std::mem::take(&mut synced.written);
        let Some(last) = groups.last() else {
            self.stop();
            return Err(CommitError::Stopped);
        };
        self.sync(shared, last.file.as_ref())?;
        synced.seq = last.seq + 1;
        self.publish(shared, last, &groups);
        // ORDER: after the sync, before anybody is told of it.
        let partitions = partitions_of(shared, &groups);
        let at = (last.segment, last.end());
        synced.marks.note(last.seq + 1, at, partitions);
        Ok(())
    }

    /// As a broker that dies between the write and the sync.
    #[cfg(test)]
    pub(in crate::store::local) fn write_only(&self, shared: &Shared) {
        let written = self.write(shared, u64::MAX, &mut locked(&self.synced));
        written.expect("nothing fails here");
    }

    /// Writes what was laid out, up to the group `seq`.
    fn write(&self, shared: &Shared, seq: u64, synced: &mut Synced) -> Result<(), CommitError> {
        loop {
            let next = {
                let mut waiting = locked(&self.waiting);
                let is_due = waiting.front().is_some_and(|group| group.seq <= seq);
                is_due.then(|| waiting.pop_front()).flatten()
            };
            let Some(next) = next else {
                return Ok(());
            };
            let (bytes, extents) = next.group.seal(synced.seq);
            if let Err(error) = next.file.append_at(next.position, &bytes) {
                shared.config.metrics.journal.write_failures.add(1);
                return Err(self.poison(error));
            }
            synced.written.push(Written {
                seq: next.seq,
                segment: next.segment,
                file: next.file,
                position: next.position,
                bytes,
                extents,
            });
        }
    }

    fn sync(&self, shared: &Shared, file: &dyn DiskFile) -> Result<(), CommitError> {
        let metrics = &shared.config.metrics.journal;
        let begun = Instant::now();
        if let Err(error) = file.sync_data() {
            metrics.sync_failures.add(1);
            return Err(self.poison(error));
        }
        metrics.sync_seconds.record_time(begun.elapsed());
        // ORDER: after the sync. What stopped taking writes before it may have let it succeed.
        let is_read_only = shared.disk.is_read_only(&shared.config.data_dir);
        if is_read_only.unwrap_or(false) {
            let source = std::io::ErrorKind::ReadOnlyFilesystem.into();
            let dir = shared.segments.dir();
            return Err(self.poison(IoError::new("sync a read-only device at", dir, source)));
        }
        Ok(())
    }

    /// Makes synced groups readable.
    fn publish(&self, shared: &Shared, last: &Written, groups: &[Written]) {
        shared.recent.expire();
        // ORDER: the cache before the index, so that what the index finds is still in the cache.
        {
            let mut cache = shared.cache.write().unwrap_or_else(PoisonError::into_inner);
            for group in groups {
                // Copies are old records that nobody waits for.
                if group.extents.iter().any(|extent| !extent.is_copy) {
                    cache.push(group.segment, group.position, group.bytes.clone());
                }
            }
        }
        {
            let memory = &shared.index.memory;
            let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
            let mut bounds = locked(&shared.bounds);
            for group in groups {
                for encoded in &group.extents {
                    let place = Place {
                        segment: group.segment,
                        position: group.position + encoded.at,
                        extent: encoded.extent,
                        is_copy: encoded.is_copy,
                    };
                    memory.insert(encoded.partition, place);
                    let bounds = bounds.entry(encoded.partition).or_default();
                    bounds.end = bounds.end.max(encoded.extent.end_offset());
                }
                // ORDER: while nobody looks into memory, so that each is counted once.
                self.extents
                    .fetch_sub(group.extents.len(), Ordering::AcqRel);
            }
        }
        if let Some(info) = shared.segments.infos_mut().get_mut(&last.segment) {
            info.groups_end = last.end();
            info.end_seq = last.seq + 1;
        }
    }
}

/// Where the partitions end that these groups are for; nothing when they are many.
fn partitions_of(shared: &Shared, groups: &[Written]) -> Vec<(PartitionId, Bounds)> {
    let extents = groups.iter().flat_map(|group| &group.extents);
    let mut partitions: Vec<PartitionId> = extents.map(|extent| extent.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    if partitions.len() > SYNCED_PARTITIONS_MAX {
        return Vec::new();
    }
    let bounds = locked(&shared.bounds);
    let of = |partition| Some((partition, *bounds.get(&partition)?));
    partitions.into_iter().filter_map(of).collect()
}
