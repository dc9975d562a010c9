//! What a consumer reports, and why a commit was not stored.

use std::time::Duration;

use falcon_protocol::codes::ErrorCode;
use falcon_protocol::{Offset, Partition};

use super::Error;

/// What [`Consumer::next`](crate::Consumer::next) reports between records, and why a call failed.
///
/// An error does not end the stream. Those that are [final](Self::is_final) come again with each
/// call, until the consumer is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// Another member joined under this instance name. Final.
    #[error(
        "another consumer joined as {instance:?}; stop one of the two, or give each its own name"
    )]
    InstanceTaken {
        /// The instance name.
        instance: String,
    },
    /// A newer consumer of the same `publisher_id` took over: no step succeeds any more. Final.
    #[error("a newer consumer of the same publisher id has taken over; stop this one")]
    Fenced,
    /// The broker refuses the membership as such: a name or pattern that is not allowed. Final.
    #[error("the group cannot be joined: {0}")]
    Refused(Error),
    /// The application took no record for `max_poll_interval` although there were some. Its
    /// partitions were given up, and are asked for again with the next call.
    #[error(
        "no record was taken for {} ms, the last was {offset} of partition {partition} of {topic:?}; its partitions were given up",
        after.as_millis()
    )]
    PollTooSlow {
        /// Topic of the record handed out last.
        topic: String,
        /// Its partition.
        partition: Partition,
        /// Its offset.
        offset: Offset,
        /// How long nothing was taken.
        after: Duration,
    },
    /// The consumer does not hold the partition.
    #[error("partition {partition} of {topic:?} is not assigned to this consumer")]
    NotAssigned {
        /// Name of the topic.
        topic: String,
        /// The partition.
        partition: Partition,
    },
    /// A commit was not stored.
    #[error("{0}")]
    Commit(CommitError),
    /// The consumer was closed, or the client shut down. Final.
    #[error("the consumer is closed; join again")]
    Closed,
    /// A request failed.
    #[error("{0}")]
    Client(Error),
}

impl ConsumerError {
    /// Whether every later call ends like this one.
    pub fn is_final(&self) -> bool {
        match self {
            Self::InstanceTaken { .. } | Self::Fenced | Self::Refused(_) | Self::Closed => true,
            Self::PollTooSlow { .. }
            | Self::NotAssigned { .. }
            | Self::Commit(_)
            | Self::Client(_) => false,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InstanceTaken { .. } | Self::Fenced | Self::Refused(_) | Self::Closed => false,
            Self::PollTooSlow { .. } | Self::NotAssigned { .. } => true,
            Self::Commit(error) => error.is_retryable(),
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// Whether what failed may have taken effect all the same.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::InstanceTaken { .. }
            | Self::Fenced
            | Self::Closed
            | Self::PollTooSlow { .. }
            | Self::NotAssigned { .. } => false,
            Self::Commit(error) => error.may_have_happened(),
            Self::Refused(error) | Self::Client(error) => error.may_have_happened(),
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::InstanceTaken { .. } => Some(ErrorCode::InstanceTaken),
            Self::Fenced => Some(ErrorCode::ProducerFenced),
            Self::Commit(error) => error.code(),
            Self::Refused(error) | Self::Client(error) => error.code(),
            Self::Closed | Self::PollTooSlow { .. } | Self::NotAssigned { .. } => None,
        }
    }
}

impl From<Error> for ConsumerError {
    fn from(error: Error) -> Self {
        if error == Error::Closed {
            return Self::Closed;
        }
        Self::Client(error)
    }
}

/// Why an offset was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The partition was taken from this consumer since the record was handed out; whoever has it
    /// now is given the record again.
    #[error(
        "partition {partition} of {topic:?} was taken from this consumer; its new owner reads the record again"
    )]
    StaleOwner {
        /// Name of the topic.
        topic: String,
        /// The partition.
        partition: Partition,
    },
    /// Inside `run`: an earlier record of the partition is not finished, and the commit would skip
    /// it.
    #[error(
        "record {first} of partition {partition} of {topic:?} is not finished, and the commit would skip it; use Order::Partition"
    )]
    SkipsUnfinished {
        /// Name of the topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The first record that is not finished.
        first: Offset,
    },
    /// The record was not handed out by this consumer.
    #[error("the record of {topic:?} was not handed out by this consumer")]
    NotDelivered {
        /// Name of its topic.
        topic: String,
    },
    /// The consumer was closed, or the client shut down.
    #[error("the consumer is closed; join again")]
    Closed,
    /// The request failed.
    #[error("{0}")]
    Client(Error),
}

impl CommitError {
    /// Whether the same commit may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StaleOwner { .. } | Self::NotDelivered { .. } | Self::Closed => false,
            Self::SkipsUnfinished { .. } => true,
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// Whether the offset may have been stored all the same.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::StaleOwner { .. }
            | Self::NotDelivered { .. }
            | Self::Closed
            | Self::SkipsUnfinished { .. } => false,
            Self::Client(error) => error.may_have_happened(),
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::StaleOwner { .. } => Some(ErrorCode::StaleOwner),
            Self::Client(error) => error.code(),
            Self::NotDelivered { .. } | Self::Closed | Self::SkipsUnfinished { .. } => None,
        }
    }
}

impl From<Error> for CommitError {
    fn from(error: Error) -> Self {
        if error == Error::Closed {
            return Self::Closed;
        }
        Self::Client(error)
    }
}

impl From<CommitError> for ConsumerError {
    fn from(error: CommitError) -> Self {
        if error == CommitError::Closed {
            return Self::Closed;
        }
        Self::Commit(error)
    }
}
