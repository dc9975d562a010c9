//! The write path: one group, one write, one sync.
//!
//! Owns the end of the journal: where the next group goes, and what it looks like. Promises: groups are numbered
//! densely and follow each other without a gap. What is laid out here is written by [`Device`].

mod device;
mod forward;
mod roll;
mod space;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

pub(super) use self::device::Device;
use self::device::LaidOut;
use self::forward::Idle;
use self::space::FreeSpace;
use super::journal::group::{Encoder, ExtentCopy, GroupKind, Placement};
use super::journal::state::StoreState;
use super::synced::SyncedFile;
use super::{Shared, locked};
use crate::io::DiskFile;
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

/// Where the journal ends, for the clean-stop marker.
#[derive(Debug, Clone, Copy)]
pub(super) struct JournalEnd {
    pub(super) next_seq: u64,
    pub(super) segment: u64,
    pub(super) end: u64,
}

/// Lays out the journal.
#[derive(Debug)]
pub(super) struct Appender {
    active: Option<Active>,
    next_seq: u64,
    device: Arc<Device>,
    /// About the largest group lately: room to keep for the next.
    recent_group_bytes: u64,
    space: FreeSpace,
    idle: Idle,
}

impl Appender {
    /// Continues `active`, or rolls at the first commit.
    pub(super) fn new(active: Option<Active>, next_seq: u64, marks: SyncedFile) -> Self {
        Self {
            active,
            next_seq,
            device: Arc::new(Device::new(next_seq, marks)),
            recent_group_bytes: 0,
            space: FreeSpace::default(),
            idle: Idle::default(),
        }
    }

    /// Makes durable what this lays out.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn commit(
        &mut self,
        shared: &Shared,
        group: &CommitGroup,
    ) -> Result<CommitSeq, CommitError> {
        if self.device.is_stopped() {
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

    /// Lays a group out at the end of the active segment.
    fn append(&mut self, shared: &Shared, group: &Encoder<'_>) -> Result<CommitSeq, CommitError> {
        let Some(active) = &mut self.active else {
            return Err(CommitError::Stopped);
        };
        let encoded = group.encode(&Placement {
            segment: active.segment,
            nonce: active.nonce,
            seq: self.next_seq,
            position: active.end,
        })?;
        let metrics = &shared.config.metrics.journal;
        let bytes = encoded.len() as u64;
        if group.kind == GroupKind::Commit {
            metrics.groups.add(1);
            metrics.group_bytes.add(bytes);
            let copied = |copy: &ExtentCopy| u64::from(copy.extent.bytes);
            metrics
                .bytes_copied
                .add(group.copies.iter().map(copied).sum());
        }
        let seq = self.next_seq;
        self.device.take(LaidOut {
            seq,
            segment: active.segment,
            file: Arc::clone(&active.file),
            position: active.end,
            group: encoded,
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
        self.next_seq += 1;
        Ok(CommitSeq(seq))
    }

    /// Makes durable and readable what was laid out so far.
    fn sync(&self, shared: &Shared) -> Result<(), CommitError> {
        match self.next_seq.checked_sub(1) {
            Some(last) => self.device.durable(shared, last),
            None => Ok(()),
        }
    }

    /// Appends a last snapshot and answers where the journal ends. Later commits are refused.
    pub(super) fn close(
        &mut self,
        shared: &Shared,
        rows: &[Row],
    ) -> Result<JournalEnd, CommitError> {
        if self.device.is_stopped() {
            return Err(CommitError::Stopped);
        }
        if self.active.is_none() {
            self.roll(shared, Some(rows))?;
        } else {
            self.sync(shared)?;
            self.last_snapshot(shared, rows)?;
        }
        self.device.stop();
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
