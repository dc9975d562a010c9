//! Records that are read where they lie in their batch.
//!
//! Owns the views of a run of records whose layout was checked once. Promises: a view copies nothing, allocates
//! nothing and counts no reference; every record of a checked run can be read. Must not know: checksums, which
//! whoever opens a batch has verified before.

use core::iter::FusedIterator;
use core::ops::Range;

use bytes::Bytes;

use super::records::{Parts, skip};
use crate::ids::Offset;
use crate::wire::read_varint_of as read_varint;

/// A run of records of one batch, made by [`Records::take_checked`](super::Records::take_checked). Cloning it copies
/// no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRecords {
    /// Exactly the records, every one of which can be read.
    pub(super) plain: Bytes,
    pub(super) base_offset: Offset,
    pub(super) base_timestamp_ms: i64,
    pub(super) count: u32,
}

impl CheckedRecords {
    /// Their offsets, which are dense.
    pub fn offsets(&self) -> Range<Offset> {
        self.base_offset..self.base_offset.advance(u64::from(self.count))
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that all views lie in.
    pub const fn bytes(&self) -> &Bytes {
        &self.plain
    }

    /// The records, in order.
    #[inline]
    pub fn iter(&self) -> RecordRefs<'_> {
        RecordRefs {
            rest: &self.plain,
            next: self.base_offset,
            base_timestamp_ms: self.base_timestamp_ms,
            left: self.count,
        }
    }
}

impl<'a> IntoIterator for &'a CheckedRecords {
    type Item = RecordRef<'a>;
    type IntoIter = RecordRefs<'a>;

    #[inline]
    fn into_iter(self) -> RecordRefs<'a> {
        self.iter()
    }
}

/// One record where it lies in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// When the event happened, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Named values.
    pub headers: Headers<'a>,
}

/// Iterator over checked records.
#[derive(Debug, Clone)]
pub struct RecordRefs<'a> {
    rest: &'a [u8],
    next: Offset,
    base_timestamp_ms: i64,
    left: u32,
}

impl<'a> Iterator for RecordRefs<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.left == 0 {
            return None;
        }
        // A run was read once before it was made, so this reads it again.
        let parts = Parts::read_again(&mut self.rest).ok()?;
        let offset = self.next;
        self.left -= 1;
        self.next = offset.advance(1);
        Some(RecordRef {
            offset,
            timestamp_ms: self.base_timestamp_ms.saturating_add(parts.delta),
            key: parts.key,
            value: parts.value,
            headers: parts.headers,
        })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for RecordRefs<'_> {}
impl FusedIterator for RecordRefs<'_> {}

/// The headers of a record, where they lie in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: u32,
}

/// A named value attached to a record, where it lies in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// At most 256 bytes of UTF-8. Names may repeat.
    pub name: &'a str,
    /// Any bytes.
    pub value: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|header| header.name == name)
            .map(|header| header.value)
    }

    /// All of them, in order.
    pub const fn iter(&self) -> HeaderRefs<'a> {
        HeaderRefs {
            rest: self.bytes,
            left: self.count,
        }
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = HeaderRef<'a>;
    type IntoIter = HeaderRefs<'a>;

    fn into_iter(self) -> HeaderRefs<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Headers<'a> {
    type Item = HeaderRef<'a>;
    type IntoIter = HeaderRefs<'a>;

    fn into_iter(self) -> HeaderRefs<'a> {
        self.iter()
    }
}

/// Iterator over the headers of a record.
#[derive(Debug, Clone)]
pub struct HeaderRefs<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for HeaderRefs<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<HeaderRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        let from = &mut self.rest;
        let length = read_varint(from, "header name").ok()?;
        let name = skip(from, length, "header name").ok()?;
        let length = read_varint(from, "header value").ok()?;
        Some(HeaderRef {
            name: core::str::from_utf8(name).ok()?,
            value: skip(from, length, "header value").ok()?,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeaderRefs<'_> {}
impl FusedIterator for HeaderRefs<'_> {}
