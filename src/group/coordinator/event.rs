//! What is worth telling people: for the log and for counters.

use falcon_protocol::{MemberId, PartitionId};

/// Something happened in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The group.
    pub group: String,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A member is there that was not.
    Joined(MemberId),
    /// A member said that it goes.
    Left(MemberId, Option<String>),
    /// A member was silent for its session.
    LetGo {
        /// Who.
        member: MemberId,
        /// Its instance name.
        instance: Option<String>,
        /// For how long it was silent, milliseconds.
        silent_ms: u64,
    },
    /// Another member joined under its instance name.
    Replaced {
        /// Who had the name.
        old: MemberId,
        /// Who has it.
        new: MemberId,
        /// The name.
        instance: Option<String>,
    },
    /// A partition was taken away because its owner did not give it up in time.
    Overdue(MemberId, PartitionId),
    /// Who shall have what has changed.
    Retargeted(u64),
    /// So many partitions get no owner: the coordinator holds as many as it may.
    LeftOut(usize),
}
