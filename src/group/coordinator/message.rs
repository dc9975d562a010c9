//! What goes into the coordinator and what comes out.

use std::sync::Arc;

use falcon_protocol::{MemberId, Offset, OwnerEpoch, PartitionId};
use thiserror::Error;

use crate::catalog::Catalog;
use crate::group::assign::Assignor;
use crate::group::pattern::Pattern;

/// Names the call an answer belongs to; chosen by who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A partition under the epoch of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// Which.
    pub partition: PartitionId,
    /// Under which grant.
    pub epoch: OwnerEpoch,
}

/// What every request of a member says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The group.
    pub group: String,
    /// The member.
    pub member: MemberId,
    /// Grows with every request of the member, in all its life.
    pub sequence: u64,
    /// The last sequence whose answer the member took in. It takes in none but that of its last request.
    pub seen: u64,
    /// Everything it holds.
    pub holds: Vec<Hold>,
}

/// What a member wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Name of a static member.
    pub instance: Option<String>,
    /// Topics.
    pub patterns: Vec<Pattern>,
    /// How to share; range only when all members want it.
    pub assignor: Assignor,
    /// How long it may be silent, milliseconds.
    pub session_ms: u64,
}

/// What became of a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceOutcome {
    /// It is durable; with the committed offset that goes with it.
    Durable(Hold, Option<Offset>),
    /// The writer refused it; with the fence that is in force.
    Refused(Hold, OwnerEpoch),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A member joins, comes back, or wants other topics.
    Join(Ticket, Report, Wish),
    /// A member is alive and waits for news.
    Heartbeat(Ticket, Report),
    /// A member goes and holds nothing any more.
    Leave(Ticket, String, MemberId),
    /// Topics changed.
    Catalog(Arc<Catalog>),
    /// A fence is durable; with the committed offset that goes with it.
    Fenced(String, Hold, Option<Offset>),
    /// The writer refused a fence; with the fence that is in force.
    FenceRefused(String, Hold, OwnerEpoch),
    /// Offsets were reset by force, which raised these fences: owners under older epochs have lost them.
    Raised(String, Vec<Hold>),
    /// The group's offsets and fences are deleted. ORDER: told after every fence the writer granted before.
    Deleted(String),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Answer a call. Every ticket is answered once.
    Answer(Ticket, Reply),
    /// Make these fences durable and say so, each.
    Fence(String, Vec<Hold>),
}

/// A partition a member may read from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Which, and the epoch its commits carry.
    pub hold: Hold,
    /// What was committed when the fence became durable.
    pub committed: Option<Offset>,
}

/// News for a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// The request it answers.
    pub sequence: u64,
    /// Grows with each change of the target.
    pub generation: u64,
    /// Held no more: commits are refused. Comes before `granted`.
    pub lost: Vec<Hold>,
    /// To be finished, committed and left out of a later heartbeat.
    pub revoked: Vec<Hold>,
    /// To be read.
    pub granted: Vec<Grant>,
}

/// Answer to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is a member.
    News(News),
    /// It is not: join with what is held.
    UnknownMember,
    /// Another member took its instance name.
    InstanceTaken,
    /// A later request of the member is here already.
    Superseded,
    /// It was let go.
    Left,
    /// It cannot join.
    Refused(JoinError),
}

/// Why a member cannot join.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// Too many groups.
    #[error("the broker has {max} groups with members, the most allowed")]
    TooManyGroups {
        /// The limit.
        max: usize,
    },
    /// Too many members of all groups.
    #[error("the broker has {max} members of groups, the most allowed")]
    NoRoom {
        /// The limit.
        max: usize,
    },
    /// Too many members.
    #[error("the group has {max} members, the most allowed")]
    TooManyMembers {
        /// The limit.
        max: usize,
    },
    /// No pattern, or too many.
    #[error("{given} topic patterns, allowed are 1 to {max}")]
    Patterns {
        /// How many.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// Too long a name.
    #[error("the instance name has {bytes} bytes, allowed are 1 to {max}")]
    InstanceName {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A session out of range.
    #[error("a session of {given_ms} ms, allowed are {min_ms} to {max_ms} ms")]
    Session {
        /// Wanted.
        given_ms: u64,
        /// The shortest.
        min_ms: u64,
        /// The longest.
        max_ms: u64,
    },
}
