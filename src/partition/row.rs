//! Rows of the tables `Partitions` and `Producers`.
//!
//! ```text
//! Partitions  key  u32 topic id, u32 partition (big-endian)
//!             value  u8 version 1, u64 log_start, u64 log_end, u64 bytes, i64 append_time_ms
//! Producers   key  u32 topic id, u32 partition, u64 producer id (big-endian)
//!             value  u8 version 1, u32 epoch, u8 count, then per batch, oldest first:
//!                    u64 base_sequence, u32 record_count, u64 base_offset, i64 append_time_ms
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use falcon_protocol::wire::{WireError, expect_end, read_i64, read_u8, read_u32, read_u64};
use falcon_protocol::{Offset, PartitionId, ProducerId};

use super::{BatchMark, PRODUCER_BATCHES_KEPT, PartitionState, ProducerState};

const VERSION: u8 = 1;

impl PartitionState {
    /// Key of a partition's row.
    pub fn row_key(id: PartitionId) -> Bytes {
        let mut key = BytesMut::with_capacity(8);
        put_partition(&mut key, id);
        key.freeze()
    }

    /// Reads the key of a partition's row.
    pub fn decode_key(mut key: &[u8]) -> Result<PartitionId, WireError> {
        let id = read_partition(&mut key)?;
        expect_end(&key)?;
        Ok(id)
    }

    /// Value of a partition's row.
    pub fn encode_value(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(33);
        to.put_u8(VERSION);
        to.put_u64_le(self.log_start.0);
        to.put_u64_le(self.log_end.0);
        to.put_u64_le(self.bytes);
        to.put_i64_le(self.append_time_ms);
        to.freeze()
    }

    /// Takes over bounds from a row's value; publishers stay.
    pub fn restore(&mut self, mut value: &[u8]) -> Result<(), WireError> {
        let from = &mut value;
        read_version(from)?;
        let log_start = Offset(read_u64(from, "log_start")?);
        let log_end = Offset(read_u64(from, "log_end")?);
        let bytes = read_u64(from, "bytes")?;
        let append_time_ms = read_i64(from, "append_time_ms")?;
        expect_end(from)?;
        (self.log_start, self.log_end) = (log_start, log_end);
        (self.bytes, self.append_time_ms) = (bytes, append_time_ms);
        Ok(())
    }
}

impl ProducerState {
    /// Key of a publisher's row.
    pub fn row_key(id: PartitionId, producer: ProducerId) -> Bytes {
        let mut key = BytesMut::with_capacity(16);
        put_partition(&mut key, id);
        key.put_u64(producer.0);
        key.freeze()
    }

    /// Reads the key of a publisher's row.
    pub fn decode_key(mut key: &[u8]) -> Result<(PartitionId, ProducerId), WireError> {
        let from = &mut key;
        let id = read_partition(from)?;
        let producer = ProducerId(read_u64(from, "producer id")?.swap_bytes());
        expect_end(from)?;
        Ok((id, producer))
    }

    /// Value of a publisher's row.
    pub fn encode_value(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u8(VERSION);
        to.put_u32_le(self.epoch);
        to.put_u8(u8::try_from(self.batches.len()).unwrap_or(u8::MAX));
        for mark in &self.batches {
            to.put_u64_le(mark.base_sequence);
            to.put_u32_le(mark.record_count);
            to.put_u64_le(mark.base_offset.0);
            to.put_i64_le(mark.append_time_ms);
        }
        to.freeze()
    }

    /// Reads the value of a publisher's row.
    pub fn decode_value(mut value: &[u8]) -> Result<Self, WireError> {
        let from = &mut value;
        read_version(from)?;
        let mut state = Self {
            epoch: read_u32(from, "epoch")?,
            ..Self::default()
        };
        let count = usize::from(read_u8(from, "count")?);
        if count > PRODUCER_BATCHES_KEPT {
            return Err(WireError::Invalid { field: "count" });
        }
        for _ in 0..count {
            state.batches.push_back(BatchMark {
                base_sequence: read_u64(from, "base_sequence")?,
                record_count: read_u32(from, "record_count")?,
                base_offset: Offset(read_u64(from, "base_offset")?),
                append_time_ms: read_i64(from, "append_time_ms")?,
            });
        }
        expect_end(from)?;
        Ok(state)
    }
}

fn put_partition(to: &mut BytesMut, id: PartitionId) {
    to.put_u32(id.topic.0);
    to.put_u32(id.partition.0);
}

fn read_partition(from: &mut &[u8]) -> Result<PartitionId, WireError> {
    let topic = read_u32(from, "topic id")?.swap_bytes();
    let partition = read_u32(from, "partition")?.swap_bytes();
    Ok(PartitionId::new(topic, partition))
}

fn read_version(from: &mut &[u8]) -> Result<(), WireError> {
    match read_u8(from, "version")? {
        VERSION => Ok(()),
        _ => Err(WireError::Invalid { field: "version" }),
    }
}
