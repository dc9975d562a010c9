//! Preparing files ahead, so that the hot path only overwrites.

use std::path::PathBuf;
use std::sync::Arc;

use super::Keeper;
use crate::io::{Disk, DiskFile, IoError};

const FILL_BYTES: usize = 1 << 20;
/// Writes between syncs, so that filling does not hold up the journal's syncs for long.
const FILLS_PER_SYNC: usize = 8;

/// Creates a file of which every block was written once.
pub(in crate::store::local) fn zero_filled(
    disk: &dyn Disk,
    path: &std::path::Path,
    bytes: u64,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Arc<dyn DiskFile>>, IoError> {
    let file = disk.create(path)?;
    let zeros = vec![0; FILL_BYTES];
    let mut position = 0;
    let mut fills = 0;
    while position < bytes {
        if !goes_on() {
            return Ok(None);
        }
        let left = usize::try_from(bytes - position).unwrap_or(FILL_BYTES);
        let chunk = zeros.get(..left).unwrap_or(&zeros);
        file.write_at(position, chunk)?;
        position += chunk.len() as u64;
        fills += 1;
        if fills % FILLS_PER_SYNC == 0 {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    Ok(Some(file))
}

impl Keeper<'_> {
    /// Prepares segments until enough are there, as long as that leaves space for commits.
    pub(super) fn prepare_spares(&mut self) {
        let shared = self.shared;
        let bytes = shared.config.segment_bytes;
        while shared.signal.spares() < shared.config.spare_segments && !shared.signal.is_stopping()
        {
            let free = shared.disk.free_bytes(&shared.config.data_dir).unwrap_or(0);
            if free < bytes.saturating_add(shared.config.free_floor_bytes) {
                return;
            }
            let path = new_spare_path(self);
            let filled = zero_filled(shared.disk.as_ref(), &path, bytes, &|| {
                !shared.signal.is_stopping()
            });
            let synced = match filled {
                Ok(Some(_)) => shared.disk.sync_dir(shared.segments.dir()).map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match synced {
                Ok(true) => shared.signal.add_spare(path),
                Ok(false) => {
                    drop(shared.disk.remove(&path));
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a segment could not be prepared, the next one grows while it is written"
                    );
                    drop(shared.disk.remove(&path));
                    return;
                }
            }
        }
    }
}

/// A name that no spare has: the upper half of the numbers, which segments never reach.
pub(super) fn new_spare_path(keeper: &Keeper<'_>) -> PathBuf {
    let number = fastrand::u64(1 << 63..);
    keeper.shared.segments.spare_path(number)
}
