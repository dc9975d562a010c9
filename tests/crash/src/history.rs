//! What clients saw, one fixed-size entry for each operation.
//!
//! Owns the file format and the clock of histories. Promises: an entry reads back as it was written,
//! and a file that was cut is refused. Must not know: what a history proves.
//!
//! ```text
//! file:   "FHIS", u32 version 1, then entries of 40 bytes, little-endian
//! entry:   0  u8 operation        8  u32 publisher     24  u64 invoked, ns
//!          1  u8 outcome         12  u32 sequence      32  u64 completed, ns
//!          2  u16 partition      16  u64 offset
//!          4  u32 actor: the subscriber, the group, or the topic's name by number
//! ```
//!
//! Operations on short-lived topics, and on topics themselves, name the topic by the number of its name.
//! Names have one owner each, so their entries are in the order in which things happened.
//!
//! Of members of groups, `partition` is a [`GroupPlace`]: group, topic and partition in one number, of the
//! log alone where no group is concerned; `actor` is the member, and `value` the epoch, see [`ValueId::epoch`].
#![expect(
    clippy::disallowed_methods,
    reason = "histories are files of the test, outside the broker and its io door"
)]

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

use crate::error::CrashError;

const MAGIC: &[u8; 8] = b"FHIS\x01\0\0\0";
/// Size of an entry in a file.
pub const ENTRY_BYTES: usize = 40;
/// Stands for "no offset": a publish that was not acknowledged, a group that has none stored.
pub const NO_OFFSET: u64 = u64::MAX;

/// Stands for the number of a topic that is not there, or not known.
pub const NO_TOPIC: u32 = u32::MAX;

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Published a value.
    Publish,
    /// Was given a record by a subscription while brokers came and went.
    Read,
    /// The same in the full read after everything, in the order of offsets.
    FinalRead,
    /// Stored the next offset to read.
    Commit,
    /// Asked for the stored offset.
    Fetch,
    /// Created a topic: its number in `value.publisher`, its partitions, its setting in `offset`.
    CreateTopic,
    /// Changed a topic's setting to `offset`.
    AlterTopic,
    /// Deleted a topic.
    DeleteTopic,
    /// Looked for a topic; found what the fields of its creation say, or [`NO_TOPIC`].
    SeeTopic,
    /// Published a value to a short-lived topic.
    TopicPublish,
    /// Was given a record in a read of a whole short-lived topic.
    TopicRead,
    /// Such a read of a partition is over, at `offset`; of unknown outcome: was given up.
    TopicEnd,
    /// A member learned that it owns a partition from now on, under an epoch.
    Own,
    /// It owns it no more: gave it up ([`Outcome::Ok`]), or was told that it lost it ([`Outcome::Failed`]).
    Disown,
    /// A member was given the record at `offset` when this began, and was done with it when this ended.
    Handled,
    /// A member stored the next offset under its epoch, alone or in a step; [`Outcome::Failed`]: refused as stale.
    CommitOwned,
    /// Somebody without part in it asked what a group has stored.
    FetchOwned,
    /// A record that steps published, in the full read after everything.
    Output,
    /// A member ran, as far as the group can tell: from its join, or its waking up, to its freezing or end.
    Alive,
    /// A member's handler did not return.
    Stalled,
    /// There was no broker.
    Down,
    /// The machine itself stood still.
    Hiccup,
    /// A partition is there from now on.
    Exists,
}

/// How it ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Ok,
    /// It did not happen.
    Failed,
    /// It may have happened.
    Unknown,
}

/// A value, unlike any other of a run: who sent it, and its number there, from 0 without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// The publisher; a publisher that starts anew is another one.
    pub publisher: u32,
    /// Place in the order in which it sent.
    pub sequence: u32,
}

impl ValueId {
    /// What a record with bytes that nobody sent is written down as.
    pub const FOREIGN: Self = Self {
        publisher: u32::MAX,
        sequence: u32::MAX,
    };

    /// Holds an epoch instead: its upper and lower half.
    pub const fn of_epoch(epoch: u64) -> Self {
        let bytes = epoch.to_le_bytes();
        let ([low, high], _) = bytes.as_chunks::<4>() else {
            return Self::FOREIGN;
        };
        Self {
            publisher: u32::from_le_bytes(*high),
            sequence: u32::from_le_bytes(*low),
        }
    }

    /// The epoch it holds.
    pub const fn epoch(self) -> u64 {
        (self.publisher as u64) << 32 | self.sequence as u64
    }
}

