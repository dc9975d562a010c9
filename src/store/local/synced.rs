//! The file SYNCED: how far the journal is durable, written after each sync, and synced only by a start.
//!
//! ```text
//! two slots, at 0 and 4096, written in turn; the valid one with the higher sequence counts
//!  0  u32 magic "FSYN"              32  u64 segment, u64 end of its groups
//!  4  u32 crc of 8.., with state    48  u32 bytes of state, u32 zero
//!  8  u128 journal id               56  state: partitions of the last commit groups, when they fit
//! 24  u64 next commit sequence
//! ```
//! It outlives the process, so after a kill nothing that was acknowledged can be taken for a torn tail.
//! After a power cut it may be older than the journal, or gone; what it says is true nevertheless, since
//! it is written after the sync that it speaks of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use falcon_protocol::PartitionId;

use super::journal::length;
use super::journal::state::{Bounds, StoreState};
use crate::io::{Disk, DiskFile, IoError, read_small};

const MAGIC: u32 = u32::from_le_bytes(*b"FSYN");
const FIXED: usize = 56;
const SLOT: usize = 4096;
const SLOTS: usize = 2;

/// LIMIT: partitions that fit into a slot.
pub(super) const SYNCED_PARTITIONS_MAX: usize = 160;

/// Where the journal was durable at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyncedMark {
    pub(super) journal_id: u128,
    /// Every group below it was durable.
    pub(super) next_seq: u64,
    pub(super) segment: u64,
    pub(super) end: u64,
    /// Bounds of the partitions that the last groups were for.
    pub(super) state: StoreState,
}

impl SyncedMark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let state = self.state.encode();
        let mut bytes = Vec::with_capacity(FIXED + state.len());
        bytes.put_u32_le(MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u128_le(self.journal_id);
        bytes.put_u64_le(self.next_seq);
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.end);
        bytes.put_u32_le(u32::try_from(state.len()).unwrap_or(u32::MAX));
        bytes.put_u32_le(0);
        bytes.put_slice(&state);
        let crc = crc32fast::hash(bytes.get(8..).unwrap_or_default());
        if let Some(mut field) = bytes.get_mut(4..8) {
            field.put_u32_le(crc);
        }
        bytes
    }

    pub(super) fn decode(slot: &[u8]) -> Option<Self> {
        let (mut head, rest) = slot.split_at_checked(FIXED)?;
        let (magic, crc) = (head.get_u32_le(), head.get_u32_le());
        let journal_id = head.get_u128_le();
        let next_seq = head.get_u64_le();
        let (segment, end) = (head.get_u64_le(), head.get_u64_le());
        let state = rest.get(..length(head.get_u32_le()))?;
        let covered = slot.get(8..FIXED + state.len())?;
        if magic != MAGIC || crc32fast::hash(covered) != crc {
            return None;
        }
        Some(Self {
            journal_id,
            next_seq,
            segment,
            end,
            state: StoreState::decode(state)?,
        })
    }

    /// The newest whole mark of this journal. Without one, less is known, and nothing is wrong.
    pub(super) fn read(disk: &dyn Disk, path: &Path, journal_id: u128) -> Option<Self> {
        let bytes = match read_small(disk, path, SLOT * SLOTS) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the mark of the last sync cannot be read"
                );
                return None;
            }
        };
        let marks = bytes.chunks(SLOT).filter_map(Self::decode);
        let ours = marks.filter(|mark| mark.journal_id == journal_id);
        ours.max_by_key(|mark| mark.next_seq)
    }
}

/// Writes the marks.
#[derive(Debug)]
pub(super) struct SyncedFile {
    path: PathBuf,
    journal_id: u128,
    /// `None`: it could not be made or written, and marks are left out until the next start.
    file: Option<Arc<dyn DiskFile>>,
    writes: usize,
}

impl SyncedFile {
    /// Opens the file, or makes it at its full size, so that later writes need no space.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, journal_id: u128) -> Self {
        let mut opened = Self {
            path,
            journal_id,
            file: None,
            writes: 0,
        };
        match opened.file(disk) {
            Ok(file) => opened.file = Some(file),
            Err(error) => opened.leave_out(&error),
        }
        opened
    }

    fn file(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, IoError> {
        match disk.open(&self.path) {
            Err(error) if error.is_not_found() => {
                let file = disk.create(&self.path)?;
                file.write_at(0, &[0; SLOT * SLOTS])?;
                Ok(file)
            }
            opened => {
                let file = opened?;
                // What this start made of the mark is served from now on, and must not change.
                file.sync_data()?;
                Ok(file)
            }
        }
    }

    /// Notes that every group below `next_seq` is durable; the last ones were for `partitions`.
    pub(super) fn note(
        &mut self,
        next_seq: u64,
        (segment, end): (u64, u64),
        mut partitions: Vec<(PartitionId, Bounds)>,
    ) {
        let Some(file) = &self.file else {
            return;
        };
        if partitions.len() > SYNCED_PARTITIONS_MAX {
            partitions.clear();
        }
        let mark = SyncedMark {
            journal_id: self.journal_id,
            next_seq,
            segment,
            end,
            state: StoreState {
                segments: Vec::new(),
                partitions,
            },
        };
        let slot = self.writes % SLOTS;
        self.writes = self.writes.wrapping_add(1);
        if let Err(error) = file.write_at((slot * SLOT) as u64, &mark.encode()) {
            self.leave_out(&error);
        }
    }

    fn leave_out(&mut self, error: &IoError) {
        self.file = None;
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the mark of the last sync cannot be written: rot in the last commit group of a killed broker would look \
             like a torn tail"
        );
    }
}
