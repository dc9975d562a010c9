//! Record batches: the unit written, checksummed, stored and fetched.
//!
//! The bytes a publisher sends are the bytes in the journal and the bytes a subscriber receives;
//! the broker fills in the stamp and nothing else.
//!
//! ```text
//! offset  size
//!      0     8  base_offset        stamp: offset of the first record
//!      8     8  append_time_ms     stamp: broker's clock, never falls within a partition
//!     16     4  epoch              stamp: the writer's epoch
//!     20     4  stamp_crc          stamp: CRC-32 of topic id, partition, base_offset,
//!                                  append_time_ms, epoch, body_crc (32 bytes)
//!     24     4  body_crc           CRC-32 of bytes 28..batch_bytes
//!     28     4  batch_bytes        length of the whole batch, this header included
//!     32     1  format             0: native (1 is reserved for Kafka's batch v2)
//!     33     1  codec              0: none, 1: lz4 block, 2: zstd frame
//!     34     2  reserved           zero
//!     36     4  record_count       1..=131072
//!     40     8  producer_id        0: not idempotent
//!     48     4  producer_epoch
//!     52     4  uncompressed_bytes length of the records when not compressed
//!     56     8  base_sequence      sequence of the first record; the others follow densely
//!     64     8  base_timestamp_ms  time that the records' deltas count from
//!     72     8  max_timestamp_ms   latest time in the batch
//!     80     -  records            as the codec left them
//! ```
//! All integers little-endian; CRC-32 is the one of IEEE 802.3 (zlib, gzip). The stamp's checksum
//! binds the batch to its partition and offset, so that a batch served from the wrong place is
//! never mistaken for the right one.

mod build;
mod checked;
mod codec;
mod records;
#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use build::{BatchBuilder, PushError};
pub use checked::{CheckedRecords, HeaderRef, HeaderRefs, Headers, RecordRef, RecordRefs};
pub use codec::Codec;
pub use records::{RecordView, Records};

use crate::ids::{Offset, PartitionId, ProducerId};
use crate::limits;
use crate::wire::WireError;

/// Bytes of a batch before its records.
pub const BATCH_HEADER_BYTES: usize = 80;
/// Bytes at the front that the broker fills in, outside the body checksum.
pub const STAMP_BYTES: usize = 24;
const BODY_CRC_FROM: usize = 28;
const FORMAT_NATIVE: u8 = 0;

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch has {have} of {need} bytes")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Larger than allowed.
    #[error("the batch has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Announced length.
        bytes: u32,
        /// Allowed length.
        max: u32,
    },
    /// The body does not match its checksum.
    #[error("the batch's checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// From the bytes.
        computed: u32,
        /// In the header.
        stored: u32,
    },
    /// The stamp does not match its checksum, or belongs to another partition.
    #[error("the batch's stamp is damaged or belongs to another partition")]
    Stamp,
    /// A format this version does not know.
    #[error("batch format {0} is not supported")]
    Format(u8),
    /// A codec this version does not know.
    #[error("compression codec {0} is not supported")]
    Codec(u8),
    /// The records could not be decompressed to the size announced.
    #[error("the records do not decompress to the {uncompressed_bytes} bytes announced")]
    Decompress {
        /// Announced size.
        uncompressed_bytes: u32,
    },
    /// A header field has a value that is not allowed.
    #[error("the batch's {field} is not allowed")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The records do not have the layout of records.
    #[error("record {index} of the batch: {source}")]
    Record {
        /// Position in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        source: WireError,
    },
}

/// Who published a batch, for idempotence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Producer {
    /// Allocated by the broker; [`ProducerId::NONE`] without idempotence.
    pub id: ProducerId,
    /// Outdates older publishers of the same id.
    pub epoch: u32,
    /// Sequence of the first record, dense per (producer id, epoch, partition), from 0.
    pub base_sequence: u64,
}

/// What the broker fills in when it appends a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Where the batch lives.
    pub partition: PartitionId,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Broker's clock, milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// The writer's epoch.
    pub epoch: u32,
}

