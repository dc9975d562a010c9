//! The only map from errors to codes on the wire.

use bytes::Bytes;
use falcon_protocol::message::{ErrorBody, MessageError};
use falcon_protocol::wire::WireError;
use falcon_protocol::{BatchError, ErrorCode, FrameError};

use super::groups::ChangeError;
use crate::group::coordinator::{JoinError, News, Reply};
use crate::group::pattern::PatternError;
use crate::metrics::Rejection;
use crate::partition::AdmitError;
use crate::reader::ReadFailure;
use crate::writer::{
    JournalError, OffsetsError, ProducerError, PublishError, QueueClosed, StepError, TopicError,
};

/// Suggested wait when something is full or draining.
const RETRY_AFTER_MS: u32 = 250;

/// An error code and what is said with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) body: ErrorBody,
    /// The decision against the peer that it stands for, if it is one.
    pub(super) rejection: Option<Rejection>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            body: ErrorBody::text(text),
            rejection: rejection_of(code),
        }
    }

    /// Says more exactly than the code what the peer did.
    pub(super) fn because(mut self, rejection: Rejection) -> Self {
        self.rejection = Some(rejection);
        self
    }

    /// A code whose own text says everything.
    pub(super) fn of(code: ErrorCode) -> Self {
        Self::new(code, code.text())
    }

    /// The news in the coordinator's reply; `None` when there is nothing to say but yes.
    pub(super) fn of_reply(reply: Reply) -> Result<Option<News>, Self> {
        Err(match reply {
            Reply::News(news) => return Ok(Some(news)),
            Reply::Left => return Ok(None),
            Reply::UnknownMember => Self::of(ErrorCode::UnknownMember),
            Reply::InstanceTaken => Self::of(ErrorCode::InstanceTaken),
            Reply::Superseded => Self::of(ErrorCode::Superseded),
            Reply::Refused(error) => error.into(),
        })
    }

    pub(super) fn range(mut self, low: u64, high: u64) -> Self {
        (self.body.low, self.body.high) = (low, high);
        self
    }

    pub(super) fn partition(mut self, partition: falcon_protocol::Partition) -> Self {
        self.body.partition = Some(partition);
        self
    }

    pub(super) fn retry_later(mut self) -> Self {
        self.body.retry_after_ms = RETRY_AFTER_MS;
        self
    }

    pub(super) fn encode(&self) -> Bytes {
        self.body.encode()
    }
}

