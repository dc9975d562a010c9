//! Control messages of consumer groups. The order of fields and variants is the wire format: never
//! change it within a protocol version.

use serde::{Deserialize, Serialize};

use crate::ids::{MemberId, Offset, OwnerEpoch, PartitionId};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        )*
    };
}

messages! {
    /// A member joins, comes back with what it holds, or wants other topics. Answer: [`GroupNews`], at once.
    JoinGroup {
        /// Who it is and what it holds.
        report: GroupReport,
        /// Name of a static member: a join under a name that is taken takes its place over.
        instance: Option<String>,
        /// Topic patterns, 1 to 64.
        patterns: Vec<String>,
        /// How the partitions are shared; `Range` only when all members want it.
        assignor: AssignorKind,
        /// How long it may be silent before it is let go, milliseconds, 1,000 to 600,000.
        session_ms: u64,
    }
    /// What every request of a member says; alone it is a heartbeat, whose answer, [`GroupNews`], comes
    /// when there is news, else after a third of the session.
    GroupReport {
        /// The group.
        group: String,
        /// The member.
        member: MemberId,
        /// Grows with every request of the member, in all its life.
        sequence: u64,
        /// The last sequence whose answer the member took in. It takes in none but that of its last request.
        seen: u64,
        /// Everything it holds.
        holds: Vec<GroupHold>,
        /// How far it is, for people; any part of what it holds.
        progress: Vec<GroupProgress>,
    }
    /// A partition under the epoch of one grant.
    GroupHold {
        /// Which.
        partition: PartitionId,
        /// Under which grant.
        epoch: OwnerEpoch,
    }
    /// What a member does with a partition.
    GroupProgress {
        /// Which.
        partition: PartitionId,
        /// The next offset its application is given.
        position: Offset,
        /// What it does.
        activity: Activity,
        /// For how long, milliseconds.
        since_ms: u64,
    }
    /// News for a member.
    GroupNews {
        /// The request it answers.
        sequence: u64,
        /// Grows with each change of who shall have what.
        generation: u64,
        /// Held no more: commits are refused. To be applied before `granted`.
        lost: Vec<GroupHold>,
        /// To be finished, committed, and left out of a later report.
        revoked: Vec<GroupHold>,
        /// To be read from now on.
        granted: Vec<GroupGrant>,
    }
    /// A partition that a member may read from now on.
    GroupGrant {
        /// Which, and the epoch its commits carry.
        hold: GroupHold,
        /// Name of the topic.
        topic: String,
        /// The group's committed offset when the grant became durable.
        committed: Option<Offset>,
    }
    /// A member goes and holds nothing any more. Answer: [`Empty`](super::Empty).
    LeaveGroup {
        /// The group.
        group: String,
        /// The member.
        member: MemberId,
    }
    /// Stores offsets of partitions that a member holds, all or nothing. Answer: [`Empty`](super::Empty),
    /// once durable.
    CommitOwned {
        /// The group.
        group: String,
        /// What to store; no partition twice.
        offsets: Vec<OwnedCommit>,
    }
    /// The next offset to read, from the owner of the partition.
    OwnedCommit {
        /// Which, and the epoch of its grant.
        hold: GroupHold,
        /// The next offset to read, at most the high watermark.
        offset: Offset,
        /// Whether it may be lower than what is stored; else the higher one stays, which is no error.
        may_rewind: bool,
        /// Anything, at most 256 bytes.
        note: String,
    }
    /// Stores offsets of a group without being its member, lower ones too. Answer:
    /// [`Empty`](super::Empty), once durable. Refused with `group_active` while the group has members, but
    /// with `is_forced`: then who holds the partitions loses them, and reads on from here.
    ResetOffsets {
        /// The group.
        group: String,
        /// What to store.
        offsets: Vec<super::OffsetCommit>,
        /// Although it has members.
        is_forced: bool,
    }
    /// Forgets a group: its offsets and who owned what. Answer: [`Empty`](super::Empty), once durable.
    /// Refused with `group_active` while the group has members, but with `is_forced`: then they lose
    /// everything and join anew.
    DeleteGroup {
        /// The group.
        group: String,
        /// Although it has members.
        is_forced: bool,
    }
    /// Asks for groups with members or offsets, after a name. Answer: [`GroupSummaryPage`].
    SummarizeGroups {
        /// Only names behind this one; `None`: from the first.
        after: Option<String>,
        /// At most this many, 1..=1000.
        rows_max: u32,
    }
    /// Groups in order of their names.
    GroupSummaryPage {
        /// The groups.
        groups: Vec<GroupSummary>,
        /// Whether there are more behind the last.
        has_more: bool,
    }
    /// A group in a line.
    GroupSummary {
        /// Its name.
        group: String,
        /// Members it has.
        members: u32,
        /// Partitions with a committed offset.
        offsets: u32,
        /// High watermarks minus committed offsets, in all.
        lag: u64,
    }
    /// Asks for a group's members, after a member. Answer: [`GroupDescription`].
    DescribeGroup {
        /// The group.
        group: String,
        /// Only members behind this one; `None`: from the first.
        after: Option<MemberId>,
        /// At most this many, 1..=1000.
        rows_max: u32,
    }
    /// A group's members in order of their ids.
    GroupDescription {
        /// Grows with each change of who shall have what; 0 without members.
        generation: u64,
        /// The members.
        members: Vec<GroupMember>,
        /// Whether there are more behind the last.
        has_more: bool,
    }
    /// A member.
    GroupMember {
        /// Its id.
        member: MemberId,
        /// Name of a static member.
        instance: Option<String>,
        /// The client's name of its handshake.
        client: String,
        /// Where it is connected from.
        address: String,
        /// Topic patterns with commas between, cut after 256 bytes.
        patterns: String,
        /// How it wants partitions to be shared.
        assignor: AssignorKind,
        /// How long it may be silent, milliseconds.
        session_ms: u64,
        /// How long ago it was heard, milliseconds.
        silent_ms: u64,
        /// Partitions it holds.
        partitions: u32,
    }
    /// Asks for a group's partitions, after a partition: those with a committed offset, and those that a
    /// member wants. Answer: [`GroupPartitionPage`].
    ListGroupPartitions {
        /// The group.
        group: String,
        /// Only partitions behind this one; `None`: from the first.
        after: Option<PartitionId>,
        /// At most this many, 1..=1000.
        rows_max: u32,
    }
    /// A group's partitions by topic number and partition.
    GroupPartitionPage {
        /// The partitions.
        partitions: Vec<GroupPartition>,
        /// Whether there are more behind the last.
        has_more: bool,
    }
    /// How a partition of a group stands.
    GroupPartition {
        /// Name of the topic.
        topic: String,
        /// Which.
        partition: PartitionId,
        /// Who has it.
        standing: Standing,
        /// What the owner last said of it.
        progress: Option<GroupProgress>,
        /// The committed offset.
        committed: Option<Offset>,
        /// First offset still kept.
        log_start: Offset,
        /// First offset not yet durable: lag is this minus `committed`.
        high_watermark: Offset,
        /// How long ago the record at the committed offset was appended, milliseconds; `None` when there is
        /// none, or it is not known.
        lag_ms: Option<u64>,
        /// First damaged range at or behind the committed offset: its first offset and the one after it.
        damaged: Option<(Offset, Offset)>,
    }
}

