//! Header and seal slot of a segment file.
//!
//! ```text
//! header, 4 KiB                              seal slot, at byte 512
//!  0  u32 magic "FSG1"                        0  u32 magic "FSL1"
//!  4  u32 crc of 8..64                        4  u32 crc of 8..64
//!  8  u16 format version, u16 zero            8  u64 segment number
//! 12  u32 nonce                              16  u32 nonce, u32 bytes of the footer's summary
//! 16  u128 journal id                        24  u64 end of the groups
//! 32  u64 segment number                     32  u64 position of the footer
//! 40  zero                                   40  u64 bytes of the footer
//!                                            48  u64 first sequence, 56 u64 sequence after the last
//! ```

use bytes::{Buf, BufMut};

/// Bytes in front of the first commit group.
pub(in crate::store::local) const HEADER_BYTES: u64 = 4096;
/// Position of the seal slot.
pub(in crate::store::local) const SEAL_POSITION: u64 = 512;
const MAGIC: u32 = u32::from_le_bytes(*b"FSG1");
const SEAL_MAGIC: u32 = u32::from_le_bytes(*b"FSL1");
/// The only format of version 1.
pub(in crate::store::local) const FORMAT: u16 = 1;
const SLOT: usize = 64;

/// What makes a segment file this life of this segment of this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) struct SegmentHeader {
    pub(in crate::store::local) journal_id: u128,
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) nonce: u32,
}

/// Why a header was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) enum HeaderError {
    Damaged,
    Newer(u16),
}

impl SegmentHeader {
    /// The whole header block, its seal slot empty.
    pub(in crate::store::local) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(SLOT);
        fields.put_u16_le(FORMAT);
        fields.put_u16_le(0);
        fields.put_u32_le(self.nonce);
        fields.put_u128_le(self.journal_id);
        fields.put_u64_le(self.segment);
        let mut block = sealed_slot(MAGIC, fields);
        block.resize(usize::try_from(HEADER_BYTES).unwrap_or(4096), 0);
        block
    }

    pub(in crate::store::local) fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let mut fields = open_slot(MAGIC, block).ok_or(HeaderError::Damaged)?;
        let format = fields.get_u16_le();
        if format > FORMAT {
            return Err(HeaderError::Newer(format));
        }
        fields.advance(2);
        Ok(Self {
            nonce: fields.get_u32_le(),
            journal_id: fields.get_u128_le(),
            segment: fields.get_u64_le(),
        })
    }
}

/// Says that a segment gets no more groups, and where its footer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) struct Seal {
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) nonce: u32,
    pub(in crate::store::local) summary_bytes: u32,
    pub(in crate::store::local) groups_end: u64,
    pub(in crate::store::local) footer_position: u64,
    pub(in crate::store::local) footer_bytes: u64,
    pub(in crate::store::local) first_seq: u64,
    pub(in crate::store::local) end_seq: u64,
}

impl Seal {
    pub(in crate::store::local) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(SLOT);
        fields.put_u64_le(self.segment);
        fields.put_u32_le(self.nonce);
        fields.put_u32_le(self.summary_bytes);
        fields.put_u64_le(self.groups_end);
        fields.put_u64_le(self.footer_position);
        fields.put_u64_le(self.footer_bytes);
        fields.put_u64_le(self.first_seq);
        fields.put_u64_le(self.end_seq);
        sealed_slot(SEAL_MAGIC, fields)
    }

    /// Reads the slot from a header block; `None` when there is none or it is damaged.
    pub(in crate::store::local) fn decode(block: &[u8]) -> Option<Self> {
        let from = usize::try_from(SEAL_POSITION).ok()?;
        let mut fields = open_slot(SEAL_MAGIC, block.get(from..)?)?;
        Some(Self {
            segment: fields.get_u64_le(),
            nonce: fields.get_u32_le(),
            summary_bytes: fields.get_u32_le(),
            groups_end: fields.get_u64_le(),
            footer_position: fields.get_u64_le(),
            footer_bytes: fields.get_u64_le(),
            first_seq: fields.get_u64_le(),
            end_seq: fields.get_u64_le(),
        })
    }
}

/// Magic, checksum, then `fields` padded to 56 bytes.
fn sealed_slot(magic: u32, mut fields: Vec<u8>) -> Vec<u8> {
    fields.resize(SLOT - 8, 0);
    let mut slot = Vec::with_capacity(SLOT);
    slot.put_u32_le(magic);
    slot.put_u32_le(crc32fast::hash(&fields));
    slot.put_slice(&fields);
    slot
}

/// The 56 bytes of fields, when magic and checksum are right.
fn open_slot(magic: u32, block: &[u8]) -> Option<&[u8]> {
    let slot = block.get(..SLOT)?;
    let (mut head, fields) = slot.split_at_checked(8)?;
    let is_whole = head.get_u32_le() == magic && head.get_u32_le() == crc32fast::hash(fields);
    is_whole.then_some(fields)
}
