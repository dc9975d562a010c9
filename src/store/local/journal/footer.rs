//! The footer of a sealed segment: its index, so that bodies need not be read.
//!
//! ```text
//! summary:  0  u32 magic "FFT1"       24  u32 partitions, u32 damages
//!           4  u32 crc of 8..         32  u32 crc of the extents, u32 zero
//!           8  u64 segment number     40  u64 extents
//!          16  u32 nonce, u32 zero    48  partitions: u32 topic, u32 partition, u64 lowest offset here, u64 end
//!                                             offset here, u64 the same without copies, u64 bytes
//!                                         damages: u32 topic, u32 partition, u64 from, u64 to
//! extents:  u32 topic, u32 partition, u64 base offset, u64 position, u32 records, u32 bytes,
//!           i64 latest record time, i64 append time
//! ```
//! The summary alone is enough to know which records a segment has. sled says where in the extents those of a
//! partition are.

use bytes::{Buf, BufMut};
use falcon_protocol::{Offset, PartitionId};

use super::length;
use crate::store::local::index::Place;
use crate::store::local::segments::Share;
use crate::store::{Damage, Extent};

const MAGIC: u32 = u32::from_le_bytes(*b"FFT1");
const FIXED: usize = 48;
const SHARE: usize = 40;
const DAMAGE: usize = 24;
const EXTENT: usize = 48;
/// Bytes of one extent; they follow the summary, sorted by partition and base offset.
pub(in crate::store::local) const EXTENT_BYTES: u64 = EXTENT as u64;

/// What a segment holds, without saying where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::local) struct Summary {
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) nonce: u32,
    /// What the segment holds of each partition.
    pub(in crate::store::local) shares: Vec<(PartitionId, Share)>,
    pub(in crate::store::local) damage: Vec<Damage>,
}

/// A summary and what is needed to read the extents behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::local) struct StoredSummary {
    pub(in crate::store::local) summary: Summary,
    extents: u64,
    extents_crc: u32,
}

/// Appends one of the extents behind the summary.
pub(in crate::store::local) fn put_row(to: &mut Vec<u8>, partition: PartitionId, place: &Place) {
    put_partition(to, partition);
    to.put_u64_le(place.extent.base_offset.0);
    to.put_u64_le(place.position);
    to.put_u32_le(place.extent.record_count);
    to.put_u32_le(place.extent.bytes);
    to.put_i64_le(place.extent.max_timestamp_ms);
    to.put_i64_le(place.extent.append_time_ms);
}

/// The bytes of a footer and how many of them are the summary.
#[cfg(test)]
pub(in crate::store::local) fn encode(
    summary: &Summary,
    extents: &[(PartitionId, Place)],
) -> (Vec<u8>, usize) {
    let mut tail = Vec::new();
    for (partition, place) in extents {
        put_row(&mut tail, *partition, place);
    }
    let mut bytes = summary.encode(extents.len() as u64, crc32fast::hash(&tail));
    let summary_bytes = bytes.len();
    bytes.append(&mut tail);
    (bytes, summary_bytes)
}

impl Summary {
    /// How many bytes it has when it is written.
    pub(in crate::store::local) fn encoded_bytes(&self) -> usize {
        FIXED + self.shares.len() * SHARE + self.damage.len() * DAMAGE
    }

    /// The bytes of the summary of so many extents, which have this checksum.
    pub(in crate::store::local) fn encode(&self, extents: u64, extents_crc: u32) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        bytes.put_u32_le(MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.segment);
        bytes.put_u32_le(self.nonce);
        bytes.put_u32_le(0);
        bytes.put_u32_le(count(self.shares.len()));
        bytes.put_u32_le(count(self.damage.len()));
        bytes.put_u32_le(extents_crc);
        bytes.put_u32_le(0);
        bytes.put_u64_le(extents);
        for (partition, share) in &self.shares {
            put_partition(&mut bytes, *partition);
            bytes.put_u64_le(share.base.0);
            bytes.put_u64_le(share.end.0);
            bytes.put_u64_le(share.original_end.0);
            bytes.put_u64_le(share.bytes);
        }
        for damage in &self.damage {
            put_partition(&mut bytes, damage.partition);
            bytes.put_u64_le(damage.range.start.0);
            bytes.put_u64_le(damage.range.end.0);
        }
        let crc = crc32fast::hash(bytes.get(8..).unwrap_or_default());
        if let Some(mut field) = bytes.get_mut(4..8) {
            field.put_u32_le(crc);
        }
        bytes
    }
}