/// How a group's partitions are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AssignorKind {
    /// Equal shares, and as little as possible moves.
    #[default]
    Sticky,
    /// Runs of partitions of each topic.
    Range,
}

/// What a member does with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// It waits for records.
    Reading,
    /// The application has records and has not finished them.
    Handling,
    /// Records are there that the application does not take, so nothing more is asked for.
    Full,
    /// The application paused it.
    Paused,
    /// The records from this offset up to the other are damaged.
    Damaged(Offset, Offset),
    /// Reading fails with this error code, and is tried again.
    Failing(u16),
}

/// Who has a partition of a group, or why nobody has. Times are milliseconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// No member wants it, or there is none.
    Unwanted,
    /// It waits for who may hold it from before, or for a refused fence to be tried again.
    Waiting {
        /// Who shall have it.
        target: MemberId,
        /// How long at most.
        for_ms: u64,
    },
    /// The fence is not durable yet.
    Fencing {
        /// For how long already.
        since_ms: u64,
    },
    /// Granted, but the member has not taken it in.
    Granted {
        /// To whom.
        owner: MemberId,
        /// Under which epoch.
        epoch: OwnerEpoch,
    },
    /// Held by who shall have it.
    Held {
        /// By whom.
        owner: MemberId,
        /// Under which epoch.
        epoch: OwnerEpoch,
    },
    /// The owner finishes what it has begun.
    GivingUp {
        /// Who has it.
        owner: MemberId,
        /// Who shall have it.
        target: Option<MemberId>,
        /// When it is taken away.
        for_ms: u64,
    },
}
