//! Messages: what stands in the bodies of frames.
//!
//! Two layouts. The handshake, errors and the data path (publish, fetch, deliver, credit) are laid
//! out by hand and described next to their code. Control messages are structs encoded by bincode
//! with fixed-size little-endian integers: fields in order without names; `Option` is a byte 0 or 1
//! and the value; strings and lists have a `u64` count in front; enums a `u32` variant number. They
//! are positional, so a changed message is a new protocol version.

mod control;
mod data;
mod error;
mod group;
mod hello;
mod step;
#[cfg(test)]
mod tests;

pub use control::{
    AlterTopic, BrokerAddress, CommitOffsets, CommittedOffset, ConfigEntry, CreateTopic,
    DeleteOffsets, DeleteTopic, DescribeTopic, Empty, FetchOffsets, GroupPage, InitProducer,
    ListGroups, ListOffsets, ListTopics, ListedOffset, MetadataRequest, MetadataResponse,
    OffsetCommit, OffsetQuery, PartitionDescription, PartitionMetadata, PartitionStart,
    ProducerGranted, StartPosition, Subscribe, Subscribed, SubscribedPartition, TopicConfig,
    TopicCreated, TopicDescription, TopicMetadata, TopicPage, TopicSummary, Unsubscribe,
};
pub use data::{
    Credit, DELIVER_HEADER_BYTES, Delivery, Fetch, PUBLISH_HEADER_BYTES, PublishAck, PublishHeader,
    Window,
};
pub use error::ErrorBody;
pub use group::{
    Activity, AssignorKind, CommitOwned, DeleteGroup, DescribeGroup, GroupDescription, GroupGrant,
    GroupHold, GroupMember, GroupNews, GroupPartition, GroupPartitionPage, GroupProgress,
    GroupReport, GroupSummary, GroupSummaryPage, JoinGroup, LeaveGroup, ListGroupPartitions,
    OwnedCommit, ResetOffsets, Standing, SummarizeGroups,
};
pub use hello::{HelloRequest, HelloResponse};
pub use step::{STEP_HEADER_BYTES, Step, StepBatch, decode_step_acks, encode_step_acks};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::CONTROL_BYTES_MAX;

/// Why a control message could not be encoded or decoded.
#[derive(Debug, Error)]
pub enum MessageError {
    /// It would be larger than a control message may be, or cannot be represented.
    #[error("the message cannot be encoded")]
    Encode(#[source] bincode::error::EncodeError),
    /// The bytes are not such a message.
    #[error("the bytes are not such a message")]
    Decode(#[source] bincode::error::DecodeError),
    /// Larger than a control message may be.
    #[error("the message has {bytes} bytes, at most {CONTROL_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Bytes are left over.
    #[error("{bytes} bytes are left over after the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

const fn config<const BYTES_MAX: usize>() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<BYTES_MAX>()
}

/// Encodes a control message.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, MessageError> {
    let bytes = bincode::serde::encode_to_vec(message, config::<CONTROL_BYTES_MAX>())
        .map_err(MessageError::Encode)?;
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: bytes.len() });
    }
    Ok(Bytes::from(bytes))
}

/// Decodes a control message, which must fill `bytes` exactly.
///
/// Whatever the counts in them claim, a text reserves at most sixteen times the length of `bytes`
/// (or 256 bytes), and a list at most 1 MiB before its elements are there.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    // bincode reserves a text's length before it looks for the text, up to a limit that must be a
    // constant: the smallest that suffices.
    match bytes.len() {
        0..=256 => decode_within::<T, 256>(bytes),
        257..=4096 => decode_within::<T, 4096>(bytes),
        4097..=65_536 => decode_within::<T, 65_536>(bytes),
        65_537..=1_048_576 => decode_within::<T, 1_048_576>(bytes),
        1_048_577..=CONTROL_BYTES_MAX => decode_within::<T, CONTROL_BYTES_MAX>(bytes),
        bytes => Err(MessageError::TooLarge { bytes }),
    }
}

fn decode_within<T: DeserializeOwned, const BYTES_MAX: usize>(
    bytes: &[u8],
) -> Result<T, MessageError> {
    let (message, used) = bincode::serde::decode_from_slice(bytes, config::<BYTES_MAX>())
        .map_err(MessageError::Decode)?;
    match bytes.len() - used {
        0 => Ok(message),
        bytes => Err(MessageError::Trailing { bytes }),
    }
}
