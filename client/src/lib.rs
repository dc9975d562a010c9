//! The async client of the Falcon event broker.

mod address;
mod admin;
mod backoff;
mod client;
mod clock;
mod connection;
mod core;
pub mod error;
mod offsets;
mod publisher;
mod start;
mod subscription;
mod sync;
mod topics;
mod typed;

pub use admin::{TopicChange, TopicOptions};
pub use client::{Client, ClientBuilder, ShutdownReport};
pub use error::{
    ConnectReason, Error, LostReason, PublishError, Refusal, SubscribeError, TrySendError,
};
pub use offsets::{Offsets, PartitionNumber};
pub use publisher::{Publisher, PublisherBuilder, Receipt, Ticket};
pub use start::Start;
pub use subscription::{
    Delivered, Reset, Subscription, SubscriptionBuilder, SubscriptionEvent, SubscriptionEvents,
};
pub use typed::{
    Bincode, Codec, Event, Json, Topic, TypedPublisher, TypedSubscription, TypedSubscriptionBuilder,
};

pub use falcon_protocol::Codec as Compression;
pub use falcon_protocol::message::{
    CommittedOffset, ConfigEntry, ListedOffset, PartitionDescription, TopicDescription,
    TopicSummary,
};
pub use falcon_protocol::{ErrorCode, Header, Offset, Partition, Record, TopicId};
