//! Refusing commits before the device is full, and setting space aside for those that are taken.
//!
//! Promises: a group that was given room is written into blocks that its segment occupies already, so
//! that a device that fills up meanwhile cannot fail the write. What still fails then is final, as any
//! failed write.

use std::time::{Duration, Instant};

use super::{Active, Appender};
use crate::io::{BLOCK_BYTES, IoError};
use crate::store::local::journal::group::TRIM_BYTES;
use crate::store::local::journal::segment::HEADER_BYTES;
use crate::store::local::{Shared, locked};
use crate::store::{CommitError, Purpose};

const CHECK_EVERY: Duration = Duration::from_millis(100);
const CHECK_BYTES: u64 = 4 << 20;
/// Header of a group, and what its entries are padded with.
const GROUP_ROOM: u64 = 512;
/// Most that is kept for rows in the active segment.
const ROWS_ROOM_MAX: u64 = 1 << 20;

/// Free space on the device, measured now and then.
#[derive(Debug, Default)]
pub(super) struct FreeSpace {
    measured: Option<Instant>,
    free_bytes: u64,
    written_bytes: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "limits how often the device is asked; decides nothing that a test would move"
)]
fn now() -> Instant {
    Instant::now()
}

impl FreeSpace {
    pub(super) fn note_written(&mut self, bytes: u64) {
        self.written_bytes += bytes;
    }

    /// Refuses a group while too little is free. Copies give back three times what they take, so they
    /// may use half of the reserve, rows alone most of it, and what gives space back all of it.
    fn admit(&mut self, shared: &Shared, purpose: Purpose) -> Result<(), CommitError> {
        let floor = shared.config.free_floor_bytes;
        let floor_bytes = match purpose {
            Purpose::Batches => floor,
            Purpose::Copies => floor / 2,
            Purpose::Rows => floor / 4,
            Purpose::Freeing => return Ok(()),
        };
        let is_fresh = self.free_bytes >= floor_bytes
            && self.written_bytes < CHECK_BYTES.min(floor / 16)
            && self.measured.is_some_and(|at| at.elapsed() < CHECK_EVERY);
        if !is_fresh && let Ok(free) = shared.disk.free_bytes(&shared.config.data_dir) {
            self.free_bytes = free;
            self.measured = Some(now());
            self.written_bytes = 0;
        }
        if self.measured.is_some() && self.free_bytes < floor_bytes {
            return Err(CommitError::Full {
                free_bytes: self.free_bytes,
                floor_bytes,
            });
        }
        Ok(())
    }
}

impl Appender {
    /// Sets space aside for a group of about `bytes`, or refuses it. Rows alone go into what the active
    /// segment occupies already, so a full device does not keep anybody from deleting.
    pub(in crate::store::local) fn check_room(
        &mut self,
        shared: &Shared,
        purpose: Purpose,
        bytes: u64,
    ) -> Result<(), CommitError> {
        if self.device.is_stopped() {
            return Err(CommitError::Stopped);
        }
        if purpose != Purpose::Batches && self.fits(shared, purpose, bytes) {
            return Ok(());
        }
        self.space.admit(shared, purpose)?;
        if purpose == Purpose::Batches && self.wants_snapshot(shared) {
            // It goes into the next segment, which brings its own space.
            return Ok(());
        }
        self.set_aside(shared, needed(shared, purpose, bytes))
    }

    /// Whether the active segment occupies the space already.
    pub(super) fn fits(&self, shared: &Shared, purpose: Purpose, bytes: u64) -> bool {
        let need = needed(shared, purpose, bytes);
        let fits = |active: &Active| block_end(active, need) <= active.file_bytes;
        self.active.as_ref().is_some_and(fits)
    }

    /// Makes the active segment occupy `need` bytes behind its end.
    pub(super) fn set_aside(&mut self, shared: &Shared, need: u64) -> Result<(), CommitError> {
        let Some(active) = &mut self.active else {
            return next_fits(shared, need);
        };
        let end = block_end(active, need);
        if end <= active.file_bytes {
            return Ok(());
        }
        // In steps, so that not every group waits for the file system to change its tables.
        let step = (shared.config.segment_bytes / 32).max(HEADER_BYTES);
        let step = step.next_multiple_of(BLOCK_BYTES as u64);
        let ahead = end.next_multiple_of(step).min(active.capacity.max(end));
        let mut reserved = active.file.reserve(active.file_bytes, ahead);
        let mut reached = ahead;
        if reserved.as_ref().is_err_and(IoError::is_full) && ahead > end {
            reserved = active.file.reserve(active.file_bytes, end);
            reached = end;
        }
        match reserved {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                // What it got is of no use there, and others may need it.
                drop(active.file.set_len(active.file_bytes));
                return Err(full(shared));
            }
            Err(error) => return Err(self.device.poison(error)),
        }
        active.file_bytes = reached;
        if let Some(info) = shared.segments.infos_mut().get_mut(&active.segment) {
            info.file_bytes = reached;
        }
        Ok(())
    }
}

/// Where the last block ends that `need` bytes more take: an append writes it whole.
fn block_end(active: &Active, need: u64) -> u64 {
    let end = active.end.saturating_add(need);
    end.checked_next_multiple_of(BLOCK_BYTES as u64)
        .unwrap_or(u64::MAX)
}

/// Whether a segment that is yet to be made has space for its header and `need` bytes more. It is not set
/// aside: nothing is made before there is something to write.
fn next_fits(shared: &Shared, need: u64) -> Result<(), CommitError> {
    let bytes = HEADER_BYTES
        .saturating_add(rows_reserve(shared))
        .saturating_add(need);
    let free = shared.disk.free_bytes(&shared.config.data_dir);
    if shared.signal.spares() > 0 || free.is_ok_and(|free| free >= bytes) {
        return Ok(());
    }
    Err(full(shared))
}

/// Bytes of a group with its header, the trims that ride along, and what must stay for those that
/// come after it on a full device.
fn needed(shared: &Shared, purpose: Purpose, bytes: u64) -> u64 {
    let reserve = rows_reserve(shared);
    let kept = match purpose {
        Purpose::Batches => reserve,
        Purpose::Copies | Purpose::Rows => reserve / 2,
        Purpose::Freeing => 0,
    };
    let trims = locked(&shared.trims).len() * TRIM_BYTES;
    bytes.saturating_add(GROUP_ROOM + trims as u64 + kept)
}

/// What batches leave free in the active segment, for rows on a full device.
pub(super) fn rows_reserve(shared: &Shared) -> u64 {
    ROWS_ROOM_MAX.min(shared.config.segment_bytes / 16)
}

pub(super) fn full(shared: &Shared) -> CommitError {
    let free = shared.disk.free_bytes(&shared.config.data_dir);
    CommitError::Full {
        free_bytes: free.unwrap_or(0),
        floor_bytes: shared.config.free_floor_bytes,
    }
}
