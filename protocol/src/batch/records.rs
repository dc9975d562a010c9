//! Records inside a batch.
//!
//! ```text
//! varint  timestamp delta, zigzag, from base_timestamp_ms
//! varint  0: no key; n: a key of n-1 bytes, which follow
//! varint  0: no value (tombstone); n: a value of n-1 bytes, which follow
//! varint  number of headers; for each
//!           varint  length of the name, which follows (UTF-8)
//!           varint  length of the value, which follows
//! ```
//! Varints are unsigned LEB128 of at most ten bytes.

use bytes::Bytes;

use super::checked::{CheckedRecords, Headers};
use super::{BatchError, BatchHeader};
use crate::ids::Offset;
use crate::limits;
use crate::record::Header;
use crate::wire::{WireError, expect_end, read_varint_of as read_varint, unzigzag};

/// One record as stored; key, value and header values are slices of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// Its offset in the partition.
    pub offset: Offset,
    /// When the event happened, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Named values.
    pub headers: Vec<Header>,
}

/// Iterator over a batch's records. After an error it ends.
#[derive(Debug, Clone)]
pub struct Records {
    plain: Bytes,
    /// Position in `plain` of the next record.
    at: usize,
    base_offset: Offset,
    base_timestamp_ms: i64,
    next: u32,
    count: u32,
}

impl Records {
    pub(super) fn new(plain: Bytes, header: &BatchHeader) -> Self {
        Self {
            plain,
            at: 0,
            base_offset: header.base_offset,
            base_timestamp_ms: header.base_timestamp_ms,
            next: 0,
            count: header.record_count,
        }
    }

    #[inline]
    fn read(&mut self) -> Result<RecordView, WireError> {
        let plain = &self.plain;
        let mut from = plain.get(self.at..).unwrap_or_default();
        let delta = unzigzag(read_varint(&mut from, "timestamp")?);
        let key = read_optional(&mut from, plain, "key")?;
        let value = read_optional(&mut from, plain, "value")?;
        let headers = read_headers(&mut from, plain)?;
        self.at = plain.len() - from.len();
        Ok(RecordView {
            offset: self.base_offset.advance(u64::from(self.next)),
            timestamp_ms: self.base_timestamp_ms.saturating_add(delta),
            key,
            value,
            headers,
        })
    }

    /// Takes all records from the offset `from` on that can be read, checked once, to be read where they lie. What
    /// is before `from` is passed over. What is left is the end, or the record that cannot be read: `next` says which.
    pub fn take_checked(&mut self, from: Offset) -> CheckedRecords {
        let wanted = from.get().saturating_sub(self.base_offset.get());
        let first = u32::try_from(wanted)
            .unwrap_or(u32::MAX)
            .clamp(self.next, self.count);
        let mut rest = self.plain.get(self.at..).unwrap_or_default();
        let mut begin = rest.len();
        while self.next < self.count {
            if self.next == first {
                begin = rest.len();
            }
            let mut behind = rest;
            if Parts::read(&mut behind).is_err() {
                break;
            }
            rest = behind;
            self.next += 1;
        }
        let whole = self.plain.len();
        self.at = whole - rest.len();
        let count = self.next.saturating_sub(first);
        let begin = if count == 0 { self.at } else { whole - begin };
        CheckedRecords {
            plain: self.plain.slice(begin..self.at),
            base_offset: self.base_offset.advance(u64::from(first)),
            base_timestamp_ms: self.base_timestamp_ms,
            count,
        }
    }

    /// Nothing is left, and the memory of the batch is not held any more.
    fn end(&mut self) {
        self.next = self.count;
        self.at = 0;
        self.plain = Bytes::new();
    }
}

