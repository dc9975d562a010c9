//! The data path, laid out by hand.
//!
//! ```text
//! Publish request          Publish answer             Fetch request
//!  u32  topic id            u64  base_offset           u32  topic id
//!  u32  partition           i64  append_time_ms        u32  partition
//!  u32  timeout_ms          u32  record_count          u64  offset
//!   -   one record batch    u32  1: duplicate, else 0  u32  bytes_max
//!                                                      u32  wait_ms
//! Deliver, Fetch answer    Credit                     Window
//!  u32  partition           u64  bytes_total           u64  publish_window_bytes
//!  u32  reserved, zero      u64  records_total
//!  u64  log_start
//!  u64  high_watermark
//!   -   record batches
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{Offset, Partition, PartitionId};
use crate::wire::{WireError, expect_end, read_i64, read_u32, read_u64};

/// Bytes of a publish request before its batch.
pub const PUBLISH_HEADER_BYTES: usize = 12;
/// Bytes of a delivery before its batches.
pub const DELIVER_HEADER_BYTES: usize = 24;

/// The front of a publish request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHeader {
    /// Where the batch shall go.
    pub partition: PartitionId,
    /// How long the broker may keep it waiting for room in its queue, milliseconds; 0: the
    /// broker's own limit.
    pub timeout_ms: u32,
}

impl PublishHeader {
    /// Appends the twelve bytes.
    pub fn encode(&self, to: &mut impl BufMut) {
        to.put_u32_le(self.partition.topic.0);
        to.put_u32_le(self.partition.partition.0);
        to.put_u32_le(self.timeout_ms);
    }

    /// Reads the twelve bytes.
    pub fn decode(from: &mut impl Buf) -> Result<Self, WireError> {
        let topic = read_u32(from, "topic id")?;
        let partition = read_u32(from, "partition")?;
        let timeout_ms = read_u32(from, "timeout_ms")?;
        Ok(Self {
            partition: PartitionId::new(topic, partition),
            timeout_ms,
        })
    }
}

/// The batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishAck {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Broker's clock at the append, milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// Records in it.
    pub record_count: u32,
    /// Whether it had been published before; the offsets are those of then.
    pub is_duplicate: bool,
}

impl PublishAck {
    /// Its length.
    pub const BYTES: usize = 24;

    /// Appends the 24 bytes.
    pub fn encode(&self, to: &mut impl BufMut) {
        to.put_u64_le(self.base_offset.0);
        to.put_i64_le(self.append_time_ms);
        to.put_u32_le(self.record_count);
        to.put_u32_le(u32::from(self.is_duplicate));
    }

    /// Reads the 24 bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        let ack = Self {
            base_offset: Offset(read_u64(from, "base_offset")?),
            append_time_ms: read_i64(from, "append_time_ms")?,
            record_count: read_u32(from, "record_count")?,
            is_duplicate: match read_u32(from, "duplicate")? {
                0 => false,
                1 => true,
                _ => return Err(WireError::Invalid { field: "duplicate" }),
            },
        };
        expect_end(from)?;
        Ok(ack)
    }
}

/// Reads once from one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Where to read.
    pub partition: PartitionId,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes of batches wanted; at least one batch comes if there is one.
    pub bytes_max: u32,
    /// How long to wait for a record to appear, milliseconds.
    pub wait_ms: u32,
}

impl Fetch {
    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(24);
        to.put_u32_le(self.partition.topic.0);
        to.put_u32_le(self.partition.partition.0);
        to.put_u64_le(self.offset.0);
        to.put_u32_le(self.bytes_max);
        to.put_u32_le(self.wait_ms);
        to.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        let topic = read_u32(from, "topic id")?;
        let partition = read_u32(from, "partition")?;
        let fetch = Self {
            partition: PartitionId::new(topic, partition),
            offset: Offset(read_u64(from, "offset")?),
            bytes_max: read_u32(from, "bytes_max")?,
            wait_ms: read_u32(from, "wait_ms")?,
        };
        expect_end(from)?;
        Ok(fetch)
    }
}

/// Record batches of one partition, whole and as stored. The first may begin before the offset
/// asked for; the reader skips those records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: Partition,
    /// First offset still kept.
    pub log_start: Offset,
    /// First offset not yet durable: the end of what can be read.
    pub high_watermark: Offset,
    /// Batches back to back; split them with [`Batch::split_from`](crate::Batch::split_from).
    pub batches: Bytes,
}

impl Delivery {
    /// Appends the 24 bytes in front of the batches.
    pub fn encode_header(&self, to: &mut impl BufMut) {
        to.put_u32_le(self.partition.0);
        to.put_u32_le(0);
        to.put_u64_le(self.log_start.0);
        to.put_u64_le(self.high_watermark.0);
    }

    /// Reads a delivery; the batches are a slice of `body`.
    pub fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let from = &mut body;
        let partition = Partition(read_u32(from, "partition")?);
        if read_u32(from, "reserved")? != 0 {
            return Err(WireError::Invalid { field: "reserved" });
        }
        let log_start = Offset(read_u64(from, "log_start")?);
        let high_watermark = Offset(read_u64(from, "high_watermark")?);
        Ok(Self {
            partition,
            log_start,
            high_watermark,
            batches: body,
        })
    }
}

/// How much a subscription may have been sent since it was opened. Absolute, so that a lost or
/// repeated grant does no harm; a smaller value than before is ignored.
///
/// The broker sends while what it has sent is below both totals, so it may exceed them by one
/// delivery, and a batch is never split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Bytes of batches, headers of batches included.
    pub bytes_total: u64,
    /// Records.
    pub records_total: u64,
}

impl Credit {
    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(16);
        to.put_u64_le(self.bytes_total);
        to.put_u64_le(self.records_total);
        to.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        let bytes_total = read_u64(from, "bytes_total")?;
        let records_total = read_u64(from, "records_total")?;
        expect_end(from)?;
        Ok(Self {
            bytes_total,
            records_total,
        })
    }
}

/// The publish window in force from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bytes of publish bodies that may be unanswered at any time.
    pub publish_window_bytes: u64,
}

impl Window {
    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.publish_window_bytes.to_le_bytes())
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        let publish_window_bytes = read_u64(from, "publish_window_bytes")?;
        expect_end(from)?;
        Ok(Self {
            publish_window_bytes,
        })
    }
}
