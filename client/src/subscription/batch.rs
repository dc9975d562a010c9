//! Records handed out a batch at a time, read where they lie.
//!
//! Owns the views of a batch. Promises: a batch is verified and all its records can be read before anybody has it; a
//! view costs no reference count and no copy; a record that is to outlive the batch's handling can be kept for one
//! reference. Must not know: positions and credit.

use core::iter::FusedIterator;
use core::ops::Range;
use std::sync::Arc;

use falcon_protocol::batch::{CheckedRecords, Headers, RecordRef as View, RecordRefs};
use falcon_protocol::record::Header;
use falcon_protocol::{Offset, Partition};

use super::Delivered;

/// Records of one partition that follow each other, as [`Subscription::next_batch`](super::Subscription::next_batch)
/// hands them out: at least one.
///
/// Owned: it can be kept, sent to other tasks and handled there. Its records are read in place; cloning it copies
/// none. What is kept of it, a record or the whole, keeps the memory of what arrived with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    pub(super) topic: Arc<str>,
    pub(super) partition: Partition,
    pub(super) append_time_ms: i64,
    pub(super) records: CheckedRecords,
}

impl RecordBatch {
    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Its partition.
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// When all of it was appended, by the broker's clock, milliseconds since the Unix epoch.
    pub const fn append_time_ms(&self) -> i64 {
        self.append_time_ms
    }

    /// The offsets of its records: all of this range.
    pub fn offsets(&self) -> Range<Offset> {
        self.records.offsets()
    }

    /// The offset to commit once all of its records are done: the next one.
    pub fn next_offset(&self) -> Offset {
        self.offsets().end
    }

    /// How many records it has.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Its records, in order.
    #[inline]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            batch: self,
            views: self.records.iter(),
        }
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = RecordRef<'a>;
    type IntoIter = RecordIter<'a>;

    #[inline]
    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Iterator over the records of a [`RecordBatch`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    batch: &'a RecordBatch,
    views: RecordRefs<'a>,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        let view = self.views.next()?;
        let batch = self.batch;
        Some(RecordRef { batch, view })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.views.size_hint()
    }
}

impl ExactSizeIterator for RecordIter<'_> {}
impl FusedIterator for RecordIter<'_> {}

/// A record where it lies in its [`RecordBatch`].
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    batch: &'a RecordBatch,
    view: View<'a>,
}

impl<'a> RecordRef<'a> {
    /// Its offset in the partition.
    #[inline]
    pub const fn offset(&self) -> Offset {
        self.view.offset
    }

    /// The offset to commit once this record is done: the next one.
    #[inline]
    pub const fn next_offset(&self) -> Offset {
        self.view.offset.advance(1)
    }

    /// When the event happened, by its publisher, milliseconds since the Unix epoch.
    #[inline]
    pub const fn timestamp_ms(&self) -> i64 {
        self.view.timestamp_ms
    }

    /// The key, if it has one.
    #[inline]
    pub const fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// The payload; `None` is a tombstone.
    #[inline]
    pub const fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// Named values beside the payload.
    #[inline]
    pub const fn headers(&self) -> Headers<'a> {
        self.view.headers
    }

    /// The same record, owned: to keep it, or to handle it elsewhere. Copies names of headers, and no bytes else: key,
    /// value and values of headers share the memory of the batch.
    pub fn to_delivered(&self) -> Delivered {
        let plain = self.batch.records.bytes();
        let shared = |bytes: &[u8]| plain.slice_ref(bytes);
        let headers = self.view.headers.iter();
        Delivered {
            topic: Arc::clone(&self.batch.topic),
            partition: self.batch.partition,
            offset: self.view.offset,
            timestamp_ms: self.view.timestamp_ms,
            append_time_ms: self.batch.append_time_ms,
            key: self.view.key.map(shared),
            value: self.view.value.map(shared),
            headers: headers
                .map(|header| Header {
                    name: header.name.to_owned(),
                    value: shared(header.value),
                })
                .collect(),
            grant: None,
        }
    }
}
