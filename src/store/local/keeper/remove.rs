//! Removing a file in pieces.
//!
//! Owns the file that is being removed: `docs/adr/0018-removing-in-pieces.md`. Promises: while somebody commits, a
//! sync waits for no more freed space than a piece of it; what is left when the broker is killed is removed, or is
//! a spare, at the next start. Must not know: what was in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Keeper;
use crate::clock::Instant;
use crate::io::{Disk, DiskFile, IoError};

/// A file without meaning that gets shorter.
#[derive(Debug)]
pub(super) struct Removal {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    /// No piece is cut off before.
    due: Instant,
}

impl Removal {
    /// Cuts up to so many bytes off, down to a multiple of them; answers whether nothing is left.
    fn cut(&mut self, bytes: u64, disk: &dyn Disk) -> Result<bool, IoError> {
        let bytes = bytes.max(1);
        self.bytes = self.bytes.saturating_sub(1) / bytes * bytes;
        if self.bytes == 0 {
            disk.remove(&self.path)?;
            return Ok(true);
        }
        self.file.set_len(self.bytes)?;
        // Else the file system gathers what was freed, and tells the device of all of it at once.
        self.file.sync_data()?;
        Ok(false)
    }
}

impl Keeper<'_> {
    /// Removes a file without meaning: in pieces, unless another one is being removed so.
    pub(super) fn remove(&mut self, path: PathBuf, file: Arc<dyn DiskFile>, bytes: u64) {
        let due = Instant::now();
        let removal = Removal {
            path,
            file,
            bytes,
            due,
        };
        if self.removal.is_some() {
            self.end_removal(&removal);
        } else {
            self.removal = Some(removal);
        }
    }

    /// How long to wait before the next piece of a file is removed, if one is being removed.
    pub(super) fn until_next_cut(&self) -> Option<Duration> {
        let removal = self.removal.as_ref()?;
        Some(removal.due.since(Instant::now()))
    }

    /// Cuts a piece off the file that is being removed, once it is due.
    pub(super) fn remove_on(&mut self) {
        let Some(mut removal) = self.removal.take() else {
            return;
        };
        if self.shared.is_space_short() {
            self.end_removal(&removal);
            return;
        }
        let begun = Instant::now();
        if begun < removal.due {
            self.removal = Some(removal);
            return;
        }
        let shared = self.shared;
        match removal.cut(shared.config.removal_bytes, shared.disk.as_ref()) {
            Ok(true) => {}
            Ok(false) => {
                let now = Instant::now();
                removal.due = now.after(self.pace.pause_after(now.since(begun), now));
                self.removal = Some(removal);
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a file could not be removed in pieces"
                );
                self.end_removal(&removal);
            }
        }
    }

    /// Removes what is left, before the keeper ends.
    pub(super) fn remove_rest(&mut self) {
        if let Some(removal) = self.removal.take() {
            self.end_removal(&removal);
        }
    }

    fn end_removal(&self, removal: &Removal) {
        if let Err(error) = self.shared.disk.remove(&removal.path) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a dead segment could not be removed, the next start tries again"
            );
        }
    }
}
