//! What goes into a member and what comes out.

use falcon_protocol::ErrorCode;
use falcon_protocol::message::{
    AssignorKind, GroupGrant, GroupHold, GroupNews, GroupReport, JoinGroup, LeaveGroup,
};

/// What a member wants; the fields of [`JoinGroup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Name of a static member.
    pub instance: Option<String>,
    /// Topic patterns.
    pub patterns: Vec<String>,
    /// How partitions are shared.
    pub assignor: AssignorKind,
    /// How long it may be silent, milliseconds.
    pub session_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The request with this sequence was answered, or never will be.
    Answered(u64, Answer),
    /// It wants something else.
    Wish(Wish),
    /// A revoked partition is finished: nothing is read or handled, all is committed.
    Released(GroupHold),
    /// A commit was refused with `stale_owner` because of this one.
    Stale(GroupHold),
    /// Go. What is still held is lost; give it up properly before.
    Leave,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Answer to a join or a heartbeat.
    News(GroupNews),
    /// Answer to a leave.
    Left,
    /// `unknown_member`.
    UnknownMember,
    /// `superseded`.
    Superseded,
    /// `instance_taken`.
    InstanceTaken,
    /// Refused for a reason that passes, the connection was lost, or it took too long.
    Failed,
    /// Refused for good.
    Refused(ErrorCode),
}

/// What is to be done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send it; fill in `report.progress`. It replaces any earlier request, whose answer does not matter any more.
    Join(JoinGroup),
    /// Send it, likewise.
    Heartbeat(GroupReport),
    /// Send it, likewise; its answer is told with this sequence.
    Leave(u64, LeaveGroup),
    /// The group counts it as a member.
    Joined,
    /// The broker does not know it any more; it joins again with what it holds.
    Rejoining,
    /// No answer for a session: others may have its partitions by now. It goes on, and commits will tell.
    Unconfirmed,
    /// The broker answered after all, and what it did not take away is held still.
    Confirmed,
    /// To be read from now on, from `committed`.
    Granted(GroupGrant),
    /// Stop reading, finish what was begun, commit, then say [`Input::Released`].
    Revoke(GroupHold),
    /// Not held any more: stop at once and drop what was read. Commits would be refused.
    Lost(GroupHold),
    /// Likewise, after [`Input::Stale`].
    Fenced(GroupHold),
    /// Nothing more comes.
    Ended(End),
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It left.
    Left,
    /// Another process joined under its instance name.
    InstanceTaken,
    /// The broker refused for good.
    Refused(ErrorCode),
}
