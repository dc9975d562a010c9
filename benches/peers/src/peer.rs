//! What a peer must do to be measured.
//!
//! Owns the words shared by all: a stream has partitions, a writer is one connection into one partition, a
//! reader starts at the first record. Promises: whatever `publish` and `bulk` answer was acknowledged by the
//! server, as the settings of that server mean it. Must not know: what is measured.

use std::future::Future;

use anyhow::Result;
use bytes::Bytes;

use crate::record::Feed;

/// What is called for each record read; `false` ends the reading.
pub(crate) trait Each: FnMut(&[u8]) -> bool + Send + 'static {}
impl<F: FnMut(&[u8]) -> bool + Send + 'static> Each for F {}

/// A running server, seen through its client.
pub(crate) trait Peer: Clone + Send + Sync + 'static {
    /// Publishes.
    type Writer: Writer;
    /// Reads.
    type Reader: Reader;

    /// Makes a stream.
    fn create(&self, stream: &str, partitions: u32) -> impl Future<Output = Result<()>> + Send;
    /// Deletes it.
    fn delete(&self, stream: &str, partitions: u32) -> impl Future<Output = Result<()>> + Send;
    /// A connection of its own.
    fn writer(
        &self,
        stream: &str,
        partition: u32,
    ) -> impl Future<Output = Result<Self::Writer>> + Send;
    /// A connection of its own, reading when this returns.
    fn reader(
        &self,
        stream: &str,
        partition: u32,
    ) -> impl Future<Output = Result<Self::Reader>> + Send;
    /// How many records the server has.
    fn count(&self, stream: &str, partition: u32) -> impl Future<Output = Result<u64>> + Send;
}

/// One connection into one partition; clones share it.
pub(crate) trait Writer: Clone + Send + Sync + 'static {
    /// One record; returns when it is acknowledged. Handed over when first polled.
    fn publish(&self, value: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// All of them, the way that this client is fastest; returns when all are acknowledged.
    fn bulk(&self, feed: Feed) -> impl Future<Output = Result<u64>> + Send;
}

/// One connection out of one partition.
pub(crate) trait Reader: Send + 'static {
    /// Reads until `each` has enough.
    fn read(self, each: impl Each) -> impl Future<Output = Result<()>> + Send;
}
