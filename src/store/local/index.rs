//! Where batches live: derived from the journal, disposable.
//!
//! Owns the extents of recent segments in memory and those of older ones in sled. Promises: an
//! extent that was inserted is found by every offset in it until it is removed, in memory or in sled,
//! also while it moves from one to the other
//! or is copied to another segment. Must not know: how the journal is laid out.

mod memory;
mod open;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use falcon_protocol::{Offset, PartitionId};

use crate::store::Extent;
pub(super) use memory::MemoryIndex;
pub(super) use open::{Opened, discard, open};
pub(super) use tree::TreeIndex;
#[cfg(test)]
pub(super) use tree::{decode_base, decode_place, encode_place, key};

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

/// Both halves of the index. When it is dropped, sled is closed, unless that would panic.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) memory: RwLock<MemoryIndex>,
    /// `None`: sled cannot be used; everything stays in memory.
    tree: Option<TreeIndex>,
    /// Sled failed, and memory has all that it had.
    is_abandoned: AtomicBool,
    /// A lookup in sled failed.
    is_suspect: AtomicBool,
    /// Told when sled was abandoned.
    abandoned: (Mutex<()>, Condvar),
    /// Counts removals, each before it happens.
    removals: AtomicU64,
}

impl Index {
    pub(super) fn new(memory: MemoryIndex, tree: Option<TreeIndex>) -> Self {
        Self {
            memory: RwLock::new(memory),
            tree,
            is_abandoned: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            abandoned: (Mutex::new(()), Condvar::new()),
            removals: AtomicU64::new(0),
        }
    }

    /// Sled, as long as it is of use.
    pub(super) fn tree(&self) -> Option<&TreeIndex> {
        let is_abandoned = self.is_abandoned.load(Ordering::Acquire);
        self.tree.as_ref().filter(|_| !is_abandoned)
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

    /// Forgets sled. ORDER: after memory has the extents of every segment that is in it.
    pub(super) fn abandon_tree(&self) {
        self.is_abandoned.store(true, Ordering::Release);
        self.is_suspect.store(false, Ordering::Release);
        let (mutex, told) = &self.abandoned;
        let _held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        told.notify_all();
    }

    /// Blocks until memory has what sled had, for so long at most; answers whether it does.
    pub(super) fn wait_for_memory(&self, longest: Duration) -> bool {
        let (mutex, told) = &self.abandoned;
        let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let is_awaited = |(): &mut ()| !self.is_abandoned.load(Ordering::Acquire);
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
        loop {
            let removals = self.removals.load(Ordering::SeqCst);
            let found = self.look(partition, from)?;
            let contains = found.is_some_and(|place| place.contains(from));
            // While this looked in one half, a copy may have appeared there and the original may
            // have gone from the other.
            if contains || removals == self.removals.load(Ordering::SeqCst) {
                return Ok(found);
            }
        }
    }

    fn look(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Place>, Arc<sled::Error>> {
        // ORDER: memory first. A segment leaves memory after it is in sled, so looking in this
        // order cannot miss an extent that moves meanwhile.
        let recent = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .first_from(partition, from);
        if let Some(place) = recent.filter(|place| place.contains(from)) {
            return Ok(Some(place));
        }
        let older = self.on_tree(|tree| tree.first_from(partition, from))?;
        Ok(match (recent, older) {
            (Some(recent), Some(older)) => {
                let is_older = older.extent.base_offset < recent.extent.base_offset;
                Some(if is_older { older } else { recent })
            }
            (recent, older) => recent.or(older),
        })
    }

    /// Base offset of an extent before which none has a record time of `timestamp_ms` or later.
    pub(super) fn time_floor(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, Arc<sled::Error>> {
        let in_memory = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .time_floor(partition, timestamp_ms);
        let in_tree = self.on_tree(|tree| tree.time_floor(partition, timestamp_ms))?;
        Ok(match (in_memory, in_tree) {
            (Some(memory), Some(tree)) => Some(memory.min(tree)),
            (memory, tree) => memory.or(tree),
        })
    }
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
