//! What can go wrong, and the two questions every error answers: may I retry, and could it have
//! happened anyway?

mod consumer;
mod lost;
mod publish;
mod refusal;
mod step;
mod subscribe;
#[cfg(test)]
mod tests;

use std::time::Duration;

use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use falcon_protocol::ids::NameError;
use thiserror::Error;

pub use consumer::{CommitError, ConsumerError};
pub use lost::{ConnectReason, LostReason};
pub use publish::{PublishError, TrySendError};
pub use refusal::Refusal;
pub use step::StepError;
pub use subscribe::SubscribeError;

/// Why connecting, administration or an offset operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection string could not be read.
    #[error("{address:?} is not a broker address: {reason}; use falcon://HOST:PORT")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No broker could be reached, or none completed the handshake.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address tried last.
        address: String,
        /// What happened there.
        reason: ConnectReason,
    },
    /// The broker refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The broker has no such topic.
    #[error(
        "topic {topic:?} does not exist; create it: falcon topic create {topic} --partitions N"
    )]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic:?} has no partition {partition}; use one below {partitions}")]
    UnknownPartition {
        /// Name of the topic.
        topic: String,
        /// Number asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A name breaks the rules for names.
    #[error("{name:?} cannot be used as a name: {reason}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// An option has a value that is not allowed.
    #[error("{option} is not usable: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection ended while the request was under way.
    #[error("the connection was lost before the broker answered: {0}")]
    Lost(LostReason),
    /// No answer in time.
    #[error(
        "no answer to {operation} within {} ms{}; check the broker, or allow more time",
        after.as_millis(), because(reason.as_ref())
    )]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
        /// Whether the request had been sent.
        outcome: Outcome,
        /// Why there was no connection, where that was the cause.
        reason: Option<LostReason>,
    },
    /// The broker's answer makes no sense to this client.
    #[error(
        "the answer to {operation} cannot be understood; update the older of client and broker"
    )]
    Answer {
        /// What was asked.
        operation: &'static str,
    },
    /// The client was shut down.
    #[error("the client was shut down; connect again to use it")]
    Closed,
}

fn because(reason: Option<&LostReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(" (no connection: {reason})"))
}

impl Error {
    /// Whether the same call may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::InvalidName { .. }
            | Self::InvalidOption { .. }
            | Self::Answer { .. }
            | Self::Closed => false,
            Self::Connect { reason, .. } => reason.is_retryable(),
            Self::Refused(refusal) => refusal.code.retry() != Retry::Never,
            Self::Lost(_) | Self::Timeout { .. } => true,
        }
    }

    /// Whether the request may have taken effect although it failed.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Connect { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::InvalidName { .. }
            | Self::InvalidOption { .. }
            | Self::Closed => false,
            Self::Refused(refusal) => refusal.code.outcome() == Outcome::Unknown,
            Self::Timeout { outcome, .. } => *outcome == Outcome::Unknown,
            Self::Lost(_) | Self::Answer { .. } => true,
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::UnknownTopic { .. } => Some(ErrorCode::UnknownTopic),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Connect { reason, .. } => reason.code(),
            Self::Lost(reason) => reason.code(),
            Self::Timeout { reason, .. } => reason.as_ref().and_then(LostReason::code),
            Self::Address { .. }
            | Self::InvalidName { .. }
            | Self::InvalidOption { .. }
            | Self::Answer { .. }
            | Self::Closed => None,
        }
    }
}
