//! Commit groups: the unit that is atomic at recovery.
//!
//! ```text
//!  0  u32 magic "FGP1"      16  u64 segment number
//!  4  u32 crc of 8..        24  u64 commit sequence, dense over the journal
//!  8  u32 group_bytes       32  u32 entry_count
//! 12  u32 nonce             36  u8 kind (1 commit, 2 snapshot), u8 flags, u16 place
//! 40  u64 synced sequence: every group below it was durable when this one was written
//! 48  entries, each padded to 8 bytes:
//!     extent: u8 1, u8 flags (bit 0: copied forward), u16 0, u32 topic id, u32 partition,
//!             u32 batch_count, u32 bytes, u32 0, then batches back to back as stored
//!     row:    u8 2 (put) or 3 (delete), u8 table, u16 key bytes, u32 value bytes,
//!             u32 crc of the 8 bytes before, key and value; then key, value
//!     state:  u8 4, u8 0, u16 0, u32 bytes, then the store's state (a checksum of its own)
//!     trim:   u8 5, u8 flags (bit 0: partition gone), u16 0, u32 topic id, u32 partition,
//!             u64 log start, u32 crc of the 20 bytes before
//! ```
//! The place is the group's position in its file: in units of 8 bytes, modulo 65,535, plus 1. So a group that
//! the device wrote or repeated elsewhere is known by itself: two places whole sectors apart differ unless
//! they are a multiple of 32 MiB less 512 bytes apart. Zero: written before groups had a place.

mod encode;

use bytes::{Buf, Bytes};
use falcon_protocol::limits::FRAME_BYTES_MAX;
use falcon_protocol::{Offset, PartitionId};

pub(in crate::store::local) use encode::{Encoded, EncodedExtent, Encoder, ExtentCopy, Placement};

use super::{ALIGN, length, padded};

/// Bytes in front of the entries.
pub(in crate::store::local) const GROUP_HEADER_BYTES: usize = 48;
/// Largest commit group.
pub(in crate::store::local) const GROUP_BYTES_MAX: usize = 256 << 20;
// A step is one command, and a turn takes no more behind 4 MiB: none is refused for the size of its group.
const _: () = assert!(FRAME_BYTES_MAX as usize * 2 + (4 << 20) < GROUP_BYTES_MAX);
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"FGP1");
pub(super) const EXTENT_HEADER: usize = 24;
/// Odd, so that no shift by a power of two is taken for none.
const PLACES: u64 = u16::MAX as u64;
const ROW_HEADER: usize = 12;
const STATE_HEADER: usize = 8;
pub(in crate::store::local) const TRIM_BYTES: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) enum GroupKind {
    Commit,
    Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) struct GroupHeader {
    pub(in crate::store::local) crc: u32,
    pub(in crate::store::local) group_bytes: u32,
    pub(in crate::store::local) nonce: u32,
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) seq: u64,
    pub(in crate::store::local) entry_count: u32,
    pub(in crate::store::local) kind: GroupKind,
    /// [`place_of`] its position; zero in older groups.
    pub(in crate::store::local) place: u16,
    pub(in crate::store::local) synced_seq: u64,
}

/// What a group at `position` says of its place.
pub(in crate::store::local) fn place_of(position: u64) -> u16 {
    let place = position / ALIGN as u64 % PLACES + 1;
    u16::try_from(place).unwrap_or(u16::MAX)
}

impl GroupHeader {
    /// Reads a header; `None` when these bytes cannot be one.
    pub(in crate::store::local) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = bytes.get(..GROUP_HEADER_BYTES)?;
        if from.get_u32_le() != MAGIC {
            return None;
        }
        let crc = from.get_u32_le();
        let group_bytes = from.get_u32_le();
        let nonce = from.get_u32_le();
        let segment = from.get_u64_le();
        let seq = from.get_u64_le();
        let entry_count = from.get_u32_le();
        let kind = match from.get_u8() {
            1 => GroupKind::Commit,
            2 => GroupKind::Snapshot,
            _ => return None,
        };
        from.advance(1);
        let place = from.get_u16_le();
        let synced_seq = from.get_u64_le();
        let bytes = length(group_bytes);
        let is_sane =
            (GROUP_HEADER_BYTES..=GROUP_BYTES_MAX).contains(&bytes) && padded(bytes) == bytes;
        is_sane.then_some(Self {
            crc,
            group_bytes,
            nonce,
            segment,
            seq,
            entry_count,
            kind,
            place,
            synced_seq,
        })
    }

    /// Whether it may be at `position`; an older group may be anywhere.
    pub(in crate::store::local) fn is_at(&self, position: u64) -> bool {
        !self.has_place() || self.place == place_of(position)
    }

    pub(in crate::store::local) fn has_place(&self) -> bool {
        self.place != 0
    }
}

