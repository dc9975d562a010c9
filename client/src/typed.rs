//! Topics of values of one type.

mod codec;

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use falcon_protocol::record::Header;
use falcon_protocol::{Offset, Partition, Record};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use codec::{Bincode, Codec, Json};

use crate::client::Client;
use crate::error::{Error, PublishError, SubscribeError};
use crate::offsets::PartitionNumber;
use crate::publisher::{Publisher, PublisherBuilder, Receipt, Ticket};
use crate::start::Start;
use crate::subscription::{
    Delivered, Reset, Subscription, SubscriptionBuilder, SubscriptionEvents,
};

type KeyOf<T> = Arc<dyn Fn(&T) -> Bytes + Send + Sync>;

/// A topic whose values have one type. Made by [`Client::topic`].
pub struct Topic<T, C = Json> {
    client: Client,
    name: String,
    codec: Arc<C>,
    key: Option<KeyOf<T>>,
}

impl<T, C: Codec> Topic<T, C> {
    pub(crate) fn new(client: Client, name: String, codec: C) -> Self {
        Self {
            client,
            name,
            codec: Arc::new(codec),
            key: None,
        }
    }

    /// Uses another codec than JSON.
    #[must_use]
    pub fn with_codec<D: Codec>(self, codec: D) -> Topic<T, D> {
        Topic {
            client: self.client,
            name: self.name,
            codec: Arc::new(codec),
            key: self.key,
        }
    }

    /// Takes a record's key from its value: values of equal keys stay in order.
    #[must_use]
    pub fn key<K: Into<Bytes>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(move |value| key(value).into()));
        self
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A publisher with the default options.
    pub async fn publisher(&self) -> Result<TypedPublisher<T, C>, Error> {
        self.publisher_with(|options| options).await
    }

    /// A publisher with options.
    pub async fn publisher_with(
        &self,
        options: impl FnOnce(PublisherBuilder) -> PublisherBuilder,
    ) -> Result<TypedPublisher<T, C>, Error> {
        let builder = options(self.client.publisher(self.name.clone()));
        Ok(TypedPublisher {
            publisher: builder.build().await?,
            codec: Arc::clone(&self.codec),
            key: self.key.clone(),
        })
    }

    /// A subscription.
    pub fn subscribe(&self) -> TypedSubscriptionBuilder<T, C> {
        TypedSubscriptionBuilder {
            builder: self.client.subscribe(self.name.clone()),
            codec: Arc::clone(&self.codec),
            value: PhantomData,
        }
    }
}

/// Publishes values of one type. Made by [`Topic::publisher`].
pub struct TypedPublisher<T, C = Json> {
    publisher: Publisher,
    codec: Arc<C>,
    key: Option<KeyOf<T>>,
}

impl<T, C> Clone for TypedPublisher<T, C> {
    fn clone(&self) -> Self {
        Self {
            publisher: self.publisher.clone(),
            codec: Arc::clone(&self.codec),
            key: self.key.clone(),
        }
    }
}

impl<T: Serialize, C: Codec> TypedPublisher<T, C> {
    /// Takes a record's key from its value: values of equal keys stay in order.
    #[must_use]
    pub fn key<K: Into<Bytes>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(move |value| key(value).into()));
        self
    }

    /// Publishes a value and waits until it is durable; see [`Publisher::publish`].
    pub async fn publish(&self, value: &T) -> Result<Receipt, PublishError> {
        self.publisher.publish(self.record(value)?).await
    }

    /// Hands a value over, waiting for room in the window; see [`Publisher::send`].
    pub async fn send(&self, value: &T) -> Result<Ticket, PublishError> {
        self.publisher.send(self.record(value)?).await
    }

    /// Waits until everything sent before is durable; see [`Publisher::flush`].
    pub async fn flush(&self) -> Result<(), PublishError> {
        self.publisher.flush().await
    }

    /// Flushes, and takes no more values; see [`Publisher::close`].
    pub async fn close(&self) -> Result<(), PublishError> {
        self.publisher.close().await
    }

    /// The publisher of records beneath, to add headers or choose partitions.
    pub const fn inner(&self) -> &Publisher {
        &self.publisher
    }

    /// The record of a value, as `publish` and `send` make it.
    pub fn record(&self, value: &T) -> Result<Record, PublishError> {
        let encoded = self.codec.encode(value);
        let bytes = encoded.map_err(|reason| PublishError::Encode { reason })?;
        let record = Record::new(bytes);
        Ok(match &self.key {
            Some(key) => record.key(key(value)),
            None => record,
        })
    }
}

