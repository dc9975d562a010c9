//! Refusing commits before the device is full.

use std::time::{Duration, Instant};

use super::Shared;
use crate::store::CommitError;

const CHECK_EVERY: Duration = Duration::from_millis(100);
const CHECK_BYTES: u64 = 4 << 20;

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

    /// Refuses a group while too little is free. Rows alone may use most of the reserve: they trim
    /// logs and delete topics, which is how space comes back.
    pub(super) fn admit(&mut self, shared: &Shared, has_batches: bool) -> Result<(), CommitError> {
        let floor = shared.config.free_floor_bytes;
        let floor_bytes = if has_batches { floor } else { floor / 4 };
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
