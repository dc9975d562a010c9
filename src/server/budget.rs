//! Reading within a connection's delivery budget.
//!
//! Promises: bytes read for a connection and not yet written are paid for by permits of the budget, up
//! to all of it for a batch that is larger. Memory is paid for in full before it is kept: what a read returns
//! keeps hardly more than its own bytes, or groups that the tail cache counts. Nobody waits for ever:
//!
//! ORDER: a place in the queue of reads, then permits, then a turn. Who has a turn waits for no permits,
//! for those may be held by somebody who waits for a turn.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use falcon_protocol::Offset;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};

use crate::reader::{Chunk, ReadFailure, Reader};
use crate::store::Ahead;
use crate::writer::PartitionView;

/// LIMIT: reads and lookups of one connection at a time, so that others get their turn at the device.
const TURNS_MAX: usize = 2;

/// LIMIT: reads of one connection that wait for permits at a time, so that no other request waits behind
/// all of them.
const READS_MAX: usize = 2;

/// LIMIT: bytes read ahead beyond the budgets, for all connections together.
const SPARE_BYTES: usize = 2 * 1024 * 1024;

/// What all connections together may read ahead beyond their budgets, so that a fast one can have more under
/// way than a slow one may hold.
#[derive(Debug, Clone)]
pub struct Spare(Arc<Semaphore>);

impl Default for Spare {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SPARE_BYTES)))
    }
}

/// A connection's delivery budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    spare: Spare,
    reads: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: u64, spare: Spare) -> Self {
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(u32::MAX as usize);
        Self {
            spare,
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

    /// Pays for what is read ahead: from the spare bytes of all where the budget is used up.
    async fn pay_ahead(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.clamp(1, self.bytes)).unwrap_or(u32::MAX);
        let own = || Arc::clone(&self.permits).try_acquire_many_owned(permits);
        let spare = || Arc::clone(&self.spare.0).try_acquire_many_owned(permits);
        match own().or_else(|_| spare()) {
            Ok(permit) => Some(permit),
            Err(_) => self.pay(bytes).await,
        }
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
        let mut wanted = Wanted {
            offset,
            bytes_max,
            paid: bytes_max,
            is_ahead: false,
            told: None,
        };
        let _place = self.place().await?;
        loop {
            match self.read_once(reader, view, &mut wanted).await? {
                Paid::Read(chunk, permit) => return Ok(Some((chunk, permit))),
                Paid::Nothing => return Ok(None),
                Paid::TooLittle(bytes) => wanted.paid = bytes,
            }
        }
    }

    /// As [`read`](Self::read), but who paid too little hears so: he may have to give up what else he
    /// paid for before he can pay more.
    ///
    /// CANCEL SAFETY: changes nothing.
    pub(super) async fn read_ahead(
        &self,
        reader: &Reader,
        view: &PartitionView,
        mut wanted: Wanted,
    ) -> Result<Paid, ReadFailure> {
        let _place = self.place().await?;
        self.read_once(reader, view, &mut wanted).await
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, ReadFailure> {
        let place = self.reads.acquire().await;
        place.map_err(|_| ReadFailure::Closed)
    }

    async fn read_once(
        &self,
        reader: &Reader,
        view: &PartitionView,
        wanted: &mut Wanted,
    ) -> Result<Paid, ReadFailure> {
        let permit = if wanted.is_ahead {
            self.pay_ahead(wanted.paid).await
        } else {
            self.pay(wanted.paid).await
        };
        let permit = permit.ok_or(ReadFailure::Closed)?;
        let turn = self.turn().await.ok_or(ReadFailure::Closed)?;
        let told = wanted.told.take();
        let read = reader
            .read_telling(view, wanted.offset, wanted.bytes_max, told)
            .await?;
        drop(turn);
        let Some(chunk) = read else {
            return Ok(Paid::Nothing);
        };
        // A batch may be larger than what was asked for: then it is read again when it is paid for.
        if chunk.bytes > permit.num_permits() && permit.num_permits() < self.bytes {
            return Ok(Paid::TooLittle(chunk.bytes));
        }
        Ok(Paid::Read(chunk, permit))
    }
}

/// What is to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) offset: Offset,
    pub(super) bytes_max: usize,
    /// What is paid for it.
    pub(super) paid: usize,
    /// Something else is read already, and sent before it.
    pub(super) is_ahead: bool,
    /// Gets to know where the read ends, as soon as that is sure.
    pub(super) told: Option<oneshot::Sender<Ahead>>,
}

/// What a read came to.
#[derive(Debug)]
pub(super) enum Paid {
    /// It is paid for by the permit.
    Read(Chunk, OwnedSemaphorePermit),
    /// It has so many bytes, more than were paid for.
    TooLittle(usize),
    /// There is nothing at the offset yet.
    Nothing,
}