/// Options of a typed subscription, made by [`Topic::subscribe`].
#[must_use = "nothing happens until open is called"]
pub struct TypedSubscriptionBuilder<T, C = Json> {
    builder: SubscriptionBuilder,
    codec: Arc<C>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, C: Codec> TypedSubscriptionBuilder<T, C> {
    fn map(mut self, change: impl FnOnce(SubscriptionBuilder) -> SubscriptionBuilder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// See [`SubscriptionBuilder::from`].
    pub fn from(self, start: impl Into<Start>) -> Self {
        self.map(|builder| builder.from(start))
    }

    /// See [`SubscriptionBuilder::partition`].
    pub fn partition(self, partition: impl Into<PartitionNumber>) -> Self {
        self.map(|builder| builder.partition(partition))
    }

    /// See [`SubscriptionBuilder::partition_from`].
    pub fn partition_from(
        self,
        partition: impl Into<PartitionNumber>,
        start: impl Into<Start>,
    ) -> Self {
        self.map(|builder| builder.partition_from(partition, start))
    }

    /// See [`SubscriptionBuilder::buffer_bytes`].
    pub fn buffer_bytes(self, bytes: u64) -> Self {
        self.map(|builder| builder.buffer_bytes(bytes))
    }

    /// See [`SubscriptionBuilder::on_out_of_range`].
    pub fn on_out_of_range(self, reset: Reset) -> Self {
        self.map(|builder| builder.on_out_of_range(reset))
    }

    /// Subscribes; see [`SubscriptionBuilder::open`].
    pub async fn open(self) -> Result<TypedSubscription<T, C>, SubscribeError> {
        Ok(TypedSubscription {
            subscription: self.builder.open().await?,
            codec: self.codec,
            value: PhantomData,
        })
    }
}

/// A record whose value has been decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<T> {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// When the event happened, by its publisher, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When it was appended, by the broker's clock, milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<T>,
    /// Named values beside it.
    pub headers: Vec<Header>,
}

impl<T> Event<T> {
    /// The offset to commit once this event is done: the next one.
    pub const fn next_offset(&self) -> Offset {
        self.offset.advance(1)
    }
}

/// A stream of decoded events. A value that cannot be decoded is an error of that record, and the
/// stream goes on behind it.
pub struct TypedSubscription<T, C = Json> {
    subscription: Subscription,
    codec: Arc<C>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, C: Codec> TypedSubscription<T, C> {
    /// The next event, or an error between events; `None` after `close`.
    ///
    /// CANCEL SAFETY: an event not returned stays.
    pub async fn next(&mut self) -> Option<Result<Event<T>, SubscribeError>> {
        let delivered = self.subscription.next().await?;
        Some(delivered.and_then(|record| decode(&*self.codec, record)))
    }

    /// What happens beside events; see [`Subscription::events`].
    pub fn events(&self) -> SubscriptionEvents {
        self.subscription.events()
    }

    /// The next offset of a partition; see [`Subscription::position`].
    pub fn position(&self, partition: impl Into<PartitionNumber>) -> Offset {
        self.subscription.position(partition)
    }

    /// Ends the subscription; see [`Subscription::close`].
    pub async fn close(&mut self) {
        self.subscription.close().await;
    }
}

impl<T: DeserializeOwned, C: Codec> Stream for TypedSubscription<T, C> {
    type Item = Result<Event<T>, SubscribeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let delivered = Pin::new(&mut this.subscription).poll_next(cx);
        delivered.map(|item| item.map(|item| item.and_then(|record| decode(&*this.codec, record))))
    }
}

fn decode<T: DeserializeOwned>(
    codec: &impl Codec,
    record: Delivered,
) -> Result<Event<T>, SubscribeError> {
    let value = record.value.as_deref().map(|bytes| codec.decode(bytes));
    let value = value.transpose().map_err(|reason| SubscribeError::Decode {
        partition: record.partition,
        offset: record.offset,
        reason,
    })?;
    Ok(Event {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        append_time_ms: record.append_time_ms,
        key: record.key,
        value,
        headers: record.headers,
    })
}
