//! Where batches live: derived from the journal, disposable.
//!
//! Owns the extents of recent segments in memory, and in sled which page of which footer lists those of older ones.
//! What sled does not have yet, since it is opened and filled beside a running broker, is searched in the footers.
//! Promises: an extent that was inserted is found by every offset in it until it is removed, also while it moves from
//! one place to the other or is copied to another segment. Must not know: how the journal is laid out.

mod footers;
mod memory;
mod open;
mod pages;
mod tree;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use falcon_protocol::{Offset, PartitionId};

use self::footers::Footers;
use super::config::IndexReport;
use super::segments::Segments;
use crate::io::IoError;
use crate::store::Extent;
pub(super) use memory::MemoryIndex;
pub(super) use open::{Opened, discard, open};
pub(super) use pages::{Page, Paging};
pub(super) use tree::TreeIndex;
#[cfg(test)]
pub(super) use tree::{decode_base, decode_page, key};

/// An extent and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// Of the first batch, in the file.
    pub(super) position: u64,
    pub(super) extent: Extent,
    /// Copied forward from an older segment. Known only of segments that were scanned or written
    /// since the start.
    pub(super) is_copy: bool,
}

impl Place {
    pub(super) fn contains(&self, offset: Offset) -> bool {
        self.extent.base_offset <= offset && offset < self.extent.end_offset()
    }
}

/// The parts of the index. When it is dropped, sled is closed, unless that would panic.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) memory: RwLock<MemoryIndex>,
    footers: Footers,
    tree: OnceLock<TreeIndex>,
    /// What became of sled; not set while it is being opened.
    report: OnceLock<IndexReport>,
    /// Sled failed, and what it had is looked up elsewhere.
    is_abandoned: AtomicBool,
    /// A lookup in sled failed.
    is_suspect: AtomicBool,
    /// Told when sled was abandoned, or a footer mended.
    mended: (Mutex<()>, Condvar),
    /// Counts removals, each before it happens.
    removals: AtomicU64,
}

impl Index {
    /// An index without sled so far.
    pub(super) fn new(memory: MemoryIndex, segments: Arc<Segments>) -> Self {
        let footers = Footers::new(segments);
        footers.recount();
        Self {
            memory: RwLock::new(memory),
            footers,
            tree: OnceLock::new(),
            report: OnceLock::new(),
            is_abandoned: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            mended: (Mutex::new(()), Condvar::new()),
            removals: AtomicU64::new(0),
        }
    }

    /// Takes sled, if it can be used. Once only.
    pub(super) fn set_tree(&self, tree: Option<TreeIndex>) {
        if let Some(tree) = tree {
            drop(self.tree.set(tree));
        }
    }

    /// Says what became of sled. ORDER: after segments whose extents it has say so.
    pub(super) fn decide(&self, report: IndexReport) {
        self.recount_footers();
        drop(self.report.set(report));
    }

    /// What became of sled; `None` while it is being opened.
    pub(super) fn report(&self) -> Option<&IndexReport> {
        self.report.get()
    }

    /// Sled, as long as it is of use.
    pub(super) fn tree(&self) -> Option<&TreeIndex> {
        let is_abandoned = self.is_abandoned.load(Ordering::Acquire);
        self.tree.get().filter(|_| !is_abandoned)
    }

    /// Notes that segments are looked up by their footers from now on, or are not any more.
    pub(super) fn recount_footers(&self) {
        self.footers.recount();
    }

