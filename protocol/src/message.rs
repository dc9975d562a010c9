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
mod hello;
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
pub use hello::{HelloRequest, HelloResponse};

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

const fn config() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<CONTROL_BYTES_MAX>()
}

/// Encodes a control message.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, MessageError> {
    let bytes = bincode::serde::encode_to_vec(message, config()).map_err(MessageError::Encode)?;
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: bytes.len() });
    }
    Ok(Bytes::from(bytes))
}

/// Decodes a control message, which must fill `bytes` exactly.
///
/// Allocates at most in proportion to `bytes`, whatever the counts in them claim.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: bytes.len() });
    }
    let (message, used) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(MessageError::Decode)?;
    match bytes.len() - used {
        0 => Ok(message),
        bytes => Err(MessageError::Trailing { bytes }),
    }
}