impl Iterator for Records {
    type Item = Result<RecordView, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        if index == self.count {
            let left = expect_end(&self.plain.get(self.at..).unwrap_or_default());
            self.end();
            return left
                .err()
                .map(|source| Err(BatchError::Record { index, source }));
        }
        match self.read() {
            Ok(record) => {
                self.next += 1;
                Some(Ok(record))
            }
            Err(source) => {
                self.end();
                Some(Err(BatchError::Record { index, source }))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (0, Some(left + 1))
    }
}

/// A byte string off the front of `from`, as a slice of `plain`, which `from` is the rest of.
#[inline]
fn take(
    from: &mut &[u8],
    plain: &Bytes,
    length: u64,
    field: &'static str,
) -> Result<Bytes, WireError> {
    let at = plain.len() - from.len();
    let taken = skip(from, length, field)?.len();
    Ok(plain.slice(at..at + taken))
}

#[inline]
fn read_optional(
    from: &mut &[u8],
    plain: &Bytes,
    field: &'static str,
) -> Result<Option<Bytes>, WireError> {
    match read_varint(from, field)? {
        0 => Ok(None),
        length => take(from, plain, length - 1, field).map(Some),
    }
}

fn read_headers(from: &mut &[u8], plain: &Bytes) -> Result<Vec<Header>, WireError> {
    let count = read_varint(from, "header count")?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > limits::RECORD_HEADERS_MAX {
        return Err(WireError::Invalid {
            field: "header count",
        });
    }
    let mut headers = Vec::with_capacity(count.min(from.len() / 2));
    for _ in 0..count {
        let length = read_varint(from, "header name")?;
        if length > limits::HEADER_NAME_BYTES_MAX as u64 {
            return Err(WireError::Invalid {
                field: "header name",
            });
        }
        let name = skip(from, length, "header name")?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| WireError::Invalid {
            field: "header name",
        })?;
        let length = read_varint(from, "header value")?;
        headers.push(Header {
            name,
            value: take(from, plain, length, "header value")?,
        });
    }
    Ok(headers)
}

/// Walks the records of a batch without building any; returns the latest time.
pub(super) fn check(mut plain: &[u8], header: &BatchHeader) -> Result<i64, BatchError> {
    let mut max_timestamp_ms = i64::MIN;
    for index in 0..header.record_count {
        let parts =
            Parts::read(&mut plain).map_err(|source| BatchError::Record { index, source })?;
        let timestamp_ms = header.base_timestamp_ms.saturating_add(parts.delta);
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
    }
    let index = header.record_count;
    expect_end(&plain).map_err(|source| BatchError::Record { index, source })?;
    Ok(max_timestamp_ms)
}

/// What a record is made of, where it lies.
pub(super) struct Parts<'a> {
    pub(super) delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

impl<'a> Parts<'a> {
    /// Takes a record off the front of `from`, all of it checked.
    #[inline]
    pub(super) fn read(from: &mut &'a [u8]) -> Result<Self, WireError> {
        Self::read_with(from, pass_headers::<true>)
    }

    /// The same for a record that was checked before: names are not looked into again.
    #[inline]
    pub(super) fn read_again(from: &mut &'a [u8]) -> Result<Self, WireError> {
        Self::read_with(from, pass_headers::<false>)
    }

    #[inline]
    fn read_with(
        from: &mut &'a [u8],
        pass_headers: impl FnOnce(&mut &'a [u8], u64) -> Result<Headers<'a>, WireError>,
    ) -> Result<Self, WireError> {
        let delta = unzigzag(read_varint(from, "timestamp")?);
        let key = skip_optional(from, "key")?;
        let value = skip_optional(from, "value")?;
        let headers = match read_varint(from, "header count")? {
            0 => Headers {
                bytes: &[],
                count: 0,
            },
            count => pass_headers(from, count)?,
        };
        Ok(Self {
            delta,
            key,
            value,
            headers,
        })
    }
}

#[inline]
fn skip_optional<'a>(
    from: &mut &'a [u8],
    field: &'static str,
) -> Result<Option<&'a [u8]>, WireError> {
    match read_varint(from, field)? {
        0 => Ok(None),
        length => skip(from, length - 1, field).map(Some),
    }
}

/// Passes over headers, looking into their names or not.
fn pass_headers<'a, const LOOKS: bool>(
    from: &mut &'a [u8],
    count: u64,
) -> Result<Headers<'a>, WireError> {
    let invalid = |field| Err(WireError::Invalid { field });
    if count > limits::RECORD_HEADERS_MAX as u64 {
        return invalid("header count");
    }
    let all = *from;
    for _ in 0..count {
        let length = read_varint(from, "header name")?;
        if length > limits::HEADER_NAME_BYTES_MAX as u64 {
            return invalid("header name");
        }
        let name = skip(from, length, "header name")?;
        if LOOKS && core::str::from_utf8(name).is_err() {
            return invalid("header name");
        }
        let length = read_varint(from, "header value")?;
        skip(from, length, "header value")?;
    }
    let bytes = all.len() - from.len();
    Ok(Headers {
        bytes: all.get(..bytes).unwrap_or_default(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
    })
}

#[inline]
pub(super) fn skip<'a>(
    from: &mut &'a [u8],
    length: u64,
    field: &'static str,
) -> Result<&'a [u8], WireError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (skipped, rest) = from
        .split_at_checked(length)
        .ok_or(WireError::Truncated { field })?;
    *from = rest;
    Ok(skipped)
}
