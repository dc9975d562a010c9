//! Checking batches before they are let in.
//!
//! Owns the places for costly checks and the memory they decompress into. Promises: so many checks at a
//! time as there are places, each in memory that is used again: memory that is freed by many threads
//! does not return to the system. Must not know: connections.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use falcon_protocol::{Batch, BatchError, Codec, ErrorCode};
use tokio::sync::Semaphore;

use super::refusal::Refusal;

/// LIMIT: compressed batches that are checked at the same time.
const CHECKS_MAX: usize = 2;
/// A compressed batch larger than this when plain is checked on the blocking pool.
const INLINE_CHECK_BYTES_MAX: u32 = 64 * 1024;

/// Places for costly checks.
#[derive(Debug)]
pub struct Checks {
    places: Semaphore,
    plains: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            places: Semaphore::new(CHECKS_MAX),
            plains: Arc::default(),
        }
    }
}

impl Checks {
    /// Verifies checksum and records, so that no subscriber ever meets a batch it cannot read.
    pub(super) async fn check(&self, body: Bytes) -> Result<Batch, Refusal> {
        let batch = Batch::from_bytes(body)?;
        batch.verify()?;
        let header = batch.header();
        let is_costly =
            header.codec != Codec::None && header.uncompressed_bytes > INLINE_CHECK_BYTES_MAX;
        if !is_costly {
            batch.check_records()?;
            return Ok(batch);
        }
        // LIMIT: each check may need the memory of one batch when plain.
        let _place = self.places.acquire().await;
        let plains = Arc::clone(&self.plains);
        let checked = tokio::task::spawn_blocking(move || -> Result<Batch, BatchError> {
            let lock = || plains.lock().unwrap_or_else(PoisonError::into_inner);
            let mut plain = lock().pop().unwrap_or_default();
            let checked = batch.check_records_in(&mut plain);
            let mut kept = lock();
            // A connection that ends leaves its place before its check is done.
            if kept.len() < CHECKS_MAX {
                kept.push(plain);
            }
            drop(kept);
            checked.map(|()| batch)
        });
        match checked.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Refusal::of(ErrorCode::Draining).retry_later()),
        }
    }
}
