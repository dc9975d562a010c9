//! What the store itself has to remember besides rows: live segments and the bounds of partitions.
//!
//! ```text
//!  0  u32 crc of 4..                     16  segments: u64 number each
//!  4  u32 segments                         then partitions: u32 topic, u32 partition,
//!  8  u32 partitions, u32 zero               u64 log start, u64 log end each
//! ```
//! Part of every snapshot and of the clean-stop marker. With the ends, records lost at the tail of
//! a partition are named although nothing behind them was found; with the starts, dead segments
//! stay dead after a restart.

use bytes::{Buf, BufMut};
use falcon_protocol::{Offset, PartitionId};

const FIXED: usize = 16;
const PARTITION: usize = 24;

/// What is left and what comes next in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store::local) struct Bounds {
    /// Records before it are dead.
    pub(in crate::store::local) start: Offset,
    /// After the last record.
    pub(in crate::store::local) end: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::local) struct StoreState {
    pub(in crate::store::local) segments: Vec<u64>,
    pub(in crate::store::local) partitions: Vec<(PartitionId, Bounds)>,
}

impl StoreState {
    pub(in crate::store::local) fn encode(&self) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        bytes.put_u32_le(0);
        bytes.put_u32_le(count(self.segments.len()));
        bytes.put_u32_le(count(self.partitions.len()));
        bytes.put_u32_le(0);
        for segment in &self.segments {
            bytes.put_u64_le(*segment);
        }
        for (partition, bounds) in &self.partitions {
            bytes.put_u32_le(partition.topic.0);
            bytes.put_u32_le(partition.partition.0);
            bytes.put_u64_le(bounds.start.0);
            bytes.put_u64_le(bounds.end.0);
        }
        let crc = crc32fast::hash(bytes.get(4..).unwrap_or_default());
        if let Some(mut field) = bytes.get_mut(..4) {
            field.put_u32_le(crc);
        }
        bytes
    }

    pub(in crate::store::local) fn encoded_bytes(&self) -> usize {
        FIXED + self.segments.len() * 8 + self.partitions.len() * PARTITION
    }

    pub(in crate::store::local) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut head, mut rest) = bytes.split_at_checked(FIXED)?;
        if head.get_u32_le() != crc32fast::hash(bytes.get(4..)?) {
            return None;
        }
        let segments = super::length(head.get_u32_le());
        let partitions = super::length(head.get_u32_le());
        // The lengths are checked against the bytes there before anything is allocated.
        let need = segments
            .checked_mul(8)?
            .checked_add(partitions.checked_mul(PARTITION)?)?;
        if need != rest.len() {
            return None;
        }
        let mut state = Self::default();
        for _ in 0..segments {
            state.segments.push(rest.get_u64_le());
        }
        for _ in 0..partitions {
            let partition = PartitionId::new(rest.get_u32_le(), rest.get_u32_le());
            let start = Offset(rest.get_u64_le());
            let end = Offset(rest.get_u64_le());
            state.partitions.push((partition, Bounds { start, end }));
        }
        Some(state)
    }
}