/// The 80 bytes in front of the records, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 until stamped.
    pub base_offset: Offset,
    /// Broker's clock at the append, milliseconds since the Unix epoch; 0 until stamped.
    pub append_time_ms: i64,
    /// The writer's epoch; 0 until stamped.
    pub epoch: u32,
    /// Checksum of the stamp.
    pub stamp_crc: u32,
    /// Checksum of everything after it.
    pub body_crc: u32,
    /// Length of the whole batch.
    pub batch_bytes: u32,
    /// How the records are compressed.
    pub codec: Codec,
    /// How many records.
    pub record_count: u32,
    /// Who published it.
    pub producer: Producer,
    /// Length of the records when not compressed.
    pub uncompressed_bytes: u32,
    /// Time that the records' deltas count from, milliseconds since the Unix epoch.
    pub base_timestamp_ms: i64,
    /// Latest time in the batch, milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
}

impl BatchHeader {
    /// Reads and checks the header at the front of `bytes`; the records need not be there yet.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: BATCH_HEADER_BYTES,
            });
        }
        let from = &mut bytes;
        let base_offset = Offset(from.get_u64_le());
        let append_time_ms = from.get_i64_le();
        let epoch = from.get_u32_le();
        let stamp_crc = from.get_u32_le();
        let body_crc = from.get_u32_le();
        let batch_bytes = from.get_u32_le();
        let format = from.get_u8();
        let codec = from.get_u8();
        let reserved = from.get_u16_le();
        let record_count = from.get_u32_le();
        let producer_id = ProducerId(from.get_u64_le());
        let producer_epoch = from.get_u32_le();
        let uncompressed_bytes = from.get_u32_le();
        let base_sequence = from.get_u64_le();
        let base_timestamp_ms = from.get_i64_le();
        let max_timestamp_ms = from.get_i64_le();
        if format != FORMAT_NATIVE {
            return Err(BatchError::Format(format));
        }
        let codec = Codec::from_number(codec).ok_or(BatchError::Codec(codec))?;
        let header = Self {
            base_offset,
            append_time_ms,
            epoch,
            stamp_crc,
            body_crc,
            batch_bytes,
            codec,
            record_count,
            producer: Producer {
                id: producer_id,
                epoch: producer_epoch,
                base_sequence,
            },
            uncompressed_bytes,
            base_timestamp_ms,
            max_timestamp_ms,
        };
        header.check(reserved)?;
        Ok(header)
    }

    fn check(&self, reserved: u16) -> Result<(), BatchError> {
        let field = |field| Err(BatchError::Field { field });
        if reserved != 0 {
            return field("reserved field");
        }
        if self.record_count == 0 || self.record_count > limits::BATCH_RECORDS_MAX {
            return field("record count");
        }
        if self.uncompressed_bytes > limits::UNCOMPRESSED_BYTES_MAX {
            return field("uncompressed size");
        }
        if self.batch_bytes > limits::BATCH_BYTES_MAX {
            let (bytes, max) = (self.batch_bytes, limits::BATCH_BYTES_MAX);
            return Err(BatchError::TooLarge { bytes, max });
        }
        let Some(records_bytes) = (self.batch_bytes as usize).checked_sub(BATCH_HEADER_BYTES)
        else {
            return field("length");
        };
        if self.codec == Codec::None && records_bytes != self.uncompressed_bytes as usize {
            return field("uncompressed size");
        }
        Ok(())
    }

    /// Offset after the last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.record_count))
    }

    /// Checksum that a stamp of `partition` with this header's values must have.
    fn expected_stamp_crc(&self, partition: PartitionId) -> u32 {
        let stamp = Stamp {
            partition,
            base_offset: self.base_offset,
            append_time_ms: self.append_time_ms,
            epoch: self.epoch,
        };
        stamp.crc(self.body_crc)
    }

    /// Checks that the stamp is whole and was made for `partition`.
    pub fn verify_stamp(&self, partition: PartitionId) -> Result<(), BatchError> {
        if self.stamp_crc == self.expected_stamp_crc(partition) {
            Ok(())
        } else {
            Err(BatchError::Stamp)
        }
    }
}

