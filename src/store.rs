//! What a durable home for logs and tables must do.
//!
//! Owns the vocabulary between the writer, the readers and whoever keeps the bytes: commit groups,
//! rows, extents, damage. Promises nothing by itself; [`Store`] states what an implementation
//! promises. Must not know: files, sockets, tokio, what the rows mean.
//!
//! `local` is a journal with a sled index. A later implementation keeps the same data in object
//! storage, where a commit takes tens of milliseconds and many overlap: so commit and durable
//! are two steps, and callers may not assume that durability is quick or local.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{Batch, BatchHeader, Offset, PartitionId, Stamp};
use thiserror::Error;

pub mod local;

/// Position of a commit group in the order of all groups; dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitSeq(pub u64);

/// A table of small rows that the store keeps for its user. Numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Topics by id.
    Topics,
    /// Bounds of partitions.
    Partitions,
    /// Idempotent publishing: last batches by partition and producer id.
    Producers,
    /// Named publishers and the next producer id.
    Publishers,
    /// Committed offsets by group, topic and partition.
    Offsets,
    /// Single values: next topic id.
    Counters,
    /// Epochs of owners by group, topic and partition; since folder format 2.
    Fences,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Topics,
        Self::Partitions,
        Self::Producers,
        Self::Publishers,
        Self::Offsets,
        Self::Counters,
        Self::Fences,
    ];

    /// The number in the journal.
    pub const fn number(self) -> u8 {
        match self {
            Self::Topics => 1,
            Self::Partitions => 2,
            Self::Producers => 3,
            Self::Publishers => 4,
            Self::Offsets => 5,
            Self::Counters => 6,
            Self::Fences => 7,
        }
    }

    /// The table with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }
}

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// At most 64 KiB - 1.
    pub key: Bytes,
    /// The new value; `None` deletes the row.
    pub value: Option<Bytes>,
}

/// A batch with the stamp it shall get.
#[derive(Debug, Clone)]
pub struct StampedBatch {
    /// Partition, base offset, append time, epoch.
    pub stamp: Stamp,
    /// The batch as the publisher sent it, verified.
    pub batch: Batch,
}

/// What one sync makes durable, all or nothing.
#[derive(Debug, Default)]
pub struct CommitGroup {
    /// Batches; those of one partition in order of their offsets.
    pub batches: Vec<StampedBatch>,
    /// Row changes, applied in order.
    pub rows: Vec<Row>,
}

impl CommitGroup {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.rows.is_empty()
    }
}

/// What a group is for. On a full device each gets further than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// It has batches.
    Batches,
    /// It has old records alone, copied forward so that the space around them comes back.
    Copies,
    /// It has rows alone.
    Rows,
    /// It has rows alone, by which space comes back: a topic deleted, a log trimmed.
    Freeing,
}

/// Batches of one partition that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// How many records.
    pub record_count: u32,
    /// Bytes of the batches.
    pub bytes: u32,
    /// Latest record time, Unix milliseconds.
    pub max_timestamp_ms: i64,
    /// Append time of the last batch, Unix milliseconds.
    pub append_time_ms: i64,
}

impl Extent {
    /// Offset after the last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.record_count))
    }
}

/// Records that were acknowledged and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The partition.
    pub partition: PartitionId,
    /// The offsets.
    pub range: Range<Offset>,
}

/// Why a commit failed. After any of these but [`Full`](Self::Full) and
/// [`TooLarge`](Self::TooLarge) the store accepts no more commits.
#[derive(Debug, Clone, Error)]
pub enum CommitError {
    /// Refused before anything was written: too little space is left. Clears by itself.
    #[error("{free_bytes} bytes are free on the device, {floor_bytes} must stay free")]
    Full {
        /// Free now.
        free_bytes: u64,
        /// Configured floor.
        floor_bytes: u64,
    },
    /// Refused before anything was written: larger than a commit group may be.
    #[error("the commit group has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes of the group.
        bytes: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// A write or sync failed now; whether the group survives is unknown.
    #[error("the journal cannot be written")]
    Failed(#[source] Arc<crate::io::IoError>),
    /// A write or sync failed earlier; this group was not written.
    #[error("the journal stopped after an earlier failure")]
    Stopped,
    /// A newer owner exists.
    #[error("a newer owner of the data has taken over")]
    Fenced,
}

/// Why a read failed.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The records are damaged.
    #[error("offsets {} to {} of partition {} are damaged", .0.range.start, .0.range.end, .0.partition)]
    Damaged(Damage),
    /// Nothing is stored at the offset: it was trimmed meanwhile or never written.
    #[error("offset {offset} is not stored")]
    Missing {
        /// The offset asked for.
        offset: Offset,
    },
    /// The device failed.
    #[error("the journal cannot be read")]
    Io(#[source] Arc<crate::io::IoError>),
    /// The index failed.
    #[error("the index cannot be read")]
    Index(#[source] Arc<sled::Error>),
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of segments that hold data.
    pub segment_bytes: u64,
    /// Number of such segments.
    pub segments: u64,
    /// Free bytes on the device.
    pub free_bytes: u64,
}

/// What reads go through: recent batches never touch the device.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Batches found in memory, back to back, the first containing the offset.
    Cached(Vec<Bytes>),
    /// They are on the device: call [`Store::read`] where blocking is allowed.
    Device,
}

/// What a read that has begun is going to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The offset to ask for next.
    pub end: Offset,
    /// Bytes of the batches, at most.
    pub bytes: usize,
}