/// What a code says about the peer; `None` for what may happen to anybody.
fn rejection_of(code: ErrorCode) -> Option<Rejection> {
    Some(match code {
        ErrorCode::MalformedRequest => Rejection::RequestMalformed,
        ErrorCode::UnsupportedVersion => Rejection::UnsupportedVersion,
        ErrorCode::FrameTooLarge => Rejection::FrameTooLarge,
        ErrorCode::HandshakeRequired => Rejection::HandshakeMissing,
        ErrorCode::HandshakeTimeout => Rejection::HandshakeTimeout,
        ErrorCode::UnknownRequest => Rejection::RequestUnknown,
        ErrorCode::TooManyConnections => Rejection::ConnectionLimit,
        ErrorCode::IdleTimeout => Rejection::Idle,
        ErrorCode::StallTimeout => Rejection::StalledSending,
        ErrorCode::LimitReached | ErrorCode::TooManyRequests => Rejection::LimitReached,
        ErrorCode::CorruptBatch => Rejection::BatchCorrupt,
        ErrorCode::BatchTooLarge => Rejection::BatchTooLarge,
        ErrorCode::UnsupportedCodec => Rejection::UnsupportedCodec,
        ErrorCode::InvalidBatch => Rejection::BatchInvalid,
        ErrorCode::QueueFull => Rejection::QueueFull,
        ErrorCode::Draining
        | ErrorCode::Internal
        | ErrorCode::UnknownTopic
        | ErrorCode::UnknownPartition
        | ErrorCode::TopicExists
        | ErrorCode::InvalidTopicName
        | ErrorCode::InvalidTopicConfig
        | ErrorCode::NotOwner
        | ErrorCode::OutOfSequence
        | ErrorCode::ProducerFenced
        | ErrorCode::UnknownProducer
        | ErrorCode::StorageFull
        | ErrorCode::WritesStopped
        | ErrorCode::OutcomeUnknown
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::DamagedRange
        | ErrorCode::ReadFailed
        | ErrorCode::UnknownSubscription
        | ErrorCode::SubscriptionExists
        | ErrorCode::InvalidName
        | ErrorCode::UnknownGroup
        | ErrorCode::OffsetMismatch
        | ErrorCode::UnknownMember
        | ErrorCode::InstanceTaken
        | ErrorCode::StaleOwner
        | ErrorCode::GroupActive
        | ErrorCode::Superseded
        | ErrorCode::InvalidPattern
        | ErrorCode::Other(_) => return None,
    })
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::new(ErrorCode::MalformedRequest, error.to_string())
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::new(ErrorCode::MalformedRequest, error.to_string())
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let text = error.to_string();
        match error {
            FrameError::TooLarge { max, .. } => {
                Self::new(ErrorCode::FrameTooLarge, text).range(u64::from(max), 0)
            }
            FrameError::Http | FrameError::Flags { .. } => {
                Self::new(ErrorCode::MalformedRequest, text).because(Rejection::FrameMalformed)
            }
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        let code = match &error {
            BatchError::Truncated { .. } | BatchError::Checksum { .. } | BatchError::Stamp => {
                ErrorCode::CorruptBatch
            }
            BatchError::TooLarge { .. } => ErrorCode::BatchTooLarge,
            BatchError::Format(_) | BatchError::Codec(_) => ErrorCode::UnsupportedCodec,
            BatchError::Decompress { .. }
            | BatchError::Field { .. }
            | BatchError::Record { .. } => ErrorCode::InvalidBatch,
        };
        let refusal = Self::new(code, error.to_string());
        if matches!(error, BatchError::Decompress { .. }) {
            return refusal.because(Rejection::Decompression);
        }
        refusal
    }
}

impl From<QueueClosed> for Refusal {
    fn from(error: QueueClosed) -> Self {
        Self::new(ErrorCode::Draining, error.to_string()).retry_later()
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        let code = match error {
            JournalError::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            JournalError::Stopped => ErrorCode::WritesStopped,
            JournalError::Full { .. } => ErrorCode::StorageFull,
            JournalError::Closed => ErrorCode::Draining,
        };
        Self::new(code, error.to_string()).retry_later()
    }
}