impl Stamp {
    fn crc(&self, body_crc: u32) -> u32 {
        let mut bytes = [0_u8; 32];
        let mut to = bytes.as_mut_slice();
        to.put_u32_le(self.partition.topic.0);
        to.put_u32_le(self.partition.partition.0);
        to.put_u64_le(self.base_offset.0);
        to.put_i64_le(self.append_time_ms);
        to.put_u32_le(self.epoch);
        to.put_u32_le(body_crc);
        crc32fast::hash(&bytes)
    }

    /// Writes the stamp into the front of a whole batch.
    pub fn write(&self, batch: &mut [u8]) -> Result<(), BatchError> {
        let have = batch.len();
        let truncated = BatchError::Truncated {
            have,
            need: BATCH_HEADER_BYTES,
        };
        let mut crc_field = batch.get(STAMP_BYTES..BODY_CRC_FROM).ok_or(truncated)?;
        let body_crc = crc_field.get_u32_le();
        let mut to = batch;
        to.put_u64_le(self.base_offset.0);
        to.put_i64_le(self.append_time_ms);
        to.put_u32_le(self.epoch);
        to.put_u32_le(self.crc(body_crc));
        Ok(())
    }
}

/// A whole batch: a checked header and the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes the batch at the front of `bytes`, leaving what follows it.
    ///
    /// Checks the header and the lengths, not the checksums: see [`verify`](Self::verify).
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::decode(bytes)?;
        let need = header.batch_bytes as usize;
        if bytes.len() < need {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need,
            });
        }
        Ok(Self {
            header,
            bytes: bytes.split_to(need),
        })
    }

    /// Takes `bytes` as exactly one batch.
    pub fn from_bytes(mut bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::split_from(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(BatchError::Field { field: "length" });
        }
        Ok(batch)
    }

    /// Checks the body's checksum.
    pub fn verify(&self) -> Result<(), BatchError> {
        let body = self.bytes.get(BODY_CRC_FROM..).unwrap_or_default();
        let computed = crc32fast::hash(body);
        let stored = self.header.body_crc;
        if computed == stored {
            Ok(())
        } else {
            Err(BatchError::Checksum { computed, stored })
        }
    }

    /// Checks body and stamp: the batch is whole and belongs to `partition`.
    pub fn verify_in(&self, partition: PartitionId) -> Result<(), BatchError> {
        self.verify()?;
        self.header.verify_stamp(partition)
    }

    /// Walks all records without building them: decompresses to at most the announced size and
    /// checks layout, count and latest time. What a broker does before it lets a batch in.
    pub fn check_records(&self) -> Result<(), BatchError> {
        self.check_records_in(&mut Vec::new())
    }

    /// Like [`check_records`](Self::check_records), with memory to decompress into that can be used again:
    /// it grows to at most [`UNCOMPRESSED_BYTES_MAX`](limits::UNCOMPRESSED_BYTES_MAX).
    pub fn check_records_in(&self, plain: &mut Vec<u8>) -> Result<(), BatchError> {
        let stored = self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let size = self.header.uncompressed_bytes;
        let plain = self.header.codec.decompress_into(stored, size, plain)?;
        let max_timestamp_ms = records::check(plain, &self.header)?;
        if max_timestamp_ms != self.header.max_timestamp_ms {
            return Err(BatchError::Field {
                field: "latest time",
            });
        }
        Ok(())
    }

    /// The header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records, in order; decompresses once when the batch is compressed.
    pub fn records(&self) -> Result<Records, BatchError> {
        Ok(Records::new(self.plain_records()?, &self.header))
    }

    fn plain_records(&self) -> Result<Bytes, BatchError> {
        let stored = self.bytes.slice(BATCH_HEADER_BYTES..);
        self.header
            .codec
            .decompress(stored, self.header.uncompressed_bytes)
    }

    /// The same batch with a stamp, in a buffer of its own.
    pub fn stamped(&self, stamp: &Stamp) -> Result<Self, BatchError> {
        let mut bytes = BytesMut::from(self.bytes.as_ref());
        stamp.write(&mut bytes)?;
        Self::from_bytes(bytes.freeze())
    }
}
