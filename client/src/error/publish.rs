//! Why a record was not published.

use std::time::Duration;

use falcon_protocol::batch::PushError;
use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use falcon_protocol::{Partition, Record};

use super::{Error, LostReason, Refusal};

/// Why a record was not published, or why that is not known.
///
/// `is_uncertain` in a variant says that an earlier attempt may have been stored, because its
/// answer was lost: [`may_have_happened`](Self::may_have_happened).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Larger than the broker accepts in one batch.
    #[error(
        "the record needs {bytes} bytes, at most {max} are allowed; send a smaller one, or raise limits.batch_bytes_max"
    )]
    RecordTooLarge {
        /// Bytes of a batch with this record alone.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The record breaks a rule.
    #[error("the record cannot be sent: {0}")]
    InvalidRecord(PushError),
    /// The topic has no such partition.
    #[error("the topic has no partition {partition}; use one below {partitions}")]
    UnknownPartition {
        /// Number asked for.
        partition: Partition,
        /// How many there are.
        partitions: u32,
    },
    /// The value could not be encoded by the topic's codec.
    #[error("the value cannot be encoded: {reason}")]
    Encode {
        /// What the codec said.
        reason: String,
    },
    /// The window stayed full for the time allowed.
    #[error(
        "the publish window stayed full for {} ms; wait longer, raise window_bytes, or publish slower",
        after.as_millis()
    )]
    WindowFull {
        /// How long was waited.
        after: Duration,
    },
    /// The broker refused the batch.
    #[error("{refusal}")]
    Refused {
        /// What it said.
        refusal: Refusal,
        /// Whether an attempt before that may have been stored.
        is_uncertain: bool,
    },
    /// The connection ended before the answer, and without idempotence it is not sent again.
    #[error(
        "the connection was lost before the broker answered: {0}; it may have been stored (an idempotent publisher finds out)"
    )]
    Lost(LostReason),
    /// Not acknowledged within the publisher's delivery timeout.
    #[error(
        "not acknowledged within {} ms, last: {last}; check the broker, or raise delivery_timeout",
        after.as_millis()
    )]
    DeliveryTimeout {
        /// The delivery timeout.
        after: Duration,
        /// What stood in the way last.
        last: String,
        /// Whether an attempt may have been stored.
        is_uncertain: bool,
    },
    /// An earlier batch of the partition failed while this one was under way behind it.
    #[error("an earlier batch of the partition failed with this one under way: {cause}")]
    EarlierFailed {
        /// What happened to the earlier one.
        cause: Box<PublishError>,
    },
    /// A newer publisher of the same name took over.
    #[error("a newer publisher of the same name has taken over; stop this one")]
    Fenced {
        /// Whether an attempt may have been stored.
        is_uncertain: bool,
    },
    /// The publisher was closed.
    #[error("the publisher is closed; build another one")]
    Closed,
    /// The client was shut down before the record was acknowledged.
    #[error("the client was shut down before the record was acknowledged")]
    Abandoned {
        /// Whether an attempt may have been stored.
        is_uncertain: bool,
    },
    /// A step before publishing failed.
    #[error("{0}")]
    Client(Error),
}

impl PublishError {
    /// Whether sending the same record again may succeed. When
    /// [`may_have_happened`](Self::may_have_happened) too, that may store it twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RecordTooLarge { .. }
            | Self::InvalidRecord(_)
            | Self::UnknownPartition { .. }
            | Self::Encode { .. }
            | Self::Fenced { .. }
            | Self::Closed
            | Self::Abandoned { .. } => false,
            Self::WindowFull { .. }
            | Self::Lost(_)
            | Self::DeliveryTimeout { .. }
            | Self::EarlierFailed { .. } => true,
            // A sequence problem is the publisher's own, and it has repaired itself.
            Self::Refused { refusal, .. } => {
                refusal.code.retry() != Retry::Never || refusal.code == ErrorCode::OutOfSequence
            }
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// Whether the record may have been stored although this error is reported.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::RecordTooLarge { .. }
            | Self::InvalidRecord(_)
            | Self::UnknownPartition { .. }
            | Self::Encode { .. }
            | Self::WindowFull { .. }
            | Self::Closed => false,
            Self::Lost(_) | Self::EarlierFailed { .. } => true,
            Self::Refused {
                refusal,
                is_uncertain,
            } => *is_uncertain || refusal.code.outcome() == Outcome::Unknown,
            Self::DeliveryTimeout { is_uncertain, .. }
            | Self::Fenced { is_uncertain }
            | Self::Abandoned { is_uncertain } => *is_uncertain,
            Self::Client(error) => error.may_have_happened(),
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.code),
            Self::Fenced { .. } => Some(ErrorCode::ProducerFenced),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Lost(reason) => reason.code(),
            Self::EarlierFailed { cause } => cause.code(),
            Self::Client(error) => error.code(),
            Self::RecordTooLarge { .. }
            | Self::InvalidRecord(_)
            | Self::Encode { .. }
            | Self::WindowFull { .. }
            | Self::DeliveryTimeout { .. }
            | Self::Closed
            | Self::Abandoned { .. } => None,
        }
    }
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        if error == Error::Closed {
            return Self::Closed;
        }
        Self::Client(error)
    }
}

impl From<PushError> for PublishError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::RecordTooLarge { bytes, max } => Self::RecordTooLarge { bytes, max },
            other @ (PushError::Full
            | PushError::TooManyHeaders { .. }
            | PushError::HeaderNameTooLong { .. }) => Self::InvalidRecord(other),
        }
    }
}

/// Why a record was not taken at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The window is full; here is the record back.
    #[error("the publish window is full; wait for acknowledgements, or use send")]
    Full(Record),
    /// The record cannot be sent.
    #[error("{0}")]
    Failed(PublishError),
}

impl TrySendError {
    /// Whether sending the same record again may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Failed(error) => error.is_retryable(),
        }
    }

    /// Whether the record may have been stored: never when it was not taken.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Full(_) => false,
            Self::Failed(error) => error.may_have_happened(),
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Full(_) => None,
            Self::Failed(error) => error.code(),
        }
    }
}