    /// Whether a lookup in sled failed.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Acquire)
    }

    /// As a lookup that failed.
    #[cfg(test)]
    pub(super) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Release);
    }

    /// Forgets what was read of footers.
    #[cfg(test)]
    pub(super) fn forget_pages(&self) {
        self.footers.forget_pages();
    }

    /// Forgets sled. ORDER: after every segment that is in it is looked up elsewhere.
    pub(super) fn abandon_tree(&self) {
        // Who looked at footers before they had what sled had, and finds no sled now, looks again.
        self.note_removal();
        self.is_abandoned.store(true, Ordering::Release);
        self.is_suspect.store(false, Ordering::Release);
        self.tell_mended();
    }

    fn tell_mended(&self) {
        let (mutex, told) = &self.mended;
        let _held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        told.notify_all();
    }

    /// Segments whose footers a lookup could not use.
    pub(super) fn doubted(&self) -> BTreeSet<u64> {
        self.footers.doubted()
    }

    /// The footer of a segment can be used again, or what it said is in memory.
    pub(super) fn trust(&self, segment: u64) {
        self.footers.trust(segment);
        self.tell_mended();
    }

    /// Blocks until what lookups failed at is mended, for so long at most; answers whether it is.
    pub(super) fn wait_until_mended(&self, longest: Duration) -> bool {
        let (mutex, told) = &self.mended;
        let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let is_awaited = |(): &mut ()| self.is_suspect() || self.footers.is_doubted();
        let waited = told.wait_timeout_while(held, longest, is_awaited);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Looks something up in sled, which may panic.
    fn on_tree<T: Default>(
        &self,
        look: impl FnOnce(&TreeIndex) -> Result<T, Arc<sled::Error>>,
    ) -> Result<T, Arc<sled::Error>> {
        let Some(tree) = self.tree() else {
            return Ok(T::default());
        };
        let found = catch_unwind(AssertUnwindSafe(|| look(tree)));
        let found = found.unwrap_or_else(|_| {
            let panicked = "it panicked".to_owned();
            Err(Arc::new(sled::Error::Unsupported(panicked)))
        });
        if found.is_err() {
            self.is_suspect.store(true, Ordering::Release);
        }
        found
    }

    /// ORDER: before extents are removed from sled. Where they live, they are elsewhere by now.
    pub(super) fn note_removal(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
    }

    /// Forgets the extents of a segment that are in sled by now, or are not needed any more.
    pub(super) fn remove_from_memory(&self, segment: u64) {
        self.note_removal();
        let memory = self.memory.write();
        memory
            .unwrap_or_else(PoisonError::into_inner)
            .remove(segment);
    }

    /// The extent that contains `from`, in memory. Never blocks on a device.
    pub(super) fn find_in_memory(&self, partition: PartitionId, from: Offset) -> Option<Place> {
        self.memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .first_from(partition, from)
            .filter(|place| place.contains(from))
    }

    /// The extent that contains `from`, else the first one after it.
    pub(super) fn first_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Place>, Arc<sled::Error>> {
        self.while_removed(
            || self.look(partition, from),
            |found| found.is_some_and(|place| place.contains(from)),
        )
    }

    /// Looks again where segments were removed meanwhile, unless what was found is sure.
    fn while_removed<T>(
        &self,
        look: impl Fn() -> Result<T, Arc<sled::Error>>,
        is_sure: impl Fn(&T) -> bool,
    ) -> Result<T, Arc<sled::Error>> {
        loop {
            let removals = self.removals.load(Ordering::SeqCst);
            let found = look();
            // While this looked in one part, a copy may have appeared there and the original may
            // have gone from another, or with its footer.
            if found.as_ref().is_ok_and(&is_sure)
                || removals == self.removals.load(Ordering::SeqCst)
            {
                return found;
            }
        }
    }

    fn look(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Place>, Arc<sled::Error>> {
        // ORDER: memory, footers, sled. A segment leaves memory after its footer or sled has it, and is looked
        // up by its footer until sled has it, so looking in this order cannot miss an extent that moves
        // meanwhile. When sled is given up its segments go back to their footers, which `is_abandoned` tells.
        let recent = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .first_from(partition, from);
        if let Some(place) = recent.filter(|place| place.contains(from)) {
            return Ok(Some(place));
        }
        let sealed = self.footers.first_from(partition, from).map_err(refused);
        if let Ok(Some(place)) = &sealed
            && place.contains(from)
        {
            return Ok(Some(*place));
        }
        let older = self.look_in_tree(partition, from)?;
        if let Some(place) = older.filter(|place| place.contains(from)) {
            return Ok(Some(place));
        }
        let sealed = sealed?;
        let found = [older, sealed, recent].into_iter().flatten();
        Ok(found.min_by_key(|place| place.extent.base_offset))
    }

    /// As [`look`](Self::look), by the pages that sled knows.
    fn look_in_tree(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Place>, Arc<sled::Error>> {
        let mut at = from;
        while let Some(page) = self.on_tree(|tree| tree.first_from(partition, at))? {
            match self.footers.in_page((partition, &page), at) {
                Ok(Some(place)) => return Ok(Some(place)),
                // The segment is no more, or is looked up elsewhere.
                Ok(None) => at = page.end.max(Offset(at.0.saturating_add(1))),
                Err(error) => {
                    self.footers.doubt(page.segment);
                    return Err(refused(error));
                }
            }
        }
        Ok(None)
    }

    /// The end of the extents that follow `place` without a gap, as far as one look shows.
    pub(super) fn dense_end(&self, partition: PartitionId, place: &Place) -> Offset {
        let end = self.footers.dense_end(partition, place);
        end.unwrap_or(place.extent.end_offset())
    }

    /// An offset before which no extent has a record time of `timestamp_ms` or later; `None` when none has at all.
    pub(super) fn time_floor(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, Arc<sled::Error>> {
        self.while_removed(
            || {
                let in_memory = self
                    .memory
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .time_floor(partition, timestamp_ms);
                let in_footers = self.footers.time_floor(partition, timestamp_ms);
                let in_footers = in_footers.map_err(refused)?;
                let in_tree = self.on_tree(|tree| tree.time_floor(partition, timestamp_ms))?;
                Ok([in_memory, in_footers, in_tree].into_iter().flatten().min())
            },
            |_| false,
        )
    }
}

/// A footer that was whole and is refused by the device, or damaged, now.
fn refused(error: IoError) -> Arc<sled::Error> {
    Arc::new(sled::Error::Io(error.source))
}

impl Drop for Index {
    fn drop(&mut self) {
        let Some(tree) = self.tree.take() else {
            return;
        };
        if tree.can_sync() {
            drop(tree);
        } else {
            // sled panics when its last sync fails. Its threads and its file lock stay until the
            // process ends; what it holds is built again.
            tracing::warn!("the index was not closed, because it cannot be synced");
            std::mem::forget(tree);
        }
    }
}

#[cfg(test)]
mod tests;
