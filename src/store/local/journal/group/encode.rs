//! Laying out a commit group in one contiguous buffer.

use bytes::{BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use falcon_protocol::{BatchError, Offset, PartitionId};

use super::{
    EXTENT_HEADER, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupKind, MAGIC, ROW_HEADER, place_of,
};
use crate::io::{BLOCK_BYTES, skip_to_phase};
use crate::store::local::journal::padded;
use crate::store::local::journal::state::StoreState;
use crate::store::{CommitError, Extent, Row, StampedBatch};

/// Smaller groups are copied once more on their way to the device, which costs less than the memory.
const PHASED_BYTES: usize = 64 << 10;

/// Where a group goes and what it may rely on.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::local) struct Placement {
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) nonce: u32,
    pub(in crate::store::local) seq: u64,
    /// Where in the file the group begins.
    pub(in crate::store::local) position: u64,
}

/// A group that lacks only what is known when it is written.
#[derive(Debug)]
pub(in crate::store::local) struct Encoded {
    buffer: BytesMut,
    /// Of what follows the header.
    body: Hasher,
    pub(in crate::store::local) extents: Vec<EncodedExtent>,
}

impl Encoded {
    /// Bytes of the group.
    pub(in crate::store::local) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The group, ready to be written: every group below `synced_seq` is durable.
    pub(in crate::store::local) fn seal(mut self, synced_seq: u64) -> (Bytes, Vec<EncodedExtent>) {
        if let Some(mut field) = self.buffer.get_mut(GROUP_HEADER_BYTES - 8..) {
            field.put_u64_le(synced_seq);
        }
        let mut hasher = Hasher::new();
        hasher.update(self.buffer.get(8..GROUP_HEADER_BYTES).unwrap_or_default());
        hasher.combine(&self.body);
        if let Some(mut head) = self.buffer.get_mut(..8) {
            head.put_u32_le(MAGIC);
            head.put_u32_le(hasher.finalize());
        }
        (self.buffer.freeze(), self.extents)
    }
}

/// An extent in an encoded group.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::local) struct EncodedExtent {
    pub(in crate::store::local) partition: PartitionId,
    /// Position in the group.
    pub(in crate::store::local) at: u64,
    pub(in crate::store::local) extent: Extent,
    pub(in crate::store::local) is_copy: bool,
}

/// An extent of an older segment, to be appended again as it is.
#[derive(Debug)]
pub(in crate::store::local) struct ExtentCopy {
    pub(in crate::store::local) partition: PartitionId,
    pub(in crate::store::local) extent: Extent,
    /// Its batches, stamped.
    pub(in crate::store::local) batches: Vec<Bytes>,
}

/// What goes into a group.
#[derive(Debug)]
pub(in crate::store::local) struct Encoder<'a> {
    pub(in crate::store::local) kind: GroupKind,
    pub(in crate::store::local) batches: &'a [StampedBatch],
    pub(in crate::store::local) copies: &'a [ExtentCopy],
    pub(in crate::store::local) rows: &'a [Row],
    pub(in crate::store::local) trims: &'a [(PartitionId, Option<Offset>)],
    pub(in crate::store::local) state: Option<&'a StoreState>,
    pub(in crate::store::local) extent_bytes: usize,
}

