//! The write path: one group, one write, one sync.
//!
//! Owns the end of the journal. Promises: groups are numbered densely, a group is published after its
//! sync and never before, and after the first failed write or sync nothing is written or synced again.

mod forward;
mod roll;
mod space;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use falcon_protocol::PartitionId;

use self::forward::Idle;
use self::space::FreeSpace;
use super::index::Place;
use super::journal::group::{EncodedExtent, Encoder, ExtentCopy, GroupKind, Placement};
use super::journal::state::{Bounds, StoreState};
use super::synced::{SYNCED_PARTITIONS_MAX, SyncedFile};
use super::{Shared, locked};
use crate::clock::Instant;
use crate::io::{DiskFile, IoError};
use crate::store::{CommitError, CommitGroup, CommitSeq, Row};

/// The segment that groups are appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: u64,
    pub(super) nonce: u32,
    pub(super) file: Arc<dyn DiskFile>,
    /// Position of the next group.
    pub(super) end: u64,
    /// Position it should not grow beyond.
    pub(super) capacity: u64,
    /// Where the snapshot at its front ends.
    pub(super) data_from: u64,
    pub(super) file_bytes: u64,
}

/// A group that was written and not yet synced.
#[derive(Debug)]
struct Pending {
    position: u64,
    bytes: Bytes,
    extents: Vec<EncodedExtent>,
}

/// Where the journal ends, for the clean-stop marker.
#[derive(Debug, Clone, Copy)]
pub(super) struct JournalEnd {
    pub(super) next_seq: u64,
    pub(super) segment: u64,
    pub(super) end: u64,
}

/// The one writer of the journal.
#[derive(Debug)]
pub(super) struct Appender {
    active: Option<Active>,
    next_seq: u64,
    synced_seq: u64,
    pending: Vec<Pending>,
    is_stopped: bool,
    /// About the largest group lately: room to keep for the next.
    recent_group_bytes: u64,
    space: FreeSpace,
    idle: Idle,
    marks: SyncedFile,
}

impl Appender {
    /// Continues `active`, or rolls at the first commit.
    pub(super) fn new(active: Option<Active>, next_seq: u64, marks: SyncedFile) -> Self {
        Self {
            active,
            next_seq,
            synced_seq: next_seq,
            pending: Vec::new(),
            is_stopped: false,
            recent_group_bytes: 0,
            space: FreeSpace::default(),
            idle: Idle::default(),
            marks,
        }
    }

    pub(super) fn commit(
        &mut self,
        shared: &Shared,
        group: &CommitGroup,
    ) -> Result<CommitSeq, CommitError> {
        if self.is_stopped {
            return Err(CommitError::Stopped);
        }
        if self.active.is_none() {
            self.roll(shared, None)?;
        }
        self.append_with_trims(shared, group, &[], None)
    }

    /// Appends a group that carries the trims nobody has written down yet.
    fn append_with_trims(
        &mut self,
        shared: &Shared,
        group: &CommitGroup,
        copies: &[ExtentCopy],
        state: Option<&StoreState>,
    ) -> Result<CommitSeq, CommitError> {
        let trims = locked(&shared.trims).clone();
        let seq = self.append(
            shared,
            &Encoder {
                kind: GroupKind::Commit,
                batches: &group.batches,
                copies,
                rows: &group.rows,
                trims: &trims,
                state,
                extent_bytes: shared.config.extent_bytes,
            },
        )?;
        locked(&shared.trims).drain(..trims.len());
        Ok(seq)
    }

    /// Writes a group at the end of the active segment.
    fn append(&mut self, shared: &Shared, group: &Encoder<'_>) -> Result<CommitSeq, CommitError> {
        let Some(active) = &mut self.active else {
            return Err(CommitError::Stopped);
        };
        let encoded = group.encode(&Placement {
            segment: active.segment,
            nonce: active.nonce,
            seq: self.next_seq,
            synced_seq: self.synced_seq,
            position: active.end,
        })?;
        let metrics = &shared.config.metrics.journal;
        if let Err(error) = active.file.append_at(active.end, &encoded.bytes) {
            metrics.write_failures.add(1);
            return Err(self.poison(error));
        }
        let bytes = encoded.bytes.len() as u64;
        if group.kind == GroupKind::Commit {
            metrics.groups.add(1);
            metrics.group_bytes.add(bytes);
            let copied = |copy: &ExtentCopy| u64::from(copy.extent.bytes);
            metrics
                .bytes_copied
                .add(group.copies.iter().map(copied).sum());
        }
        self.pending.push(Pending {
            position: active.end,
            bytes: encoded.bytes,
            extents: encoded.extents,
        });
        active.end += bytes;
        if active.end > active.file_bytes {
            active.file_bytes = active.end;
            if let Some(info) = shared.segments.infos_mut().get_mut(&active.segment) {
                info.file_bytes = active.end;
            }
        }
        self.space.note_written(bytes);
        self.recent_group_bytes = bytes.max(self.recent_group_bytes - self.recent_group_bytes / 8);
        let seq = self.next_seq;
        self.next_seq += 1;
        Ok(CommitSeq(seq))
    }