/// One entry of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::local) enum Entry {
    Extent {
        partition: PartitionId,
        is_copy: bool,
        /// Position of `batches` in the bytes the entry was read from.
        at: usize,
        batches: Bytes,
    },
    Row {
        table: u8,
        key: Bytes,
        value: Option<Bytes>,
    },
    State(Bytes),
    Trim {
        partition: PartitionId,
        log_start: Option<Offset>,
    },
}

impl Entry {
    /// Reads the entry at `at` and answers where the next one starts. Rows and trims are checked by
    /// their own checksum; batches are not checked here.
    pub(in crate::store::local) fn read(bytes: &Bytes, at: usize) -> Option<(Self, usize)> {
        match bytes.get(at)? {
            1 => Self::read_extent(bytes, at),
            2 | 3 => Self::read_row(bytes, at),
            4 => {
                let mut head = bytes.get(at.checked_add(4)?..at.checked_add(STATE_HEADER)?)?;
                let from = at + STATE_HEADER;
                let to = from.checked_add(length(head.get_u32_le()))?;
                bytes.get(from..to)?;
                Some((Self::State(bytes.slice(from..to)), at + padded(to - at)))
            }
            5 => Self::read_trim(bytes, at),
            _ => None,
        }
    }

    fn read_extent(bytes: &Bytes, at: usize) -> Option<(Self, usize)> {
        let from = at.checked_add(EXTENT_HEADER)?;
        let mut head = bytes.get(at..from)?;
        head.advance(1);
        let flags = head.get_u8();
        head.advance(2);
        let partition = PartitionId::new(head.get_u32_le(), head.get_u32_le());
        head.advance(4);
        let to = from.checked_add(length(head.get_u32_le()))?;
        bytes.get(from..to)?;
        let entry = Self::Extent {
            partition,
            is_copy: flags & 1 != 0,
            at: from,
            batches: bytes.slice(from..to),
        };
        Some((entry, at + padded(to - at)))
    }

    fn read_row(bytes: &Bytes, at: usize) -> Option<(Self, usize)> {
        let from = at.checked_add(ROW_HEADER)?;
        let mut head = bytes.get(at..from)?;
        let fixed = head.get(..8)?;
        let is_put = head.get_u8() == 2;
        let table = head.get_u8();
        let key_bytes = usize::from(head.get_u16_le());
        let value_bytes = length(head.get_u32_le());
        let crc = head.get_u32_le();
        let middle = from.checked_add(key_bytes)?;
        let to = middle.checked_add(value_bytes)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(fixed);
        hasher.update(bytes.get(from..to)?);
        if hasher.finalize() != crc {
            return None;
        }
        let entry = Self::Row {
            table,
            key: bytes.slice(from..middle),
            value: is_put.then(|| bytes.slice(middle..to)),
        };
        Some((entry, at + padded(to - at)))
    }

    fn read_trim(bytes: &Bytes, at: usize) -> Option<(Self, usize)> {
        let to = at.checked_add(TRIM_BYTES)?;
        let mut head = bytes.get(at..to)?;
        let computed = crc32fast::hash(head.get(..TRIM_BYTES - 4)?);
        head.advance(1);
        let is_gone = head.get_u8() & 1 != 0;
        head.advance(2);
        let partition = PartitionId::new(head.get_u32_le(), head.get_u32_le());
        let log_start = Offset(head.get_u64_le());
        if head.get_u32_le() != computed {
            return None;
        }
        let log_start = (!is_gone).then_some(log_start);
        let entry = Self::Trim {
            partition,
            log_start,
        };
        Some((entry, to))
    }
}
