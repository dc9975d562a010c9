//! Reading within a connection's delivery budget.
//!
//! Promises: bytes read for a connection and not yet written are paid for by permits of the budget, up
//! to all of it for a batch that is larger. Memory is paid for in full before it is kept. Nobody waits
//! for ever:
//!
//! ORDER: a place in the queue of reads, then permits, then a turn. Who has a turn waits for no permits,
//! for those may be held by somebody who waits for a turn.

use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::Offset;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::reader::{Chunk, ReadFailure, Reader};
use crate::writer::PartitionView;

/// A slice this small is copied: it may keep a whole commit group in memory otherwise.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// LIMIT: reads and lookups of one connection at a time, so that others get their turn at the device.
const TURNS_MAX: usize = 2;

/// LIMIT: reads of one connection that wait for permits at a time, so that no other request waits behind
/// all of them.
const READS_MAX: usize = 2;

/// A connection's delivery budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    reads: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(u32::MAX as usize);
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            permits: Arc::new(Semaphore::new(bytes)),
            turns: Arc::new(Semaphore::new(TURNS_MAX)),
            bytes,
        }
    }

    /// All of it.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pays for `bytes`, or for all there is when that is less. `None`: the connection has ended.
    pub(super) async fn pay(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.clamp(1, self.bytes)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits)
            .acquire_many_owned(permits)
            .await
            .ok()
    }

    /// A turn at looking something up; hold it until then, and wait for no permits with it. `None`: the
    /// connection has ended.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Reads whole batches of about `bytes_max` bytes, paid for. `None`: there is nothing at the
    /// offset yet.
    ///
    /// CANCEL SAFETY: changes nothing.
    pub(super) async fn read(
        &self,
        reader: &Reader,
        view: &PartitionView,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<Option<(Chunk, OwnedSemaphorePermit)>, ReadFailure> {
        let _place = self
            .reads
            .acquire()
            .await
            .map_err(|_| ReadFailure::Closed)?;
        let mut wanted = bytes_max;
        loop {
            let permit = self.pay(wanted).await.ok_or(ReadFailure::Closed)?;
            let turn = self.turn().await.ok_or(ReadFailure::Closed)?;
            let read = reader.read(view, offset, bytes_max).await?;
            drop(turn);
            let Some(mut chunk) = read else {
                return Ok(None);
            };
            // A batch may be larger than what was asked for: then pay for it and read it again.
            if chunk.bytes <= permit.num_permits() || permit.num_permits() == self.bytes {
                for slice in &mut chunk.batches {
                    if slice.len() <= COPY_BYTES_MAX {
                        *slice = Bytes::copy_from_slice(slice);
                    }
                }
                return Ok(Some((chunk, permit)));
            }
            wanted = chunk.bytes;
        }
    }
}