    pub(super) fn durable(&mut self, shared: &Shared, seq: CommitSeq) -> Result<(), CommitError> {
        if seq.0 < self.synced_seq {
            return Ok(());
        }
        if self.is_stopped {
            return Err(CommitError::Stopped);
        }
        self.sync(shared)
    }

    /// Syncs what is pending and makes it readable.
    fn sync(&mut self, shared: &Shared) -> Result<(), CommitError> {
        if let (Some(active), false) = (&self.active, self.pending.is_empty()) {
            let metrics = &shared.config.metrics.journal;
            let begun = Instant::now();
            if let Err(error) = active.file.sync_data() {
                metrics.sync_failures.add(1);
                return Err(self.poison(error));
            }
            metrics.sync_seconds.record_time(begun.elapsed());
            // ORDER: after the sync. What stopped taking writes before it may have let it succeed.
            if shared
                .disk
                .is_read_only(&shared.config.data_dir)
                .unwrap_or(false)
            {
                let source = std::io::ErrorKind::ReadOnlyFilesystem.into();
                let dir = shared.segments.dir();
                return Err(self.poison(IoError::new("sync a read-only device at", dir, source)));
            }
            self.synced_seq = self.next_seq;
            let groups = std::mem::take(&mut self.pending);
            publish(shared, active, self.synced_seq, &groups);
            // ORDER: after the sync, before anybody is told of it.
            let at = (active.segment, active.end);
            let partitions = partitions_of(shared, &groups);
            self.marks.note(self.synced_seq, at, partitions);
        }
        Ok(())
    }

    /// A failed write or sync is final: the page cache may have dropped the bytes, and a second
    /// sync would report success for data that is gone.
    fn poison(&mut self, error: IoError) -> CommitError {
        self.is_stopped = true;
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the journal cannot be written, commits are refused until the next start"
        );
        CommitError::Failed(Arc::new(error))
    }

    /// Appends a last snapshot and answers where the journal ends. Later commits are refused.
    pub(super) fn close(
        &mut self,
        shared: &Shared,
        rows: &[Row],
    ) -> Result<JournalEnd, CommitError> {
        if self.is_stopped {
            return Err(CommitError::Stopped);
        }
        if self.active.is_none() {
            self.roll(shared, Some(rows))?;
        } else {
            self.sync(shared)?;
            self.last_snapshot(shared, rows)?;
        }
        self.is_stopped = true;
        let active = self.active.as_ref().ok_or(CommitError::Stopped)?;
        Ok(JournalEnd {
            next_seq: self.next_seq,
            segment: active.segment,
            end: active.end,
        })
    }

    /// Appends a snapshot to the active segment, unless the device has no room: the one at the
    /// segment's front will do then, and stopping works on a full device.
    fn last_snapshot(&mut self, shared: &Shared, rows: &[Row]) -> Result<(), CommitError> {
        let state = shared.state();
        let bytes = |row: &Row| row.key.len() + row.value.as_ref().map_or(0, Bytes::len) + 24;
        let need = rows.iter().map(bytes).sum::<usize>() + state.encoded_bytes() + 64;
        let need = need as u64;
        if self.set_aside(shared, need).is_err() {
            return Ok(());
        }
        let snapshot = Encoder {
            kind: GroupKind::Snapshot,
            batches: &[],
            copies: &[],
            rows,
            trims: &[],
            state: Some(&state),
            extent_bytes: shared.config.extent_bytes,
        };
        self.append(shared, &snapshot)?;
        self.sync(shared)?;
        if let Some(active) = &self.active {
            let newest = &shared.snapshot_segment;
            newest.fetch_max(active.segment, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// Where the partitions end that these groups are for; nothing when they are many.
fn partitions_of(shared: &Shared, groups: &[Pending]) -> Vec<(PartitionId, Bounds)> {
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

/// Makes synced groups readable.
fn publish(shared: &Shared, active: &Active, end_seq: u64, groups: &[Pending]) {
    // ORDER: the cache before the index, so that what the index finds is still in the cache.
    {
        let mut cache = shared.cache.write().unwrap_or_else(PoisonError::into_inner);
        for group in groups {
            // Copies are old records that nobody waits for.
            if group.extents.iter().any(|extent| !extent.is_copy) {
                cache.push(active.segment, group.position, group.bytes.clone());
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
                    segment: active.segment,
                    position: group.position + encoded.at,
                    extent: encoded.extent,
                    is_copy: encoded.is_copy,
                };
                memory.insert(encoded.partition, place);
                let bounds = bounds.entry(encoded.partition).or_default();
                bounds.end = bounds.end.max(encoded.extent.end_offset());
            }
        }
    }
    if let Some(info) = shared.segments.infos_mut().get_mut(&active.segment) {
        info.groups_end = active.end;
        info.end_seq = end_seq;
    }
}
