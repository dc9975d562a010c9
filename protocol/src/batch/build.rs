//! Building a batch record by record.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{BATCH_HEADER_BYTES, BODY_CRC_FROM, Codec, FORMAT_NATIVE, Producer};
use crate::limits;
use crate::record::Record;
use crate::wire::{varint_bytes, write_varint, zigzag};

/// Of the processors we know of: a wrong size costs speed alone.
const CACHE_LINE_BYTES: usize = 64;
/// Into every level of the cache.
const NEAREST: i32 = 3;

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    /// It does not fit beside those already there: build, then push it into the next batch.
    #[error("the batch is full")]
    Full,
    /// It would not fit into an empty batch either.
    #[error("the record needs {bytes} bytes in a batch, at most {max} are allowed")]
    RecordTooLarge {
        /// Bytes of a batch with this record alone.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// More headers than allowed.
    #[error("the record has {count} headers, at most {max} are allowed")]
    TooManyHeaders {
        /// Given.
        count: usize,
        /// Allowed.
        max: usize,
    },
    /// A header name is longer than allowed.
    #[error("a header name has {bytes} bytes, at most {max} are allowed")]
    HeaderNameTooLong {
        /// Given.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
}

/// Collects records and lays them out as a batch.
///
/// ```
/// use falcon_protocol::{BatchBuilder, Batch, Codec, Producer, Record};
/// let mut builder = BatchBuilder::new(Codec::Lz4, 1 << 20);
/// builder.push(&Record::new("hello").key("a"), 1_700_000_000_000)?;
/// let batch = Batch::from_bytes(builder.build(Producer::default()).expect("not empty"))?;
/// batch.verify()?;
/// assert_eq!(batch.header().record_count, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    codec: Codec,
    bytes_max: usize,
    /// Room for the header, then the records.
    buffer: BytesMut,
    record_count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    /// A builder of batches of at most `bytes_max` bytes, header included, before compression.
    pub fn new(codec: Codec, bytes_max: usize) -> Self {
        Self::with_buffer(codec, bytes_max, BytesMut::new())
    }

    /// Like [`new`](Self::new), with memory to build in: what was in it is dropped.
    pub fn with_buffer(codec: Codec, bytes_max: usize, mut buffer: BytesMut) -> Self {
        buffer.clear();
        let ceiling =
            (limits::UNCOMPRESSED_BYTES_MAX as usize).min(limits::BATCH_BYTES_MAX as usize);
        Self {
            codec,
            bytes_max: bytes_max.min(ceiling),
            buffer,
            record_count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// Adds a record; one without a time of its own gets `now_ms` (Unix milliseconds).
    pub fn push(&mut self, record: &Record, now_ms: i64) -> Result<(), PushError> {
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        check_headers(record)?;
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        // A record whose distance from the first does not fit into 64 bits starts a new batch.
        let Some(delta) = timestamp_ms.checked_sub(self.base_timestamp_ms) else {
            return Err(PushError::Full);
        };
        let bytes = record_bytes(record, delta);
        if BATCH_HEADER_BYTES + bytes > self.bytes_max {
            let (bytes, max) = (BATCH_HEADER_BYTES + bytes, self.bytes_max);
            return Err(PushError::RecordTooLarge { bytes, max });
        }
        let full = self.len_bytes() + bytes > self.bytes_max
            || self.record_count == limits::BATCH_RECORDS_MAX;
        if full {
            return Err(PushError::Full);
        }
        self.append(record, delta, bytes);
        self.record_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        Ok(())
    }

    /// Lays the record out behind the others; it takes `bytes`.
    fn append(&mut self, record: &Record, delta: i64, bytes: usize) {
        let to = &mut self.buffer;
        if to.is_empty() {
            to.reserve(BATCH_HEADER_BYTES + bytes);
            to.put_bytes(0, BATCH_HEADER_BYTES);
        }
        to.reserve(bytes);
        write_varint(to, zigzag(delta));
        put_field(to, record.key.as_deref());
        put_field(to, record.value.as_deref());
        write_varint(to, record.headers.len() as u64);
        for header in &record.headers {
            write_varint(to, header.name.len() as u64);
            to.put_slice(header.name.as_bytes());
            write_varint(to, header.value.len() as u64);
            to.put_slice(&header.value);
        }
        self.prefetch_next();
    }

    /// Asks for the memory of the next record early: who builds a thousand batches in turns comes back to each of
    /// them after so many others that it is in no near cache, and would wait for it there.
    #[inline]
    fn prefetch_next(&mut self) {
        let spare = self.buffer.spare_capacity_mut();
        // The line that was written last is near already.
        for ahead in [CACHE_LINE_BYTES, 2 * CACHE_LINE_BYTES] {
            if let Some(next) = spare.get(ahead) {
                mem_prefetch::prefetch_write_data::<_, NEAREST>(next);
            }
        }
    }

    /// Records so far.
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether nothing was pushed yet.
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch so far, before compression.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len().max(BATCH_HEADER_BYTES)
    }

    /// The buffer, to be used again; what is in it is lost.
    pub fn into_buffer(self) -> BytesMut {
        self.buffer
    }

    /// The batch, not stamped; `None` when it has no record. The builder is empty afterwards.
    pub fn build(&mut self, producer: Producer) -> Option<Bytes> {
        if self.record_count == 0 {
            return None;
        }
        let plain = core::mem::take(&mut self.buffer);
        let records = plain.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let uncompressed_bytes = records.len();
        let (codec, mut batch) = match self.codec.compress(records) {
            None => (Codec::None, plain),
            Some(packed) => {
                let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES + packed.len());
                batch.put_bytes(0, BATCH_HEADER_BYTES);
                batch.put_slice(&packed);
                (self.codec, batch)
            }
        };
        self.fill_header(&mut batch, codec, uncompressed_bytes, producer);
        self.record_count = 0;
        self.max_timestamp_ms = i64::MIN;
        Some(batch.freeze())
    }

    fn fill_header(
        &self,
        batch: &mut BytesMut,
        codec: Codec,
        uncompressed_bytes: usize,
        producer: Producer,
    ) {
        let batch_bytes = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if let Some(mut to) = batch.get_mut(BODY_CRC_FROM..BATCH_HEADER_BYTES) {
            to.put_u32_le(batch_bytes);
            to.put_u8(FORMAT_NATIVE);
            to.put_u8(codec.number());
            to.put_u16_le(0);
            to.put_u32_le(self.record_count);
            to.put_u64_le(producer.id.0);
            to.put_u32_le(producer.epoch);
            to.put_u32_le(u32::try_from(uncompressed_bytes).unwrap_or(u32::MAX));
            to.put_u64_le(producer.base_sequence);
            to.put_i64_le(self.base_timestamp_ms);
            to.put_i64_le(self.max_timestamp_ms);
        }
        let crc = crc32fast::hash(batch.get(BODY_CRC_FROM..).unwrap_or_default());
        if let Some(mut to) = batch.get_mut(super::STAMP_BYTES..BODY_CRC_FROM) {
            to.put_u32_le(crc);
        }
    }
}