fn put_partition(to: &mut Vec<u8>, partition: PartitionId) {
    to.put_u32_le(partition.topic.0);
    to.put_u32_le(partition.partition.0);
}

fn take_partition(from: &mut &[u8]) -> PartitionId {
    PartitionId::new(from.get_u32_le(), from.get_u32_le())
}

impl StoredSummary {
    /// Reads exactly a summary; `None` when damaged.
    pub(in crate::store::local) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut head, mut rest) = bytes.split_at_checked(FIXED)?;
        let is_whole =
            head.get_u32_le() == MAGIC && head.get_u32_le() == crc32fast::hash(bytes.get(8..)?);
        if !is_whole {
            return None;
        }
        let segment = head.get_u64_le();
        let nonce = head.get_u32_le();
        head.advance(4);
        let shares = length(head.get_u32_le());
        let damages = length(head.get_u32_le());
        let extents_crc = head.get_u32_le();
        head.advance(4);
        let extents = head.get_u64_le();
        let need = shares
            .checked_mul(SHARE)?
            .checked_add(damages.checked_mul(DAMAGE)?)?;
        if rest.len() != need {
            return None;
        }
        let mut summary = Summary {
            segment,
            nonce,
            ..Summary::default()
        };
        for _ in 0..shares {
            let partition = take_partition(&mut rest);
            let share = Share {
                base: Offset(rest.get_u64_le()),
                end: Offset(rest.get_u64_le()),
                original_end: Offset(rest.get_u64_le()),
                bytes: rest.get_u64_le(),
            };
            summary.shares.push((partition, share));
        }
        for _ in 0..damages {
            let partition = take_partition(&mut rest);
            let range = Offset(rest.get_u64_le())..Offset(rest.get_u64_le());
            summary.damage.push(Damage { partition, range });
        }
        Some(Self {
            summary,
            extents,
            extents_crc,
        })
    }

    /// Reads the extents, which follow the summary; `None` when damaged.
    pub(in crate::store::local) fn decode_extents(
        &self,
        bytes: &[u8],
    ) -> Option<Vec<(PartitionId, Place)>> {
        if !self.is_of(bytes.len() as u64, crc32fast::hash(bytes)) {
            return None;
        }
        Some(decode_rows(self.summary.segment, bytes).collect())
    }

    /// Whether extents of so many bytes, with this checksum, are those of the summary.
    pub(in crate::store::local) fn is_of(&self, bytes: u64, crc: u32) -> bool {
        crc == self.extents_crc && self.extents.checked_mul(EXTENT_BYTES) == Some(bytes)
    }
}

/// The whole extents in `bytes`, of a footer of `segment`.
pub(in crate::store::local) fn decode_rows(
    segment: u64,
    bytes: &[u8],
) -> impl Iterator<Item = (PartitionId, Place)> {
    bytes.chunks_exact(EXTENT).map(move |mut row| {
        let from = &mut row;
        let partition = take_partition(from);
        let base_offset = Offset(from.get_u64_le());
        let position = from.get_u64_le();
        let extent = Extent {
            base_offset,
            record_count: from.get_u32_le(),
            bytes: from.get_u32_le(),
            max_timestamp_ms: from.get_i64_le(),
            append_time_ms: from.get_i64_le(),
        };
        let place = Place {
            segment,
            position,
            extent,
            is_copy: false,
        };
        (partition, place)
    })
}