impl Encoder<'_> {
    /// Copies everything into one buffer and writes the stamps there.
    pub(in crate::store::local) fn encode(&self, at: &Placement) -> Result<Encoded, CommitError> {
        let mut order: Vec<&StampedBatch> = self.batches.iter().collect();
        order.sort_by_key(|batch| batch.stamp.partition);
        let runs = self.runs(&order);
        let bytes = self.group_bytes(&runs)?;
        let mut buffer = buffer_in_phase(bytes, at.position);
        buffer.put_bytes(0, GROUP_HEADER_BYTES);
        let mut extents = Vec::with_capacity(runs.len() + self.copies.len());
        let mut body = Hasher::new();
        let mut hashed = GROUP_HEADER_BYTES;
        for run in &runs {
            put_extent(&mut buffer, run, &mut extents).map_err(|_| CommitError::Stopped)?;
            // Right away, while it is in the processor's cache.
            body.update(buffer.get(hashed..).unwrap_or_default());
            hashed = buffer.len();
        }
        for copy in self.copies {
            put_copy(&mut buffer, copy, &mut extents);
        }
        for row in self.rows {
            put_row(&mut buffer, row);
        }
        for (partition, log_start) in self.trims {
            put_trim(&mut buffer, *partition, *log_start);
        }
        if let Some(state) = self.state {
            put_state(&mut buffer, state);
        }
        let entries = extents.len() + self.rows.len() + self.trims.len();
        self.put_header(&mut buffer, at, entries + usize::from(self.state.is_some()));
        body.update(buffer.get(hashed..).unwrap_or_default());
        Ok(Encoded {
            buffer,
            body,
            extents,
        })
    }

    /// Splits the sorted batches into extents: one partition, dense offsets, about the wanted size.
    fn runs<'b>(&self, order: &'b [&'b StampedBatch]) -> Vec<&'b [&'b StampedBatch]> {
        let mut bytes = 0;
        order
            .chunk_by(|before, after| {
                bytes += before.batch.bytes().len();
                let header = before.batch.header();
                let end = before.stamp.base_offset.advance(header.record_count.into());
                let joins = before.stamp.partition == after.stamp.partition
                    && end == after.stamp.base_offset
                    && bytes + after.batch.bytes().len() <= self.extent_bytes;
                if !joins {
                    bytes = 0;
                }
                joins
            })
            .collect()
    }

    fn group_bytes(&self, runs: &[&[&StampedBatch]]) -> Result<usize, CommitError> {
        let too_large = |bytes: usize, max: usize| CommitError::TooLarge {
            bytes: bytes as u64,
            max: max as u64,
        };
        let mut bytes = GROUP_HEADER_BYTES;
        for run in runs {
            let batches: usize = run.iter().map(|b| b.batch.bytes().len()).sum();
            bytes += padded(EXTENT_HEADER + batches);
        }
        for copy in self.copies {
            bytes += padded(EXTENT_HEADER + super::super::length(copy.extent.bytes));
        }
        for row in self.rows {
            let max = usize::from(u16::MAX);
            if row.key.len() > max {
                return Err(too_large(row.key.len(), max));
            }
            let value = row.value.as_ref().map_or(0, Bytes::len);
            bytes = bytes.saturating_add(padded(ROW_HEADER + row.key.len() + value));
        }
        bytes += self.trims.len() * super::TRIM_BYTES;
        if let Some(state) = self.state {
            bytes += padded(super::STATE_HEADER + state.encoded_bytes());
        }
        if bytes > GROUP_BYTES_MAX {
            return Err(too_large(bytes, GROUP_BYTES_MAX));
        }
        Ok(bytes)
    }

    fn put_header(&self, buffer: &mut BytesMut, at: &Placement, entries: usize) {
        let group_bytes = buffer.len();
        if let Some(mut head) = buffer.get_mut(8..GROUP_HEADER_BYTES) {
            head.put_u32_le(u32_of(group_bytes));
            head.put_u32_le(at.nonce);
            head.put_u64_le(at.segment);
            head.put_u64_le(at.seq);
            head.put_u32_le(u32_of(entries));
            head.put_u8(match self.kind {
                GroupKind::Commit => 1,
                GroupKind::Snapshot => 2,
            });
            head.put_u8(0);
            head.put_u16_le(place_of(at.position));
        }
    }
}

/// Room for `bytes`, laid out as a large group will lie in the file, so that it is written without a copy.
fn buffer_in_phase(bytes: usize, position: u64) -> BytesMut {
    if bytes < PHASED_BYTES {
        return BytesMut::with_capacity(bytes);
    }
    let mut whole = BytesMut::with_capacity(bytes + BLOCK_BYTES);
    let skip = skip_to_phase(whole.as_ptr(), position);
    whole.put_bytes(0, skip);
    whole.split_off(skip)
}

/// Lossless: sizes were checked against [`GROUP_BYTES_MAX`].
fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn pad(buffer: &mut BytesMut) {
    buffer.put_bytes(0, padded(buffer.len()) - buffer.len());
}

