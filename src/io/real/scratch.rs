//! Memory that the device fills quickly, for reads past the page cache.
//!
//! Owns one huge page for the whole process, in places for a read each: a device fills memory that lies together
//! faster (docs/adr/0017-memory-for-reading.md). Promises that a place is somebody's alone while he has it. Must not
//! know: files.

use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapMut};

use crate::io::{BLOCK_BYTES, skip_to_phase};

/// Of the usual kind. Where they are of another size, or there are none, this is memory as any other.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// For the largest usual read, and the blocks that it begins and ends in.
pub(super) const PLACE_BYTES: usize = 640 << 10;

type Memory = &'static mut [u8];

/// LIMIT: reads that have a place at a time. Others read into memory of their own.
static FREE: LazyLock<Mutex<Vec<Memory>>> = LazyLock::new(|| Mutex::new(places()));

fn free() -> MutexGuard<'static, Vec<Memory>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None where the system has no memory.
fn places() -> Vec<Memory> {
    let Ok(memory) = MmapMut::map_anon(2 * HUGE_PAGE_BYTES) else {
        return Vec::new();
    };
    // Only a wish.
    let _is_refused = memory.advise(Advice::HugePage).is_err();
    let memory = Box::leak(Box::new(memory));
    // What lies before and behind is never touched, and costs nothing.
    let skip = memory.as_ptr().addr().wrapping_neg() % HUGE_PAGE_BYTES;
    let page = memory.get_mut(skip..skip + HUGE_PAGE_BYTES);
    let places = page.unwrap_or_default().chunks_exact_mut(PLACE_BYTES);
    debug_assert!(PLACE_BYTES.is_multiple_of(BLOCK_BYTES));
    places
        .filter(|place| skip_to_phase(place.as_ptr(), 0) == 0)
        .collect()
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(Memory);

/// A free place.
pub(super) fn take() -> Option<Scratch> {
    free().pop().map(Scratch)
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        free().push(core::mem::take(&mut self.0));
    }
}