/// A byte string that may be missing, with its length in front.
#[inline]
fn put_field(to: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => to.put_u8(0),
        Some(field) => {
            write_varint(to, field.len() as u64 + 1);
            to.put_slice(field);
        }
    }
}

fn check_headers(record: &Record) -> Result<(), PushError> {
    let (count, max) = (record.headers.len(), limits::RECORD_HEADERS_MAX);
    if count > max {
        return Err(PushError::TooManyHeaders { count, max });
    }
    let max = limits::HEADER_NAME_BYTES_MAX;
    match record
        .headers
        .iter()
        .map(|h| h.name.len())
        .find(|bytes| *bytes > max)
    {
        Some(bytes) => Err(PushError::HeaderNameTooLong { bytes, max }),
        None => Ok(()),
    }
}

fn record_bytes(record: &Record, delta: i64) -> usize {
    let optional = |bytes: Option<&Bytes>| {
        bytes.map_or(1, |bytes| {
            varint_bytes(bytes.len() as u64 + 1) + bytes.len()
        })
    };
    let counted = |length: usize| varint_bytes(length as u64) + length;
    let headers: usize = record
        .headers
        .iter()
        .map(|h| counted(h.name.len()) + counted(h.value.len()))
        .sum();
    varint_bytes(zigzag(delta))
        + optional(record.key.as_ref())
        + optional(record.value.as_ref())
        + varint_bytes(record.headers.len() as u64)
        + headers
}
