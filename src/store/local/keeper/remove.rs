//! Removing a file in pieces.
//!
//! Owns the files that are being removed: `docs/adr/0018-removing-in-pieces.md`. Promises: while somebody commits, a
//! sync waits for no more of their space than a piece of it; what is left when the broker is killed is removed, or
//! is a spare, at the next start. Must not know: what was in them.

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
    /// Removes a file without meaning, in pieces, once those before it are gone.
    pub(super) fn remove(&mut self, path: PathBuf, file: Arc<dyn DiskFile>, bytes: u64) {
        self.removals.push_back(Removal { path, file, bytes });
    }

    /// How long to wait before the next piece of a file is removed, if one is being removed.
    pub(super) fn until_next_cut(&self) -> Option<Duration> {
        self.removals.front()?;
        Some(self.cut_due.since(Instant::now()))
    }

    /// Cuts a piece off the file that is being removed, once it is due.
    pub(super) fn remove_on(&mut self) {
        if self.removals.is_empty() {
            return;
        }
        if self.shared.is_space_short() {
            self.remove_rest();
            return;
        }
        let begun = Instant::now();
        if begun < self.cut_due {
            return;
        }
        let Some(mut removal) = self.removals.pop_front() else {
            return;
        };
        let shared = self.shared;
        match removal.cut(shared.config.removal_bytes, shared.disk.as_ref()) {
            Ok(true) => {}
            Ok(false) => self.removals.push_front(removal),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a file could not be removed in pieces"
                );
                self.end_removal(&removal);
            }
        }
        let now = Instant::now();
        self.cut_due = now.after(self.pace.pause_after(now.since(begun), now));
    }

    /// Removes at once what is left of all of them.
    pub(super) fn remove_rest(&mut self) {
        for removal in std::mem::take(&mut self.removals) {
            self.end_removal(&removal);
        }
    }

    fn end_removal(&self, removal: &Removal) {
        let disk = &self.shared.disk;
        let removed = disk.remove(&removal.path);
        let removed = removed.and_then(|()| disk.sync_dir(self.shared.segments.dir()));
        if let Err(error) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a dead segment could not be removed, the next start tries again"
            );
        }
    }
}