/// A partition of a topic as a group sees it, in one number.
///
/// LIMIT: 16 groups, 64 topics, 64 partitions each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPlace(pub u16);

impl GroupPlace {
    const GROUP_BITS: u16 = 12;
    const TOPIC_BITS: u16 = 6;
    const LOG: u16 = (1 << Self::GROUP_BITS) - 1;

    /// A partition, of no group in particular.
    pub fn log(topic: u16, partition: u16) -> Self {
        Self((topic << Self::TOPIC_BITS | partition) & Self::LOG)
    }

    /// The same partition for a group.
    #[must_use]
    pub fn of(self, group: u16) -> Self {
        Self(group << Self::GROUP_BITS | self.0 & Self::LOG)
    }

    /// The group.
    pub fn group(self) -> u16 {
        self.0 >> Self::GROUP_BITS
    }

    /// The partition without the group.
    #[must_use]
    pub fn to_log(self) -> Self {
        Self(self.0 & Self::LOG)
    }
}

/// One operation of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it did.
    pub op: Op,
    /// How that ended.
    pub outcome: Outcome,
    /// Where; meaningless for a publish that was not acknowledged. Of a topic: how many it has.
    pub partition: u16,
    /// The subscriber, the group of a commit or fetch, the name of a topic; 0 for a publish.
    pub actor: u32,
    /// The value published or read.
    pub value: ValueId,
    /// The offset acknowledged, read, stored or found.
    pub offset: u64,
    /// When it began, see [`now_ns`].
    pub invoked_ns: u64,
    /// When its end was known.
    pub completed_ns: u64,
}

/// Nanoseconds of the machine's monotonic clock: the same for all processes.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let fields: [&[u8]; 8] = [
            &[op_byte(self.op), outcome_byte(self.outcome)],
            &self.partition.to_le_bytes(),
            &self.actor.to_le_bytes(),
            &self.value.publisher.to_le_bytes(),
            &self.value.sequence.to_le_bytes(),
            &self.offset.to_le_bytes(),
            &self.invoked_ns.to_le_bytes(),
            &self.completed_ns.to_le_bytes(),
        ];
        let all = fields.into_iter().flatten();
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = *from;
        }
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let [op, outcome, ..] = *bytes;
        Some(Self {
            op: op_of(op)?,
            outcome: outcome_of(outcome)?,
            partition: u16::from_le_bytes(part(bytes, 2)),
            actor: u32::from_le_bytes(part(bytes, 4)),
            value: ValueId {
                publisher: u32::from_le_bytes(part(bytes, 8)),
                sequence: u32::from_le_bytes(part(bytes, 12)),
            },
            offset: u64::from_le_bytes(part(bytes, 16)),
            invoked_ns: u64::from_le_bytes(part(bytes, 24)),
            completed_ns: u64::from_le_bytes(part(bytes, 32)),
        })
    }
}

fn part<const N: usize>(bytes: &[u8; ENTRY_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    for (to, from) in part.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    part
}

const fn op_byte(op: Op) -> u8 {
    match op {
        Op::Publish => 1,
        Op::Read => 2,
        Op::FinalRead => 3,
        Op::Commit => 4,
        Op::Fetch => 5,
        Op::CreateTopic => 6,
        Op::AlterTopic => 7,
        Op::DeleteTopic => 8,
        Op::SeeTopic => 9,
        Op::TopicPublish => 10,
        Op::TopicRead => 11,
        Op::TopicEnd => 12,
        Op::Own => 13,
        Op::Disown => 14,
        Op::Handled => 15,
        Op::CommitOwned => 16,
        Op::FetchOwned => 17,
        Op::Output => 18,
        Op::Alive => 19,
        Op::Stalled => 20,
        Op::Down => 21,
        Op::Hiccup => 22,
        Op::Exists => 23,
    }
}

const fn op_of(byte: u8) -> Option<Op> {
    match byte {
        1 => Some(Op::Publish),
        2 => Some(Op::Read),
        3 => Some(Op::FinalRead),
        4 => Some(Op::Commit),
        5 => Some(Op::Fetch),
        6 => Some(Op::CreateTopic),
        7 => Some(Op::AlterTopic),
        8 => Some(Op::DeleteTopic),
        9 => Some(Op::SeeTopic),
        10 => Some(Op::TopicPublish),
        11 => Some(Op::TopicRead),
        12 => Some(Op::TopicEnd),
        13 => Some(Op::Own),
        14 => Some(Op::Disown),
        15 => Some(Op::Handled),
        16 => Some(Op::CommitOwned),
        17 => Some(Op::FetchOwned),
        18 => Some(Op::Output),
        19 => Some(Op::Alive),
        20 => Some(Op::Stalled),
        21 => Some(Op::Down),
        22 => Some(Op::Hiccup),
        23 => Some(Op::Exists),
        _ => None,
    }
}

const fn outcome_byte(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 1,
        Outcome::Failed => 2,
        Outcome::Unknown => 3,
    }
}

