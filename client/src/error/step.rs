//! Why a step did not happen.

use std::time::Duration;

use falcon_protocol::batch::PushError;
use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use falcon_protocol::{Offset, Partition};

use super::{CommitError, Error, Refusal};

/// Why an atomic step did not happen, or why that is not known. Either all of a step happened or
/// nothing.
///
/// `is_uncertain` in a variant says that an attempt may have been stored, because its answer was
/// lost: [`may_have_happened`](Self::may_have_happened).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// A partition's next offset is not the one expected.
    #[error(
        "the next offset of a partition of {topic:?} is {next}, not the one expected; read what was appended and decide anew"
    )]
    OffsetMismatch {
        /// Name of the topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The offset the next record will get.
        next: Offset,
        /// Whether an earlier attempt of the step may have been stored.
        is_uncertain: bool,
    },
    /// The commit is not possible.
    #[error("{0}")]
    Commit(CommitError),
    /// A newer publisher of the same name took over.
    #[error("a newer publisher of the same name has taken over; stop this one")]
    Fenced {
        /// Whether an earlier attempt of the step may have been stored.
        is_uncertain: bool,
    },
    /// Nothing is in it.
    #[error("the step is empty; give it a record or a commit")]
    Empty,
    /// A record breaks a rule, or is larger than the broker accepts.
    #[error("a record of the step cannot be sent: {0}")]
    InvalidRecord(PushError),
    /// It does not fit into one frame, or the records of a partition not into one batch.
    #[error("the step needs {bytes} bytes, at most {max} are allowed; make it smaller")]
    TooLarge {
        /// Bytes it needs, as far as they were counted.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It writes to more partitions than a step may.
    #[error("the step writes to {partitions} partitions, at most {max} are allowed")]
    TooManyPartitions {
        /// How many.
        partitions: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The broker refused it.
    #[error("{refusal}")]
    Refused {
        /// What it said.
        refusal: Refusal,
        /// Whether an attempt before that may have been stored.
        is_uncertain: bool,
    },
    /// Not acknowledged in time.
    #[error(
        "not acknowledged within {} ms, last: {last}; check the broker, or allow more time",
        after.as_millis()
    )]
    Timeout {
        /// How long was waited.
        after: Duration,
        /// What stood in the way last.
        last: String,
        /// Whether an attempt may have been stored.
        is_uncertain: bool,
    },
    /// The client was shut down before the step was acknowledged.
    #[error("the client was shut down before the step was acknowledged")]
    Abandoned {
        /// Whether an attempt may have been stored.
        is_uncertain: bool,
    },
    /// Something before sending failed.
    #[error("{0}")]
    Client(Error),
}

impl StepError {
    /// Whether the same step may succeed later. When
    /// [`may_have_happened`](Self::may_have_happened) too, that may do it twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OffsetMismatch { .. }
            | Self::Fenced { .. }
            | Self::Empty
            | Self::InvalidRecord(_)
            | Self::TooLarge { .. }
            | Self::TooManyPartitions { .. }
            | Self::Abandoned { .. } => false,
            Self::Commit(error) => error.is_retryable(),
            Self::Timeout { .. } => true,
            // A sequence problem is the lane's own, and it is not used again.
            Self::Refused { refusal, .. } => {
                refusal.code.retry() != Retry::Never || refusal.code == ErrorCode::OutOfSequence
            }
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// Whether the step may have happened although this error is reported.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Empty
            | Self::InvalidRecord(_)
            | Self::TooLarge { .. }
            | Self::TooManyPartitions { .. }
            | Self::Commit(_)
            | Self::Client(_) => false,
            Self::OffsetMismatch { is_uncertain, .. }
            | Self::Fenced { is_uncertain }
            | Self::Timeout { is_uncertain, .. }
            | Self::Abandoned { is_uncertain } => *is_uncertain,
            Self::Refused {
                refusal,
                is_uncertain,
            } => *is_uncertain || refusal.code.outcome() == Outcome::Unknown,
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::OffsetMismatch { .. } => Some(ErrorCode::OffsetMismatch),
            Self::Fenced { .. } => Some(ErrorCode::ProducerFenced),
            Self::Refused { refusal, .. } => Some(refusal.code),
            Self::Commit(error) => error.code(),
            Self::Client(error) => error.code(),
            Self::Empty
            | Self::InvalidRecord(_)
            | Self::TooLarge { .. }
            | Self::TooManyPartitions { .. }
            | Self::Timeout { .. }
            | Self::Abandoned { .. } => None,
        }
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}