impl From<AdmitError> for Refusal {
    fn from(error: AdmitError) -> Self {
        let text = error.to_string();
        match error {
            AdmitError::OutOfSequence { expected, .. } => {
                Self::new(ErrorCode::OutOfSequence, text).range(expected, 0)
            }
            // Whether there is a newer one cannot be told any more; if there is, it must not be fenced.
            AdmitError::Fenced { .. } | AdmitError::Forgotten { .. } => {
                Self::new(ErrorCode::ProducerFenced, text)
            }
            AdmitError::UnknownProducer { .. } => Self::new(ErrorCode::UnknownProducer, text),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let text = error.to_string();
        match error {
            PublishError::UnknownTopic(_) => Self::new(ErrorCode::UnknownTopic, text),
            PublishError::UnknownPartition { partition, .. } => {
                Self::new(ErrorCode::UnknownPartition, text).partition(partition)
            }
            PublishError::Limit { limit, .. } => {
                Self::new(ErrorCode::LimitReached, text).range(limit, 0)
            }
            PublishError::Admit(error) => error.into(),
            PublishError::Journal(error) => error.into(),
        }
    }
}

impl From<StepError> for Refusal {
    fn from(error: StepError) -> Self {
        let text = error.to_string();
        match error {
            StepError::Batch { partition, source } => {
                let mut refusal = Self::from(source).partition(partition.partition);
                refusal.body.text = text;
                refusal
            }
            StepError::Publish(error) => error.into(),
            StepError::Offsets(error) => error.into(),
            StepError::NamedTwice(_) => Self::new(ErrorCode::MalformedRequest, text),
            StepError::OffsetMismatch {
                partition, next, ..
            } => Self::new(ErrorCode::OffsetMismatch, text)
                .partition(partition.partition)
                .range(next.0, 0),
            StepError::PartlyKnown { partition } => {
                Self::new(ErrorCode::OutOfSequence, text).partition(partition.partition)
            }
        }
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        let text = error.to_string();
        match error {
            TopicError::Name { .. } => Self::new(ErrorCode::InvalidTopicName, text),
            TopicError::Exists(_) => Self::new(ErrorCode::TopicExists, text),
            TopicError::Unknown(_) => Self::new(ErrorCode::UnknownTopic, text),
            TopicError::Config(_)
            | TopicError::Partitions(_)
            | TopicError::FewerPartitions { .. } => Self::new(ErrorCode::InvalidTopicConfig, text),
            TopicError::Limit { limit, .. } => {
                Self::new(ErrorCode::LimitReached, text).range(limit, 0)
            }
            TopicError::Journal(error) => error.into(),
        }
    }
}

impl From<OffsetsError> for Refusal {
    fn from(error: OffsetsError) -> Self {
        let text = error.to_string();
        match error {
            OffsetsError::Name { .. } => Self::new(ErrorCode::InvalidName, text),
            OffsetsError::UnknownTopic(_) | OffsetsError::UnknownTopicName(_) => {
                Self::new(ErrorCode::UnknownTopic, text)
            }
            OffsetsError::UnknownPartition(id) => {
                Self::new(ErrorCode::UnknownPartition, text).partition(id.partition)
            }
            OffsetsError::BeyondEnd {
                partition,
                low,
                high,
                ..
            } => Self::new(ErrorCode::OffsetOutOfRange, text)
                .partition(partition)
                .range(low.0, high.0),
            OffsetsError::NoteTooLong(_) | OffsetsError::NamedTwice(_) => {
                Self::new(ErrorCode::MalformedRequest, text)
            }
            OffsetsError::StaleOwner {
                partition, current, ..
            } => Self::new(ErrorCode::StaleOwner, text)
                .partition(partition.partition)
                .range(current.0, 0),
            OffsetsError::UnknownGroup(_) => Self::new(ErrorCode::UnknownGroup, text),
            OffsetsError::Limit { limit, .. } => {
                Self::new(ErrorCode::LimitReached, text).range(limit, 0)
            }
            OffsetsError::Journal(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Active => Self::of(ErrorCode::GroupActive),
            ChangeError::Offsets(error) => error.into(),
        }
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        let text = error.to_string();
        match error {
            JoinError::TooManyGroups { max }
            | JoinError::NoRoom { max }
            | JoinError::TooManyMembers { max } => {
                Self::new(ErrorCode::LimitReached, text).range(max as u64, 0)
            }
            JoinError::InstanceName { .. } => Self::new(ErrorCode::InvalidName, text),
            JoinError::Patterns { .. } | JoinError::Session { .. } => {
                Self::new(ErrorCode::MalformedRequest, text)
            }
        }
    }
}

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        Self::new(ErrorCode::InvalidPattern, error.to_string())
    }
}

impl From<ProducerError> for Refusal {
    fn from(error: ProducerError) -> Self {
        let text = error.to_string();
        match error {
            ProducerError::Name { .. } => Self::new(ErrorCode::InvalidName, text),
            ProducerError::Limit { limit, .. } => {
                Self::new(ErrorCode::LimitReached, text).range(limit, 0)
            }
            ProducerError::Journal(error) => error.into(),
        }
    }
}

impl From<ReadFailure> for Refusal {
    fn from(error: ReadFailure) -> Self {
        let text = error.to_string();
        match error {
            ReadFailure::OutOfRange { low, high, .. } => {
                Self::new(ErrorCode::OffsetOutOfRange, text).range(low.0, high.0)
            }
            ReadFailure::Deleted => Self::new(ErrorCode::UnknownTopic, text),
            ReadFailure::Damaged(damage) => Self::new(ErrorCode::DamagedRange, text)
                .range(damage.range.start.0, damage.range.end.0),
            ReadFailure::Store(_) => Self::new(ErrorCode::ReadFailed, text).retry_later(),
            ReadFailure::Closed => Self::new(ErrorCode::Draining, text).retry_later(),
        }
    }
}