/// Receives what a store recovered: the rows of the newest snapshot, then every change after it
/// in commit order.
pub trait Replay {
    /// A row was put (`Some`) or deleted (`None`).
    fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>);
    /// A batch was appended. A base offset beyond the end so far means the records between are
    /// damaged.
    fn batch(&mut self, partition: PartitionId, header: &BatchHeader);
    /// Last of all, for a partition that was known to end further on than its last batch: the
    /// records up to `end` are lost, and their offsets stay taken.
    fn end(&mut self, partition: PartitionId, end: Offset);
}

/// A durable home for partitioned logs and small tables.
///
/// INVARIANT: one thread calls `commit`, `commit_snapshot`, `tidy` and `close`. `durable` may run on another one beside
/// `commit`, `check_room` and `wants_snapshot`, and beside nothing else of these. Any thread may read.
pub trait Store: Send + Sync + 'static {
    /// Number of this ownership of the data; higher than that of any earlier owner.
    fn epoch(&self) -> u32;

    /// Identity of the data, for the handshake.
    fn identity(&self) -> String;

    /// Takes a group, atomically and after all earlier ones. It is neither durable nor readable yet, and may not
    /// even be written.
    fn commit(&self, group: CommitGroup) -> Result<CommitSeq, CommitError>;

    /// Sets space aside for a group of about `bytes`, or refuses with [`CommitError::Full`]. Asked before
    /// a group is put together, because a group once decided on must be committed.
    fn check_room(&self, purpose: Purpose, bytes: u64) -> Result<(), CommitError>;

    /// Blocks until every group up to `seq` survives power loss, and makes them readable.
    fn durable(&self, seq: CommitSeq) -> Result<(), CommitError>;

    /// Whether the next group shall be preceded by [`commit_snapshot`](Self::commit_snapshot).
    fn wants_snapshot(&self) -> bool;

    /// Takes all rows of all tables, as they are after every group committed so far.
    fn commit_snapshot(&self, rows: Vec<Row>) -> Result<CommitSeq, CommitError>;

    /// Looks for whole batches from the one that contains `offset`, ending at or before `end`, of
    /// about `bytes_max` bytes (at least one batch), in memory. Never blocks.
    fn lookup(
        &self,
        partition: PartitionId,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Lookup;

    /// As [`lookup`](Self::lookup), from memory or the device. Blocks. Checks the stamp and the
    /// checksum of every batch returned.
    fn read(
        &self,
        partition: PartitionId,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        self.read_telling(partition, offset..end, bytes_max, &mut |_| {})
    }

    /// As [`read`](Self::read). Tells where it is going to end before it touches what it reads, at most
    /// once and only when that is sure but for damage and trims: what follows can be read meanwhile.
    fn read_telling(
        &self,
        partition: PartitionId,
        range: Range<Offset>,
        bytes_max: usize,
        tell: &mut dyn FnMut(Ahead),
    ) -> Result<Vec<Bytes>, ReadError>;

    /// Base offset of the first extent at or after `from` with a record time of `timestamp_ms`
    /// or later. Blocks.
    fn find_time(
        &self,
        partition: PartitionId,
        from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError>;

    /// Visits extents in order from the one that contains `from`, until told to stop. Blocks.
    fn extents(
        &self,
        partition: PartitionId,
        from: Offset,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// The records before `log_start` are dead and may be reclaimed. The row that says so is
    /// durable. `None`: the whole partition is gone for good.
    fn trim(&self, partition: PartitionId, log_start: Option<Offset>);

    /// Looks for live records whose surroundings are mostly dead, and reads a bounded part of them.
    /// Answers whether [`tidy`](Self::tidy) has something to append and there may be more
    /// afterwards. Blocks; one thread at a time.
    fn gather(&self) -> bool;

    /// Called now and then by the thread that commits, between groups: appends what
    /// [`gather`](Self::gather) has read, so that its old place can be reclaimed, or notes that
    /// nothing was committed since the last call. What it appends is durable when it returns.
    fn tidy(&self) -> Result<(), CommitError>;

    /// All partitions that exist, with their log start offsets: whatever else is stored is dead.
    /// Called once, after recovery.
    fn retain(&self, live: &[(PartitionId, Offset)]);

    /// Records that cannot be read.
    fn damage(&self) -> Vec<Damage>;

    /// How much is held.
    fn usage(&self) -> Usage;

    /// Ends background work and leaves a clean-stop marker unless the store had failed. Takes all
    /// rows, as [`commit_snapshot`](Self::commit_snapshot) does. Later commits are refused.
    fn close(&self, rows: Vec<Row>) -> Result<(), CommitError>;
}
