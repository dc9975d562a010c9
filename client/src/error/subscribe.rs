//! Why a subscription could not be opened, or what happened to it.

use core::ops::Range;

use falcon_protocol::codes::{ErrorCode, Retry};
use falcon_protocol::{BatchError, Offset, Partition};

use super::{Error, Refusal};

/// Why a subscription could not be opened, or what a stream reports between records.
///
/// An error in the stream does not end it: other partitions go on, and so does this one where the
/// variant says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Retention overtook the position, or the offset asked for does not exist. Goes on as
    /// [`on_out_of_range`](crate::SubscriptionBuilder::on_out_of_range) says.
    #[error(
        "offset {position} of partition {partition} is not there, it has {}..={}; start at one of these, or at earliest or latest",
        available.start, available.end
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: Partition,
        /// Where the subscription stood.
        position: Offset,
        /// Log start offset and high watermark.
        available: Range<Offset>,
    },
    /// The broker's disk lost these records. The partition ends here.
    #[error(
        "records {}..{} of partition {partition} are damaged on the broker's disk; subscribe from {} to skip them, and run falcon verify",
        range.start, range.end, range.end
    )]
    DamagedRange {
        /// The partition.
        partition: Partition,
        /// The offsets that cannot be read.
        range: Range<Offset>,
    },
    /// A batch arrived that is not what the broker stored. The partition ends here.
    #[error(
        "what arrived for offset {position} of partition {partition} is damaged: {damage}; subscribe again from there"
    )]
    Corrupt {
        /// The partition.
        partition: Partition,
        /// The record that was due.
        position: Offset,
        /// What is wrong with the batch.
        damage: BatchError,
    },
    /// Records are missing between what was read and what arrived. The partition ends here.
    #[error(
        "records {}..{} of partition {partition} did not arrive; subscribe again from {}",
        missing.start, missing.end, missing.start
    )]
    Gap {
        /// The partition.
        partition: Partition,
        /// The offsets that are missing.
        missing: Range<Offset>,
    },
    /// The broker ended a partition of the subscription for another reason.
    #[error("partition {partition} ended: {refusal}")]
    PartitionEnded {
        /// The partition.
        partition: Partition,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The topic was deleted, and perhaps created anew: its offsets mean something else now.
    #[error("topic {topic:?} was deleted; subscribe again if there is a new one of this name")]
    TopicDeleted {
        /// Its name.
        topic: String,
    },
    /// A record could not be decoded by the topic's codec. The partition goes on behind it.
    #[error("record {offset} of partition {partition} cannot be decoded: {reason}")]
    Decode {
        /// The partition.
        partition: Partition,
        /// The record.
        offset: Offset,
        /// What the codec said.
        reason: String,
    },
    /// Every partition of the subscription has ended; reported once.
    #[error(
        "no partition of the subscription is left; see the errors before this, and subscribe again"
    )]
    NothingLeft,
    /// The subscription could not be opened or renewed.
    #[error("{0}")]
    Client(Error),
}

impl SubscribeError {
    /// Whether subscribing again from the same position may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OffsetOutOfRange { .. }
            | Self::DamagedRange { .. }
            | Self::TopicDeleted { .. }
            | Self::Decode { .. }
            | Self::NothingLeft => false,
            Self::Corrupt { .. } | Self::Gap { .. } => true,
            Self::PartitionEnded { refusal, .. } => refusal.code.retry() != Retry::Never,
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// Always false: reading changes nothing. Here so that all errors can be asked alike.
    pub const fn may_have_happened(&self) -> bool {
        match self {
            Self::OffsetOutOfRange { .. }
            | Self::DamagedRange { .. }
            | Self::Corrupt { .. }
            | Self::Gap { .. }
            | Self::PartitionEnded { .. }
            | Self::TopicDeleted { .. }
            | Self::Decode { .. }
            | Self::NothingLeft
            | Self::Client(_) => false,
        }
    }

    /// The broker's error code, where the broker said one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::OffsetOutOfRange { .. } => Some(ErrorCode::OffsetOutOfRange),
            Self::DamagedRange { .. } => Some(ErrorCode::DamagedRange),
            Self::PartitionEnded { refusal, .. } => Some(refusal.code),
            Self::TopicDeleted { .. } => Some(ErrorCode::UnknownTopic),
            Self::Client(error) => error.code(),
            Self::Corrupt { .. } | Self::Gap { .. } | Self::Decode { .. } | Self::NothingLeft => {
                None
            }
        }
    }
}

impl From<Error> for SubscribeError {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}