const fn outcome_of(byte: u8) -> Option<Outcome> {
    match byte {
        1 => Some(Outcome::Ok),
        2 => Some(Outcome::Failed),
        3 => Some(Outcome::Unknown),
        _ => None,
    }
}

/// Writes a history; what was not [`finish`](Self::finish)ed may be cut.
#[derive(Debug)]
pub struct HistoryWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl HistoryWriter {
    /// Begins a file, replacing what is there.
    pub fn create(path: &Path) -> Result<Self, CrashError> {
        let file = File::create(path).map_err(CrashError::io("create", path))?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)
            .map_err(CrashError::io("write", path))?;
        let path = path.to_path_buf();
        Ok(Self { file, path })
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &Entry) -> Result<(), CrashError> {
        let written = self.file.write_all(&entry.encode());
        written.map_err(CrashError::io("write", &self.path))
    }

    /// Adds an entry that is in the file when this returns, whatever becomes of the process.
    pub fn push_now(&mut self, entry: &Entry) -> Result<(), CrashError> {
        self.push(entry)?;
        let flushed = self.file.flush();
        flushed.map_err(CrashError::io("write", &self.path))
    }

    /// Hands everything to the file.
    pub fn finish(mut self) -> Result<(), CrashError> {
        let flushed = self.file.flush();
        flushed.map_err(CrashError::io("write", &self.path))
    }
}

/// Removes an entry that a killed process had begun to write: what was to follow it has not happened.
pub fn mend(path: &Path) -> Result<(), CrashError> {
    let file = File::options().write(true).open(path);
    let file = file.map_err(CrashError::io("open", path))?;
    let metadata = file.metadata().map_err(CrashError::io("look at", path))?;
    let header = MAGIC.len() as u64;
    let entries = metadata.len().saturating_sub(header) / ENTRY_BYTES as u64;
    if metadata.len() < header {
        return std::fs::write(path, MAGIC).map_err(CrashError::io("write", path));
    }
    file.set_len(header + entries * ENTRY_BYTES as u64)
        .map_err(CrashError::io("cut", path))
}

/// Entries that can be gone through any number of times, in the same order.
pub trait History {
    /// Shows every entry to `visit`.
    fn for_each(&self, visit: &mut dyn FnMut(&Entry)) -> Result<(), CrashError>;
}

impl History for [Entry] {
    fn for_each(&self, visit: &mut dyn FnMut(&Entry)) -> Result<(), CrashError> {
        self.iter().for_each(visit);
        Ok(())
    }
}

/// Files, one after the other.
impl History for [PathBuf] {
    fn for_each(&self, visit: &mut dyn FnMut(&Entry)) -> Result<(), CrashError> {
        self.iter().try_for_each(|path| read(path, visit))
    }
}

fn read(path: &Path, visit: &mut dyn FnMut(&Entry)) -> Result<(), CrashError> {
    let malformed = |what: &str| Err(CrashError::Malformed(format!("{} {what}", path.display())));
    let file = File::open(path).map_err(CrashError::io("open", path))?;
    let metadata = file.metadata().map_err(CrashError::io("look at", path))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0; MAGIC.len()];
    let begun = file.read_exact(&mut magic);
    if begun.is_err() || magic != *MAGIC {
        return malformed("is not a history of version 1");
    }
    let bytes = metadata.len() - MAGIC.len() as u64;
    if !bytes.is_multiple_of(ENTRY_BYTES as u64) {
        return malformed("was cut");
    }
    let mut buffer = [0; ENTRY_BYTES];
    for _ in 0..bytes / ENTRY_BYTES as u64 {
        file.read_exact(&mut buffer)
            .map_err(CrashError::io("read", path))?;
        match Entry::decode(&buffer) {
            Some(entry) => visit(&entry),
            None => return malformed("has an entry of an unknown kind"),
        }
    }
    Ok(())
}
