//! One read path: tail cache, then the device.
//!
//! Owns reading for fetches, subscriptions and lookups by time. Promises: nothing at or beyond the
//! high watermark is read; what is returned was checked by the store; blocking work is done on the
//! blocking pool. Must not know: connections, frames, error numbers.

mod position;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{BatchHeader, Offset, PartitionId};
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

use crate::store::{Ahead, Damage, Extent, Lookup, ReadError, Store};
use crate::writer::PartitionView;

/// LIMIT: reads of the device at a time, of all connections; each may hold a batch that is not paid for yet.
const READS_MAX: usize = 16;

/// Batches read from one partition.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Batches back to back, as stored; the first contains the offset asked for.
    pub batches: Vec<Bytes>,
    /// Bytes of them.
    pub bytes: usize,
    /// Records from the offset asked for.
    pub records: u64,
    /// The offset to ask for next.
    pub next: Offset,
}

/// Why nothing was read.
#[derive(Debug, Clone, Error)]
pub enum ReadFailure {
    /// The offset is not in the partition.
    #[error("offset {offset} is not in {low}..={high}, what the partition has")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// First offset kept.
        low: Offset,
        /// High watermark.
        high: Offset,
    },
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
    /// The records are damaged.
    #[error("offsets {} to {} are damaged", .0.range.start, .0.range.end)]
    Damaged(Damage),
    /// The device or the index failed.
    #[error("the broker could not read its journal: {0}")]
    Store(Arc<ReadError>),
    /// The reading thread did not come back: the runtime is shutting down.
    #[error("the broker is shutting down")]
    Closed,
}

/// Reads what is durable.
#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn Store>,
    places: Arc<Semaphore>,
}

impl Reader {
    /// A reader of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let places = Arc::new(Semaphore::new(READS_MAX));
        Self { store, places }
    }

    /// Reads about `bytes_max` bytes of whole batches from the one that contains `offset`, at
    /// least one; `None` when `offset` is the high watermark.
    ///
    /// CANCEL SAFETY: changes nothing; a read that has begun ends on its own.
    pub async fn read(
        &self,
        view: &PartitionView,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<Option<Chunk>, ReadFailure> {
        self.read_telling(view, offset, bytes_max, None).await
    }

    /// As [`read`](Self::read). Where the store reads from the device and is sure where that is going to
    /// end, `told` gets to know while it reads.
    ///
    /// CANCEL SAFETY: changes nothing; a read that has begun ends on its own.
    pub async fn read_telling(
        &self,
        view: &PartitionView,
        offset: Offset,
        bytes_max: usize,
        told: Option<oneshot::Sender<Ahead>>,
    ) -> Result<Option<Chunk>, ReadFailure> {
        let end = check_range(view, offset)?;
        if offset == end {
            return Ok(None);
        }
        let batches = match self.store.lookup(view.id, offset, end, bytes_max) {
            Lookup::Cached(batches) => batches,
            Lookup::Device => {
                let id = view.id;
                let mut told = told;
                let mut tell = move |ahead| {
                    // Who does not wait for it any more needs no answer.
                    told.take().and_then(|told| told.send(ahead).err());
                };
                let read = self.blocking(move |store| {
                    store.read_telling(id, offset..end, bytes_max, &mut tell)
                });
                read.await?
                    .map_err(|failure| explain(view, offset, failure))?
            }
        };
        Ok(Some(Chunk::new(batches, offset)))
    }

    /// What there is from `offset` to the high watermark, when that is in memory and has at most `bytes_max` bytes. Never
    /// blocks.
    pub fn tail(&self, view: &PartitionView, offset: Offset, bytes_max: usize) -> Option<Chunk> {
        let end = check_range(view, offset).ok()?;
        if offset == end {
            return None;
        }
        match self.store.lookup(view.id, offset, end, bytes_max) {
            Lookup::Cached(batches) => {
                let bytes: usize = batches.iter().map(Bytes::len).sum();
                let chunk = (bytes <= bytes_max).then(|| Chunk::new(batches, offset))?;
                (chunk.next == end).then_some(chunk)
            }
            Lookup::Device => None,
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Result<T, ReadFailure> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| ReadFailure::Closed)?;
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(store.as_ref());
            // ORDER: after the work, which goes on when nobody waits for it any more.
            drop(place);
            done
        });
        done.await.map_err(|_| ReadFailure::Closed)
    }

    /// All records that cannot be read.
    pub fn damage(&self) -> Vec<Damage> {
        self.store.damage()
    }

    /// About when the records at these offsets were appended, Unix milliseconds: the time of the extent
    /// that has them; `None` where there is none or it cannot be read.
    ///
    /// CANCEL SAFETY: changes nothing.
    pub async fn append_times(
        &self,
        places: Vec<(PartitionId, Offset)>,
    ) -> Result<Vec<Option<i64>>, ReadFailure> {
        self.blocking(move |store| {
            let times = places.into_iter().map(|(partition, offset)| {
                let mut time = None;
                let first = &mut |extent: Extent| {
                    time = Some(extent.append_time_ms);
                    ControlFlow::Break(())
                };
                store.extents(partition, offset, first).ok()?;
                time
            });
            times.collect()
        })
        .await
    }

    /// Records that cannot be read.
    pub fn damage_of(&self, partition: PartitionId) -> Vec<Damage> {
        let mut damage = self.store.damage();
        damage.retain(|d| d.partition == partition);
        damage
    }
}

impl Chunk {
    fn new(batches: Vec<Bytes>, offset: Offset) -> Self {
        let bytes = batches.iter().map(Bytes::len).sum();
        let headers = batches.iter().flat_map(headers);
        let next = headers
            .map(|header| header.end_offset())
            .last()
            .unwrap_or(offset);
        Self {
            batches,
            bytes,
            records: next.since(offset),
            next,
        }
    }
}

/// Headers of batches that lie back to back.
fn headers(run: &Bytes) -> impl Iterator<Item = BatchHeader> + '_ {
    let mut rest: &[u8] = run;
    core::iter::from_fn(move || {
        let header = BatchHeader::decode(rest).ok()?;
        rest = rest.get(header.batch_bytes as usize..).unwrap_or_default();
        Some(header)
    })
}

/// The high watermark, if `offset` is at or below it and not trimmed.
fn check_range(view: &PartitionView, offset: Offset) -> Result<Offset, ReadFailure> {
    if view.is_deleted() {
        return Err(ReadFailure::Deleted);
    }
    let (low, high) = (view.log_start(), view.high_watermark());
    if offset < low || offset > high {
        return Err(ReadFailure::OutOfRange { offset, low, high });
    }
    Ok(high)
}

fn explain(view: &PartitionView, offset: Offset, failure: ReadError) -> ReadFailure {
    match failure {
        ReadError::Damaged(damage) => ReadFailure::Damaged(damage),
        // Trimmed or deleted while it was read: then the range says so.
        failure @ (ReadError::Missing { .. } | ReadError::Io(_) | ReadError::Index(_)) => {
            match check_range(view, offset) {
                Err(gone) => gone,
                Ok(_) => ReadFailure::Store(Arc::new(failure)),
            }
        }
    }
}
