//! Preparing files ahead, so that the hot path only overwrites.
//!
//! Owns the spare that is being made. Promises: a spare is named as one only when it has its full size, and
//! is filled in step with the journal, never in one go beside somebody's sync. Must not know: groups.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Keeper;
use crate::clock::Instant;
use crate::io::{BlockBuffer, DiskFile, IoError};
use crate::store::local::Shared;
use crate::store::local::segments::SegmentInfo;

/// Written at once.
const FILL_BYTES: usize = 256 << 10;
/// At least [`FILL_BYTES`] are written so often.
const FILL_EVERY: Duration = Duration::from_millis(50);
/// With groups of this size on average, writing a segment twice costs more than overwriting saves:
/// `docs/adr/0009-direct-io.md`.
const BULK_GROUP_BYTES: u64 = 256 << 10;

/// A spare that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    position: u64,
    bytes: u64,
}

impl Filling {
    /// Creates a file of its full size, not one block of it written yet.
    fn begin(shared: &Shared, path: &Path, bytes: u64) -> Result<Self, IoError> {
        let file = shared.disk.create(path)?;
        file.reserve(0, bytes)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: shared.open_for_appends(path)?,
            position: 0,
            bytes,
        })
    }

    /// Writes zeros up to `target`.
    fn fill(&mut self, shared: &Shared, target: u64) -> Result<(), IoError> {
        let zeros = BlockBuffer::zeroed(FILL_BYTES);
        while self.position < target.min(self.bytes) && !shared.signal.is_stopping() {
            let left = usize::try_from(self.bytes - self.position).unwrap_or(FILL_BYTES);
            let chunk = zeros.bytes().get(..left).unwrap_or(zeros.bytes());
            self.file.append_at(self.position, chunk)?;
            self.position += chunk.len() as u64;
            let prepared = &shared.config.metrics.journal.bytes_prepared;
            prepared.add(chunk.len() as u64);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.position >= self.bytes
    }
}

/// Creates a file of which every block was written once, in one go.
pub(in crate::store::local) fn zero_filled(
    shared: &Shared,
    path: &Path,
    bytes: u64,
) -> Result<(), IoError> {
    let mut filling = Filling::begin(shared, path, bytes)?;
    filling.fill(shared, bytes)?;
    filling.file.sync_data()
}

impl Keeper<'_> {
    /// How long to wait for work before some more of a spare is filled, or of a dead segment removed.
    pub(super) fn pause(&self) -> Option<Duration> {
        let looks = self.filling.is_some() || self.is_pacing;
        let look = looks.then(|| self.look_due.since(Instant::now()));
        match (look, self.until_next_cut()) {
            (Some(look), Some(cut)) => Some(look.min(cut)),
            (look, cut) => look.or(cut),
        }
    }

    /// Whether it is time for a look that nobody asked for; then the next is due later.
    pub(super) fn is_look_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.look_due;
        if is_due {
            self.look_due = now.after(FILL_EVERY);
        }
        is_due
    }

    /// Prepares segments until enough are there, as long as that leaves space for commits.
    pub(super) fn prepare_spares(&mut self) {
        let shared = self.shared;
        let bytes = shared.config.segment_bytes;
        let mut goes_on = self.fill_on();
        while goes_on
            && self.filling.is_none()
            && shared.signal.spares() < shared.config.spare_segments
            && !shared.signal.is_stopping()
        {
            // ORDER: after the look that found a spare missing. The writer may have taken it since dead segments were
            // last looked at, and one of them is a spare that costs nothing.
            self.reclaim();
            if shared.signal.spares() >= shared.config.spare_segments {
                return;
            }
            let free = shared.disk.free_bytes(&shared.config.data_dir).unwrap_or(0);
            if free < bytes.saturating_add(shared.config.free_floor_bytes) {
                return;
            }
            let path = new_spare_path(self);
            match Filling::begin(shared, &path, bytes) {
                Ok(mut begun) => {
                    if is_bulk(shared) {
                        begun.position = begun.bytes;
                    }
                    self.filling = Some(begun);
                    // What fails once would fail again at once: the next work that there is tries again.
                    goes_on = self.fill_on();
                }
                Err(error) => {
                    give_up(shared, &path, &error);
                    return;
                }
            }
        }
    }

    /// Fills some more of the spare in the making; answers whether nothing failed.
    pub(super) fn fill_on(&mut self) -> bool {
        let shared = self.shared;
        let Some(mut filling) = self.filling.take() else {
            return true;
        };
        if shared.signal.spares() >= shared.config.spare_segments {
            // A segment that was reclaimed came first.
            self.remove(filling.path, filling.file, filling.bytes);
            return true;
        }
        let target = (filling.position + FILL_BYTES as u64).max(in_step(shared, filling.bytes));
        let filled = filling.fill(shared, target);
        let done = filled.and_then(|()| {
            if !filling.is_full() {
                return Ok(false);
            }
            filling.file.sync_data()?;
            shared.disk.sync_dir(shared.segments.dir())?;
            Ok(true)
        });
        match done {
            Ok(true) => shared.signal.add_spare(filling.path),
            Ok(false) => self.filling = Some(filling),
            Err(error) => {
                give_up(shared, &filling.path, &error);
                return false;
            }
        }
        true
    }
}

fn give_up(shared: &Shared, path: &Path, error: &IoError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "a segment could not be prepared, the next one grows while it is written"
    );
    drop(shared.disk.remove(path));
}

/// How far a spare of `bytes` should be, so that it is ready somewhat before the active segment is full.
fn in_step(shared: &Shared, bytes: u64) -> u64 {
    let infos = shared.segments.infos();
    let Some((_, active)) = infos.iter().next_back().filter(|(_, info)| info.is_active) else {
        return 0;
    };
    // A file that was not prepared grows up to the nominal size.
    let capacity = if active.file_bytes == shared.config.first_segment_bytes {
        active.file_bytes
    } else {
        active.file_bytes.max(shared.config.segment_bytes)
    };
    let used = u128::from(active.groups_end) * u128::from(bytes);
    let share = used / u128::from(capacity.max(1));
    u64::try_from(share + share / 4).unwrap_or(bytes)
}

/// Whether the groups lately are so large that overwriting is not worth a second write.
fn is_bulk(shared: &Shared) -> bool {
    let infos = shared.segments.infos();
    let groups = |info: &SegmentInfo| info.end_seq.saturating_sub(info.first_seq);
    let last = infos.values().rev().find(|info| !info.is_active);
    last.is_some_and(|info| {
        groups(info) > 0 && info.groups_end / groups(info).max(1) >= BULK_GROUP_BYTES
    })
}

/// A name that no spare has: the upper half of the numbers, which segments never reach.
pub(super) fn new_spare_path(keeper: &Keeper<'_>) -> PathBuf {
    let number = fastrand::u64(1 << 63..);
    keeper.shared.segments.spare_path(number)
}
