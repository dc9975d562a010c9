//! What opening a folder needs, answers, and can go wrong with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::io::{BLOCK_BYTES, IoError};
use crate::metrics::Metrics;
use crate::store::Damage;

/// Where the data is and how much of everything.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The data folder; created when it does not exist.
    pub data_dir: PathBuf,
    /// Folder of the sled index, always on the real file system. `None`: the
    /// footers are the index.
    pub index_dir: Option<PathBuf>,
    /// Size a segment rolls at. Taken up to whole blocks of 4 KiB, because a device writes no less.
    pub segment_bytes: u64,
    /// Size of the first segment of a new folder, taken up likewise.
    pub first_segment_bytes: u64,
    /// Extents a segment rolls at; bounds the memory of its index.
    pub segment_extents_max: usize,
    /// Bytes from which batches of one partition in one group go into another extent.
    pub extent_bytes: usize,
    /// Memory for the newest commit groups.
    pub cache_bytes: usize,
    /// Commits are refused while less is free; groups of rows alone below a quarter of it.
    pub free_floor_bytes: u64,
    /// Whether the segment that is appended to is written past the page cache, where that is possible.
    pub direct_io: bool,
    /// Prepared segments kept in store.
    pub spare_segments: usize,
    /// A segment of which little is live is left alone for so long at first, since records that were trimmed from it
    /// may be followed by the rest.
    pub forward_after: Duration,
    /// Dead segments are kept for as many new ones as were begun in so long.
    pub reuse_within: Duration,
    /// For so long after a group a broker counts as busy: dead segments are removed slowly.
    pub busy_for: Duration,
    /// A dead segment is removed in pieces of so many bytes.
    pub removal_bytes: u64,
    /// How long sled may take to open before the footers are the index.
    pub index_open_timeout: Duration,
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
}

impl LocalConfig {
    /// The defaults, in `data_dir`.
    pub fn new(data_dir: impl AsRef<Path>) -> Self {
        let data_dir = data_dir.as_ref().to_path_buf();
        Self {
            index_dir: Some(data_dir.join("index")),
            data_dir,
            segment_bytes: 128 << 20,
            first_segment_bytes: 8 << 20,
            segment_extents_max: 262_144,
            extent_bytes: 256 << 10,
            cache_bytes: 16 << 20,
            free_floor_bytes: 64 << 20,
            direct_io: true,
            spare_segments: 1,
            forward_after: Duration::from_secs(60),
            reuse_within: Duration::from_secs(30),
            busy_for: Duration::from_secs(2),
            removal_bytes: 2 << 20,
            index_open_timeout: Duration::from_secs(30),
            metrics: Arc::default(),
        }
    }
}

impl LocalConfig {
    /// The same with sizes of segments in whole blocks.
    pub(super) fn in_blocks(self) -> Self {
        let blocks = |bytes: u64| {
            let up = bytes.checked_next_multiple_of(BLOCK_BYTES as u64);
            up.unwrap_or(bytes - bytes % BLOCK_BYTES as u64)
        };
        Self {
            segment_bytes: blocks(self.segment_bytes),
            first_segment_bytes: blocks(self.first_segment_bytes),
            ..self
        }
    }
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self::new("falcon-data")
    }
}

/// Why a data folder could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another broker uses the folder {}: stop it or choose another folder", .path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error("{} has format {format}, newer than this broker knows: use a newer falcon", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Something else is in the folder.
    #[error("{} is not empty and holds no falcon data: choose an empty folder", .path.display())]
    NotFalcon {
        /// The data folder.
        path: PathBuf,
    },
    /// There are segments, but IDENTITY is gone.
    #[error("{} is missing while there are segments: restore it from a backup, or copy the records with falcon salvage", .path.display())]
    IdentityMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// IDENTITY cannot be read.
    #[error("{} is damaged: restore it from a backup, or copy the records with falcon salvage", .path.display())]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
    },
    /// There was a journal, and nothing of it is left.
    #[error("{} holds no segment any more: restore it from a backup, or choose an empty folder to begin anew", .path.display())]
    JournalMissing {
        /// The journal's folder.
        path: PathBuf,
    },
    /// The segment that was written to last is gone.
    #[error("{} is gone, with records that were acknowledged: restore it, or copy what is left with falcon salvage", .path.display())]
    SegmentMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A segment was copied here from elsewhere.
    #[error("{} belongs to another falcon folder: move it away", .path.display())]
    ForeignSegment {
        /// The segment.
        path: PathBuf,
    },
    /// The keeper thread could not be started.
    #[error("the system starts no more threads: raise its limit")]
    Thread(#[source] std::io::Error),
    /// The device or the file system refused.
    #[error("the data folder cannot be used: check permissions, space and device")]
    Io(#[from] IoError),
}

/// A commit group that was written when power went, and never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: u64,
    /// Where the journal ends now, a position in the segment.
    pub position: u64,
    /// Bytes cut.
    pub bytes: u64,
}

/// What became of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexReport {
    /// A new folder has a new index.
    Created,
    /// It matches the journal.
    Trusted,
    /// It was thrown away, and is built again from the journal while the broker runs.
    Rebuilt {
        /// Why.
        reason: String,
    },
    /// sled cannot be used; footers are the index until the next start.
    Footers {
        /// Why.
        reason: String,
    },
}

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Commit groups replayed, from the newest snapshot on.
    pub groups: u64,
    /// Batches replayed.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Live segments.
    pub segments: u64,
    /// What was cut at the end.
    pub torn_tail: Option<TornTail>,
    /// Records that were acknowledged and cannot be read.
    pub damage: Vec<Damage>,
    /// Damaged stretches of the journal in which row changes may have been lost. Every start counts them
    /// until a newer snapshot has the tables as they were recovered.
    pub rows_damaged: u64,
    /// Segments that a clean stop left and that are gone.
    pub missing_segments: Vec<u64>,
    /// Whether the last stop was clean.
    pub was_clean: bool,
    /// How long it took.
    pub duration: Duration,
}
