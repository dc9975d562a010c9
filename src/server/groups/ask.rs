//! What the coordinator's task can be asked.

use std::sync::Arc;

use falcon_protocol::message::{GroupMember, GroupProgress};
use falcon_protocol::{MemberId, PartitionId};
use tokio::sync::oneshot;

use crate::group::coordinator::{Reply, Report, Standing, Wish};
use crate::server::connection::Origin;
use crate::writer::{CommitOffsets, OffsetsError};

/// A question, and when it came.
#[derive(Debug)]
pub(super) struct Asked {
    /// On the monotonic clock, milliseconds.
    pub(super) at: u64,
    pub(super) ask: Ask,
}

/// A question.
#[derive(Debug)]
pub(super) enum Ask {
    /// Of a member; an answer that nobody waits for any more is dropped.
    Member(Said, oneshot::Sender<Reply>),
    /// A group's members behind one, at most so many.
    Members(String, Option<MemberId>, usize, oneshot::Sender<Members>),
    /// How a group's partitions behind one stand, at most so many.
    Standings(
        String,
        Option<PartitionId>,
        usize,
        oneshot::Sender<Standings>,
    ),
    /// Change what is stored of a group, although it has members if that is said.
    Change(Change, bool, oneshot::Sender<Result<(), ChangeError>>),
}

/// What a member says.
#[derive(Debug)]
pub(super) enum Said {
    Join(Report, Wish, Spoken),
    Heartbeat(Report, Spoken),
    Leave(String, MemberId),
}

/// Who says it, and how far it is.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) origin: Arc<Origin>,
    pub(super) progress: Vec<GroupProgress>,
}

/// A change from outside of a group.
#[derive(Debug)]
pub(super) enum Change {
    Reset(CommitOffsets),
    Delete(String),
}

impl Change {
    pub(super) fn group(&self) -> &str {
        match self {
            Self::Reset(commit) => &commit.group,
            Self::Delete(group) => group,
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub(in crate::server) enum ChangeError {
    /// The group has members.
    Active,
    /// The writer refused it.
    Offsets(OffsetsError),
}

/// Members of a group.
#[derive(Debug)]
pub(super) struct Members {
    /// Whether anything is known of the group.
    pub(super) is_known: bool,
    pub(super) generation: u64,
    pub(super) rows: Vec<GroupMember>,
    pub(super) has_more: bool,
}

/// Partitions of a group that a member wants or has.
#[derive(Debug)]
pub(super) struct Standings {
    /// Whether anything is known of the group.
    pub(super) is_known: bool,
    /// By what clock the times are told.
    pub(super) now: u64,
    pub(super) rows: Vec<(PartitionId, Standing, Option<GroupProgress>)>,
}
