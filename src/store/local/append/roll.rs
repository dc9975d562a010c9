//! Going on in the next segment.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::space::{full, rows_reserve};
use super::{Active, Appender};
use crate::io::{BLOCK_BYTES, DiskFile, IoError};
use crate::store::local::journal::group::{Encoder, GroupKind, Placement};
use crate::store::local::journal::segment::{HEADER_BYTES, SegmentHeader};
use crate::store::local::segments::SegmentInfo;
use crate::store::local::{Shared, locked};
use crate::store::{CommitError, CommitSeq, Row};

impl Appender {
    /// Whether the next group shall go into another segment.
    pub(in crate::store::local) fn wants_snapshot(&self, shared: &Shared) -> bool {
        if self.device.is_stopped() {
            return false;
        }
        let Some(active) = &self.active else {
            return true;
        };
        let memory = shared.index.memory.read();
        let memory = memory.unwrap_or_else(PoisonError::into_inner);
        // ORDER: with memory locked, where they go from here, so that each is counted once.
        let extents = memory.count(active.segment) + self.device.extents();
        drop(memory);
        if extents >= shared.config.segment_extents_max {
            return true;
        }
        // A segment that a snapshot nearly fills still takes as much data again before it rolls.
        let snapshot = active.data_from.saturating_sub(HEADER_BYTES);
        let capacity = active.capacity.max(active.data_from + snapshot);
        let room = self.recent_group_bytes.max(capacity / 64);
        active.end > active.data_from && active.end.saturating_add(room) > capacity
    }

    /// Starts a segment with a snapshot. It is durable when this returns.
    pub(in crate::store::local) fn commit_snapshot(
        &mut self,
        shared: &Shared,
        rows: &[Row],
    ) -> Result<CommitSeq, CommitError> {
        if self.device.is_stopped() {
            return Err(CommitError::Stopped);
        }
        self.roll(shared, Some(rows))?;
        Ok(CommitSeq(self.next_seq.saturating_sub(1)))
    }

    /// Starts a segment. Everything before is synced first: recovery relies on it.
    pub(super) fn roll(
        &mut self,
        shared: &Shared,
        rows: Option<&[Row]>,
    ) -> Result<(), CommitError> {
        self.sync(shared)?;
        let segment = {
            let infos = shared.segments.infos();
            let last = infos.keys().next_back().copied();
            last.max(self.active.as_ref().map(|active| active.segment))
                .map_or(1, |last| last + 1)
        };
        let header = SegmentHeader {
            journal_id: shared.identity.journal_id,
            segment,
            nonce: fastrand::u32(1..),
        };
        let trims = locked(&shared.trims).len();
        let mut bytes = header.encode();
        if let Some(rows) = rows {
            let mut state = shared.state();
            state.segments.push(segment);
            let snapshot = Encoder {
                kind: GroupKind::Snapshot,
                batches: &[],
                copies: &[],
                rows,
                trims: &[],
                state: Some(&state),
                extent_bytes: shared.config.extent_bytes,
            };
            let snapshot = snapshot.encode(&Placement {
                segment,
                nonce: header.nonce,
                seq: self.next_seq,
                position: HEADER_BYTES,
            })?;
            let (snapshot, _) = snapshot.seal(self.device.synced_seq());
            bytes.extend_from_slice(&snapshot);
        }
        let prepared = shared.signal.take_spare();
        let is_prepared = prepared.is_some();
        let path = match prepared {
            Some(spare) => spare,
            None => self.grown(shared, segment, bytes.len() as u64)?,
        };
        let file = match begin(shared, &path, segment, &bytes) {
            Ok(file) => file,
            Err(error) => return Err(self.not_begun(shared, &path, error)),
        };
        if let Err(error) = shared.disk.sync_dir(shared.segments.dir()) {
            return Err(self.device.poison(error));
        }
        shared.config.metrics.journal.rolls.add(1);
        let end = bytes.len() as u64;
        let file_bytes = file.len_bytes().unwrap_or(end);
        if rows.is_some() {
            // The snapshot's state carries the trims.
            locked(&shared.trims).drain(..trims);
            self.next_seq += 1;
            let newest = &shared.snapshot_segment;
            newest.fetch_max(segment, Ordering::AcqRel);
            self.device.note_front(self.next_seq, segment, end);
        }
        self.retire(shared);
        shared.segments.set_active(segment, &file);
        shared.segments.infos_mut().insert(
            segment,
            SegmentInfo {
                nonce: header.nonce,
                file_bytes,
                groups_end: end,
                first_seq: self.next_seq - u64::from(rows.is_some()),
                end_seq: self.next_seq,
                is_active: true,
                ..SegmentInfo::default()
            },
        );
        self.active = Some(Active {
            segment,
            nonce: header.nonce,
            file,
            end,
            // A file that was not prepared grows up to the nominal size.
            capacity: if is_prepared && file_bytes > end {
                file_bytes
            } else {
                shared.config.segment_bytes
            },
            data_from: end,
            file_bytes,
        });
        shared.signal.wake();
        Ok(())
    }

    /// No prepared segment is there: one that grows while it is written is slower, not wrong.
    /// It has room for its first `bytes` and the rows that may follow them, or is not there.
    fn grown(&mut self, shared: &Shared, segment: u64, bytes: u64) -> Result<PathBuf, CommitError> {
        let path = shared.segments.spare_path(segment);
        let end = bytes.saturating_add(rows_reserve(shared));
        let end = end.next_multiple_of(BLOCK_BYTES as u64);
        let created = shared.disk.create(&path);
        match created.and_then(|file| file.reserve(0, end)) {
            Ok(()) => Ok(path),
            Err(error) => Err(self.not_begun(shared, &path, error)),
        }
    }

    /// Nothing of the segment is in the journal yet, so a full device is no failure of the journal.
    fn not_begun(&self, shared: &Shared, path: &Path, error: IoError) -> CommitError {
        if !error.is_full() {
            shared.config.metrics.journal.write_failures.add(1);
            return self.device.poison(error);
        }
        drop(shared.disk.remove(path));
        full(shared)
    }

    /// Hands the segment so far to the keeper.
    fn retire(&mut self, shared: &Shared) {
        let Some(active) = self.active.take() else {
            return;
        };
        let shares = {
            let memory = shared.index.memory.read();
            memory.map_or_else(|_| Vec::new(), |memory| memory.shares(active.segment))
        };
        if let Some(info) = shared.segments.infos_mut().get_mut(&active.segment) {
            info.shares = shares;
            info.is_active = false;
        }
    }
}

/// Makes a prepared file segment `segment`. ORDER: a file has its final name only when its header
/// and snapshot are durable, so a segment with a bad header is always rot and never a crash.
fn begin(
    shared: &Shared,
    spare: &Path,
    segment: u64,
    bytes: &[u8],
) -> Result<Arc<dyn DiskFile>, IoError> {
    let file = shared.open_for_appends(spare)?;
    file.append_at(0, bytes)?;
    file.sync_data()?;
    shared.disk.rename(spare, &shared.segments.path(segment))?;
    Ok(file)
}
