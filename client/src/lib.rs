//! The async client of the Falcon event broker: publish and subscribe with backpressure.
//!
//! ```no_run
//! use falcon_client::{Client, Record, Start, TopicOptions};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let falcon = Client::connect("falcon://127.0.0.1:7420").await?;
//!     falcon.create_topic("orders", TopicOptions::new(4)).await?;
//!
//!     let orders = falcon.publisher("orders").build().await?;
//!     let receipt = orders.publish(Record::new("charged").key("order-17")).await?;
//!     println!("durable at {} of partition {}", receipt.offset, receipt.partition);
//!
//!     let mut records = falcon.subscribe("orders").from(Start::Earliest).open().await?;
//!     if let Some(record) = records.next().await {
//!         println!("{:?}", record?.value);
//!     }
//!     println!("{}", falcon.shutdown().await);
//!     Ok(())
//! }
//! ```
//!
//! One [`Client`] is one connection, shared by everything made from it, pipelined, and made again
//! by itself when it is lost. [`Publisher`]s, [`Subscription`]s and all other handles survive that.
//!
//! # Publishing, and backpressure
//!
//! [`Publisher::publish`] waits until one record is durable. For many, [`Publisher::send`] returns
//! a [`Ticket`] as soon as there is room in the publisher's window (8 MiB of payload, more for many partitions, unless
//! [`window_bytes`](PublisherBuilder::window_bytes) says otherwise). When the broker is slower than
//! the program, `send` waits: that is the backpressure, and memory stays within the window.
//! [`try_send`](Publisher::try_send) and [`send_timeout`](Publisher::send_timeout) say that the
//! window is full instead. Batches need no tuning: what is sent while a batch is in flight leaves
//! with the next.
//!
//! ```no_run
//! # async fn example(falcon: falcon_client::Client) -> Result<(), falcon_client::PublishError> {
//! let clicks = falcon.publisher("clicks").build().await?;
//! for click in 0..1_000_000 {
//!     // The ticket may be dropped: flush reports what failed.
//!     drop(clicks.send(format!("click {click}")).await?);
//! }
//! clicks.flush().await?; // every one of them is durable now
//! # Ok(())
//! # }
//! ```
//!
//! # Reading very many
//!
//! [`Subscription::next`] hands records out one by one, each owned. [`Subscription::next_batch`] hands out a
//! [`RecordBatch`], whose records are read where they lie: as [`RecordRef`]s that cost no reference count and no
//! allocation. Checks, order, positions and resuming are the same, and the two can take turns. A batch is owned, so
//! it can be sent to another task; [`RecordRef::to_delivered`] keeps one record of it.
//!
//! # Consumer groups
//!
//! A [`Consumer`] shares the partitions of its topics with the other members of its group.
//! [`next`](Consumer::next) hands records out, [`commit`](Consumer::commit) stores how far the
//! group is; the stream ends when it is closed, not before. [`run`](Consumer::run) calls a handler
//! instead, several at a time, in order per key or partition. A [`Step`] publishes and commits
//! together, or does nothing.
//!
//! ```no_run
//! # async fn charge(record: &falcon_client::Delivered) -> Result<String, std::io::Error> { Ok(format!("{record:?}")) }
//! # async fn example(falcon: falcon_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut consumer = falcon.consumer("billing").topics(["orders", "payments.*"]).join().await?;
//! while let Some(record) = consumer.next().await {
//!     let record = record?;
//!     let charged = charge(&record).await?;
//!     // The charge is published and the order committed, or neither.
//!     consumer.step().publish("charges", charged).commit(&record).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Delivery guarantees
//!
//! - A [`Receipt`] means that the record survives a power cut of the broker, at this offset.
//! - A record is stored once, although its batch may be sent several times: publishers are
//!   idempotent, and a batch whose answer was lost is sent again as the same bytes. The exceptions
//!   are errors that say so: [`PublishError::may_have_happened`].
//! - Within a partition, records are stored in the order in which they were sent, across
//!   reconnects and refusals.
//! - A [`Subscription`] yields every record from its start on, in order within a partition, without
//!   gap or duplicate, across reconnects. Every batch is checked against its checksums; damage is
//!   an error with its offsets, never data. The stream ends when it is closed, not before.
//! - A [`Consumer`] hands a record out at least once to its group: again when it was not committed
//!   before its partition moved. What a [`Step`] published while committing it is there once.
//! - What a program has done with a record the broker cannot know: store
//!   [`next_offset`](Delivered::next_offset) with your results, or with [`Client::offsets`], and
//!   start there.
//!
//! # Errors
//!
//! [`Error`], [`PublishError`], [`SubscribeError`], [`ConsumerError`], [`CommitError`] and
//! [`StepError`] answer `is_retryable()` (may the same call
//! succeed later?), `may_have_happened()` (could it have taken effect although it failed?) and
//! `code()` (what the broker said). Passing trouble is retried inside, within
//! [`request_timeout`](ClientBuilder::request_timeout) and
//! [`delivery_timeout`](PublisherBuilder::delivery_timeout); what comes out is worth acting on.
//!
//! # Ending
//!
//! [`Client::shutdown`] publishes what was sent, says goodbye and reports. Dropping handles never
//! blocks; what was acknowledged is never lost.

mod address;
mod admin;
mod backoff;
mod client;
mod clock;
mod connection;
mod consumer;
mod core;
pub mod error;
mod groups;
mod identity;
mod offsets;
mod publisher;
mod start;
mod step;
mod subscription;
mod sync;
mod topics;
mod typed;

pub use admin::{TopicChange, TopicOptions};
pub use client::{Client, ClientBuilder, ShutdownReport};
/// For the broker's tests.
#[doc(hidden)]
pub use consumer::member;
pub use consumer::{
    Assignor, AutoCommit, Consumer, ConsumerBuilder, ConsumerEvent, ConsumerEvents, ConsumerHandle,
    OnDamage, OnError, Order, RetryPolicy, RunEnd, RunOptions, RunReport, TopicPartition,
};
pub use error::{
    CommitError, ConnectReason, ConsumerError, Error, LostReason, PublishError, Refusal, StepError,
    SubscribeError, TrySendError,
};
pub use offsets::{Offsets, PartitionNumber};
pub use publisher::{Publisher, PublisherBuilder, Receipt, Ticket};
pub use start::Start;
pub use step::{Step, StepReceipt};
pub use subscription::{
    Delivered, RecordBatch, RecordIter, RecordRef, Reset, Subscription, SubscriptionBuilder,
    SubscriptionEvent, SubscriptionEvents,
};
pub use typed::{
    Bincode, Codec, Event, Json, Topic, TypedPublisher, TypedSubscription, TypedSubscriptionBuilder,
};

pub use falcon_protocol::Codec as Compression;
pub use falcon_protocol::batch::{HeaderRef, HeaderRefs, Headers};
pub use falcon_protocol::message::{
    Activity, AssignorKind, CommittedOffset, ConfigEntry, GroupDescription, GroupMember,
    GroupPartition, GroupProgress, GroupSummary, ListedOffset, PartitionDescription, Standing,
    TopicDescription, TopicSummary,
};
pub use falcon_protocol::{
    ErrorCode, Header, MemberId, Offset, OwnerEpoch, Partition, PartitionId, Record, TopicId,
};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
