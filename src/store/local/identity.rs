//! The files IDENTITY and CLEAN.
//!
//! ```text
//! IDENTITY, 1 KiB: two equal slots, at 0 and 512     CLEAN
//!  0  8 bytes "FALCONID"                              0  u32 magic "FCLN"
//!  8  u32 crc of 12..64                               4  u32 crc of 8..
//! 12  u32 format version                              8  u128 journal id
//! 16  u128 journal id                                24  u64 next commit sequence
//! 32  u32 epoch                                      32  u64 last segment, u64 end of its groups
//! 36  zero                                           48  u64 token of the index, 0: none
//!                                                    56  u32 segments in the index, u32 bytes of state
//!                                                    64  u64 segment number each, then the state
//! ```
//! IDENTITY is overwritten in place, one slot after the other, so that a start needs no free space.

use std::path::Path;

use bytes::{Buf, BufMut};

use super::OpenError;
use super::journal::length;
use super::journal::state::StoreState;
use crate::io::{Disk, IoError, read_small, replace_small};

const MAGIC: &[u8; 8] = b"FALCONID";
/// 2: the table of fences, which brokers of format 1 would drop without a word. A folder of format 1 becomes
/// one of 2 when its epoch rises, before anything is appended.
pub(super) const FORMAT: u32 = 2;
const SLOT: usize = 64;
const SLOTS_AT: [u64; 2] = [0, 512];
const CLEAN_MAGIC: u32 = u32::from_le_bytes(*b"FCLN");
const CLEAN_FIXED: usize = 64;
const CLEAN_BYTES_MAX: usize = 256 << 20;

/// Who the data is and how often it was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) journal_id: u128,
    pub(super) epoch: u32,
}

impl Identity {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(SLOT);
        fields.put_u32_le(FORMAT);
        fields.put_u128_le(self.journal_id);
        fields.put_u32_le(self.epoch);
        fields.resize(SLOT - 12, 0);
        let mut slot = MAGIC.to_vec();
        slot.put_u32_le(crc32fast::hash(&fields));
        slot.append(&mut fields);
        slot
    }

    pub(super) fn decode(slot: &[u8]) -> Option<(u32, Self)> {
        let mut fields = slot.get(..SLOT)?.strip_prefix(MAGIC)?;
        let crc = fields.get_u32_le();
        if crc32fast::hash(fields) != crc {
            return None;
        }
        let format = fields.get_u32_le();
        let (journal_id, epoch) = (fields.get_u128_le(), fields.get_u32_le());
        Some((format, Self { journal_id, epoch }))
    }

    /// Reads IDENTITY; `None` when there is none.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, OpenError> {
        let Some(slots) = Self::slots(disk, path)? else {
            return Ok(None);
        };
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.epoch);
        newest.map(Some).ok_or_else(|| OpenError::IdentityDamaged {
            path: path.to_path_buf(),
        })
    }

    /// The slots of IDENTITY, damaged ones as `None`; `None` when there is no such file.
    pub(super) fn slots(
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<Option<[Option<Self>; SLOTS_AT.len()]>, OpenError> {
        let Some(bytes) = read_small(disk, path, 1024)? else {
            return Ok(None);
        };
        let mut slots = [None; SLOTS_AT.len()];
        for (slot, at) in slots.iter_mut().zip(SLOTS_AT) {
            let stored = bytes.get(usize::try_from(at).unwrap_or(0)..);
            let Some((format, identity)) = stored.and_then(Self::decode) else {
                continue;
            };
            if format > FORMAT {
                let path = path.to_path_buf();
                return Err(OpenError::NewerFormat { path, format });
            }
            *slot = Some(identity);
        }
        Ok(Some(slots))
    }

    /// Creates IDENTITY.
    pub(super) fn create(self, disk: &dyn Disk, path: &Path) -> Result<(), IoError> {
        let mut bytes = self.encode();
        bytes.resize(512, 0);
        replace_small(disk, path, &bytes.repeat(SLOTS_AT.len()))
    }

    /// Overwrites both slots, so that rot in one cannot bring an older epoch back.
    pub(super) fn update(self, disk: &dyn Disk, path: &Path) -> Result<(), IoError> {
        let file = disk.open(path)?;
        for at in SLOTS_AT {
            file.write_at(at, &self.encode())?;
            file.sync_data()?;
        }
        Ok(())
    }
}

/// What a clean stop left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CleanMarker {
    pub(super) journal_id: u128,
    pub(super) next_seq: u64,
    pub(super) segment: u64,
    pub(super) end: u64,
    pub(super) index_token: u64,
    pub(super) indexed: Vec<u64>,
    pub(super) state: StoreState,
}

impl CleanMarker {
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let state = self.state.encode();
        let mut bytes = Vec::new();
        bytes.put_u32_le(CLEAN_MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u128_le(self.journal_id);
        bytes.put_u64_le(self.next_seq);
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.end);
        bytes.put_u64_le(self.index_token);
        bytes.put_u32_le(count(self.indexed.len()));
        bytes.put_u32_le(count(state.len()));
        for segment in &self.indexed {
            bytes.put_u64_le(*segment);
        }
        bytes.put_slice(&state);
        let crc = crc32fast::hash(bytes.get(8..).unwrap_or_default());
        if let Some(mut field) = bytes.get_mut(4..8) {
            field.put_u32_le(crc);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut head, mut rest) = bytes.split_at_checked(CLEAN_FIXED)?;
        let is_whole = head.get_u32_le() == CLEAN_MAGIC
            && head.get_u32_le() == crc32fast::hash(bytes.get(8..)?);
        if !is_whole {
            return None;
        }
        let journal_id = head.get_u128_le();
        let next_seq = head.get_u64_le();
        let (segment, end) = (head.get_u64_le(), head.get_u64_le());
        let index_token = head.get_u64_le();
        let (count, state_bytes) = (length(head.get_u32_le()), length(head.get_u32_le()));
        if rest.len() != count.checked_mul(8)?.checked_add(state_bytes)? {
            return None;
        }
        let indexed = (0..count).map(|_| rest.get_u64_le()).collect();
        Some(Self {
            journal_id,
            next_seq,
            segment,
            end,
            index_token,
            indexed,
            state: StoreState::decode(rest)?,
        })
    }

    /// Reads the marker; a damaged one counts as none, for it only saves time and sharpens checks.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Option<Self> {
        match read_small(disk, path, CLEAN_BYTES_MAX) {
            Ok(bytes) => bytes.as_deref().and_then(Self::decode),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the clean-stop marker cannot be read"
                );
                None
            }
        }
    }

    pub(super) fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), IoError> {
        replace_small(disk, path, &self.encode())
    }
}