fn put_extent(
    buffer: &mut BytesMut,
    run: &[&StampedBatch],
    extents: &mut Vec<EncodedExtent>,
) -> Result<(), BatchError> {
    let Some(first) = run.first() else {
        return Ok(());
    };
    let partition = first.stamp.partition;
    let mut extent = Extent {
        base_offset: first.stamp.base_offset,
        record_count: 0,
        bytes: u32_of(run.iter().map(|b| b.batch.bytes().len()).sum()),
        max_timestamp_ms: i64::MIN,
        append_time_ms: i64::MIN,
    };
    put_extent_header(buffer, partition, (run.len(), extent.bytes), false);
    let at = buffer.len() as u64;
    for stamped in run {
        let header = stamped.batch.header();
        let from = buffer.len();
        buffer.put_slice(stamped.batch.bytes());
        stamped
            .stamp
            .write(buffer.get_mut(from..).unwrap_or_default())?;
        extent.record_count = extent.record_count.saturating_add(header.record_count);
        extent.max_timestamp_ms = extent.max_timestamp_ms.max(header.max_timestamp_ms);
        extent.append_time_ms = extent.append_time_ms.max(stamped.stamp.append_time_ms);
    }
    pad(buffer);
    extents.push(EncodedExtent {
        partition,
        at,
        extent,
        is_copy: false,
    });
    Ok(())
}

fn put_copy(buffer: &mut BytesMut, copy: &ExtentCopy, extents: &mut Vec<EncodedExtent>) {
    let counts = (copy.batches.len(), copy.extent.bytes);
    put_extent_header(buffer, copy.partition, counts, true);
    let at = buffer.len() as u64;
    for batch in &copy.batches {
        buffer.put_slice(batch);
    }
    pad(buffer);
    extents.push(EncodedExtent {
        partition: copy.partition,
        at,
        extent: copy.extent,
        is_copy: true,
    });
}

fn put_extent_header(
    buffer: &mut BytesMut,
    partition: PartitionId,
    (batches, bytes): (usize, u32),
    is_copy: bool,
) {
    buffer.put_u8(1);
    buffer.put_u8(u8::from(is_copy));
    buffer.put_u16_le(0);
    buffer.put_u32_le(partition.topic.0);
    buffer.put_u32_le(partition.partition.0);
    buffer.put_u32_le(u32_of(batches));
    buffer.put_u32_le(bytes);
    buffer.put_u32_le(0);
}

fn put_row(buffer: &mut BytesMut, row: &Row) {
    let value = row.value.as_deref();
    let from = buffer.len();
    buffer.put_u8(if value.is_some() { 2 } else { 3 });
    buffer.put_u8(row.table.number());
    buffer.put_u16_le(u16::try_from(row.key.len()).unwrap_or(u16::MAX));
    buffer.put_u32_le(u32_of(value.map_or(0, <[u8]>::len)));
    let mut hasher = Hasher::new();
    hasher.update(buffer.get(from..).unwrap_or_default());
    hasher.update(&row.key);
    hasher.update(value.unwrap_or_default());
    buffer.put_u32_le(hasher.finalize());
    buffer.put_slice(&row.key);
    buffer.put_slice(value.unwrap_or_default());
    pad(buffer);
}

fn put_trim(buffer: &mut BytesMut, partition: PartitionId, log_start: Option<Offset>) {
    let from = buffer.len();
    buffer.put_u8(5);
    buffer.put_u8(u8::from(log_start.is_none()));
    buffer.put_u16_le(0);
    buffer.put_u32_le(partition.topic.0);
    buffer.put_u32_le(partition.partition.0);
    buffer.put_u64_le(log_start.unwrap_or_default().0);
    let crc = crc32fast::hash(buffer.get(from..).unwrap_or_default());
    buffer.put_u32_le(crc);
}

fn put_state(buffer: &mut BytesMut, state: &StoreState) {
    let bytes = state.encode();
    buffer.put_u8(4);
    buffer.put_u8(0);
    buffer.put_u16_le(0);
    buffer.put_u32_le(u32_of(bytes.len()));
    buffer.put_slice(&bytes);
    pad(buffer);
}
