//! What large bodies may hold, from their header to their answer.
//!
//! Owns two shares of the bytes of all unanswered publishes: half for connections whose last large body
//! came without delay, a quarter for the others. Promises: peers that begin large bodies and stop keep
//! nothing from those that finish theirs, nor from small publishes, which need no share; a body
//! larger than a share takes all of it. Must not know: frames, batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The shares.
#[derive(Debug)]
pub struct Receiving {
    prompt: Share,
    others: Share,
    /// Bodies that wait for a share.
    waiting: AtomicUsize,
}

impl Receiving {
    /// Shares of `total_bytes`.
    pub fn new(total_bytes: u64) -> Self {
        Self {
            prompt: Share::new(total_bytes / 2),
            others: Share::new(total_bytes / 4),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes bytes of a share, or all of it.
    ///
    /// CANCEL SAFETY: when dropped before it completes, nothing was taken.
    pub(super) async fn take(&self, bytes: usize, is_prompt: bool) -> Option<OwnedSemaphorePermit> {
        let share = if is_prompt {
            &self.prompt
        } else {
            &self.others
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let _waits = Waits::begin(&self.waiting);
        let taken = Arc::clone(&share.permits).acquire_many_owned(bytes.min(share.bytes));
        taken.await.ok()
    }

    /// How many wait.
    pub(super) const fn waiting(&self) -> &AtomicUsize {
        &self.waiting
    }
}

#[derive(Debug)]
struct Share {
    permits: Arc<Semaphore>,
    bytes: u32,
}

impl Share {
    fn new(bytes: u64) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            permits: super::semaphore(u64::from(bytes)),
            bytes,
        }
    }
}

/// Counts one that waits, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
