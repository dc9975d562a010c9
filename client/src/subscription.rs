//! Subscribing: a stream of records that goes on until it is closed.
//!
//! Owns positions, credit, the buffer, and the checks that a record is what the broker stored.
//! Promises: every record from the start on, in order within its partition, neither gap nor
//! duplicate, whatever happens to connections; memory within the buffer and one delivery; every
//! trouble is an item of the stream; the stream ends after `close`, and by nothing else but the
//! client's shutdown.
//!
//! Must not know: sockets, and how a connection comes back.

mod batch;
mod builder;
mod decode;
mod driver;
mod events;
mod shared;
mod state;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use falcon_protocol::record::Header;
use falcon_protocol::{Offset, OwnerEpoch, Partition};
use futures_core::Stream;

pub use batch::{RecordBatch, RecordIter, RecordRef};
pub use builder::{Reset, SubscriptionBuilder};
pub use events::{SubscriptionEvent, SubscriptionEvents};

use crate::consumer::Grant;
use crate::core::{Keep, Tally};
use crate::error::SubscribeError;
use crate::offsets::PartitionNumber;
use crate::sync::lock;
use decode::{Current, NextBatch};
use shared::Shared;
use state::{Item, Place};

/// A record as delivered. Owned: it can be kept, sent to other tasks and handled there. Key, value
/// and headers share the memory of their batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
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
    /// The payload; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Named values beside the payload.
    pub headers: Vec<Header>,
    /// Under what a consumer was given it.
    pub(crate) grant: Option<Grant>,
}

impl Delivered {
    /// The offset to commit once this record is done: the next one.
    pub const fn next_offset(&self) -> Offset {
        self.offset.advance(1)
    }

    /// Under which grant of the partition a consumer was given it: greater than that of any owner before.
    pub fn epoch(&self) -> Option<OwnerEpoch> {
        self.grant.map(|grant| grant.hold.epoch)
    }
}

/// A stream of records. Made by [`Client::subscribe`](crate::Client::subscribe).
///
/// Each item is a record, or an error of one partition while the others go on. The stream ends
/// (`None`) after [`close`](Self::close), or after the client's shutdown with the batch that was
/// being read, and never by itself. What is not
/// read is not sent: the broker sends at most the buffer and one delivery ahead.
///
/// Dropping it ends the subscription without waiting.
pub struct Subscription {
    shared: Arc<Shared>,
    current: Option<Current>,
    tally: Arc<Tally>,
    /// Keeps the client open.
    _keep: Arc<Keep>,
}

impl Subscription {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The next record, or an error between records; `None` after `close`.
    ///
    /// CANCEL SAFETY: a record not returned stays.
    pub async fn next(&mut self) -> Option<Result<Delivered, SubscribeError>> {
        // Most are at hand: a record is large enough for each layer it passes through to be felt.
        if let Some(record) = self.record_at_hand() {
            return Some(record);
        }
        std::future::poll_fn(|cx| self.poll_for(cx, Self::record_at_hand)).await
    }

    /// The next records of one partition, as many as were stored together, or an error between records; `None`
    /// after `close`. For whoever handles very many records: they are read where they lie, with no cost for owning each.
    ///
    /// All records of a batch that is returned count as handed out: [`position`](Self::position) is behind them, also
    /// when it is dropped half read. So does the rest of a batch whose first records [`next`](Self::next) returned: the
    /// two may be called in any order.
    ///
    /// ```no_run
    /// # async fn example(falcon: falcon_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let done = falcon.offsets("totals");
    /// let mut records = falcon.subscribe("orders").from(falcon_client::Start::Earliest).open().await?;
    /// let mut total = 0;
    /// while let Some(batch) = records.next_batch().await {
    ///     let batch = batch?;
    ///     for record in &batch {
    ///         if record.headers().get("kind") != Some(b"test") {
    ///             total += record.value().map_or(0, <[u8]>::len);
    ///         }
    ///     }
    ///     done.commit("orders", batch.partition(), batch.next_offset()).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// CANCEL SAFETY: a batch not returned stays.
    pub async fn next_batch(&mut self) -> Option<Result<RecordBatch, SubscribeError>> {
        std::future::poll_fn(|cx| self.poll_for(cx, Self::batch_at_hand)).await
    }

    /// What happens beside records, from now on.
    pub fn events(&self) -> SubscriptionEvents {
        SubscriptionEvents {
            receiver: self.shared.events.subscribe(),
        }
    }

    /// The offset of the next record that `next` would yield from a partition; what to commit when
    /// all before it is done. For a partition that ended, the one it ended at; 0 for a partition
    /// that is not subscribed.
    pub fn position(&self, partition: impl Into<PartitionNumber>) -> Offset {
        let PartitionNumber(partition) = partition.into();
        if let Some(current) = self.current.as_ref().filter(|c| c.is_open_in(partition)) {
            return current.next;
        }
        let state = lock(&self.shared.state);
        let known = state.partitions.get(&partition);
        known.map_or(Offset::ZERO, |known| known.reached)
    }

    /// The partitions it reads, by number; those that ended are not among them.
    pub fn partitions(&self) -> Vec<Partition> {
        let state = lock(&self.shared.state);
        let live = state.partitions.iter();
        live.filter(|(_, known)| known.place != Place::Ended)
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// Ends the subscription; when this returns the broker knows, and `next` yields `None`.
    ///
    /// CANCEL SAFETY: dropped before it resolves, the subscription ends all the same.
    pub async fn close(&mut self) {
        self.current = None;
        self.shared.close();
        self.shared.ended.cancelled().await;
    }

    /// The next record of the batch that is open, or why there is none; `None` when the batch has ended.
    #[inline]
    fn record_at_hand(&mut self) -> Option<Result<Delivered, SubscribeError>> {
        let current = self.current.as_mut()?;
        match current.next_record()? {
            Ok(view) => {
                self.tally.add(1);
                Some(Ok(Delivered {
                    topic: Arc::clone(&self.shared.topic),
                    partition: current.partition,
                    offset: view.offset,
                    timestamp_ms: view.timestamp_ms,
                    append_time_ms: current.append_time_ms,
                    key: view.key,
                    value: view.value,
                    headers: view.headers,
                    grant: None,
                }))
            }
            Err(error) => Some(Err(self.give_up(error))),
        }
    }

    /// What is left of the batch that is open, or why there is nothing; `None` when the batch has ended.
    fn batch_at_hand(&mut self) -> Option<Result<RecordBatch, SubscribeError>> {
        let current = self.current.as_mut()?;
        match current.next_batch()? {
            Ok(records) => {
                self.tally.add(records.len() as u64);
                Some(Ok(RecordBatch {
                    topic: Arc::clone(&self.shared.topic),
                    partition: current.partition,
                    append_time_ms: current.append_time_ms,
                    records,
                }))
            }
            Err(error) => Some(Err(self.give_up(error))),
        }
    }

    /// What `at_hand` finds, in the batch that is open or in one of those to come.
    fn poll_for<T>(
        &mut self,
        cx: &Context<'_>,
        at_hand: impl Fn(&mut Self) -> Option<Result<T, SubscribeError>>,
    ) -> Poll<Option<Result<T, SubscribeError>>> {
        loop {
            if let Some(found) = at_hand(self) {
                return Poll::Ready(Some(found));
            }
            if self.current.is_some() {
                if let Err(error) = self.open_batch() {
                    return Poll::Ready(Some(Err(self.give_up(error))));
                }
                continue;
            }
            match self.take_item(cx) {
                Poll::Ready(Some(Ok(()))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Opens the next batch of the current delivery, or is done with the delivery.
    fn open_batch(&mut self) -> Result<(), SubscribeError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let partition = current.partition;
        let (topic_id, position) = {
            let mut state = lock(&self.shared.state);
            state.consume(current.incarnation, current.take_consumed());
            let place = state.partitions.get(&partition).map(|known| known.place);
            match place {
                Some(Place::At(offset)) if current.incarnation == state.incarnation => {
                    (state.topic_id, offset)
                }
                // What is left of an older incarnation is delivered again by the new one.
                Some(_) | None => {
                    state.consume(current.incarnation, current.drop_rest());
                    self.current = None;
                    return Ok(());
                }
            }
        };
        // Outside the lock: checksum and decompression.
        match current.open_next(topic_id, position)? {
            NextBatch::Old => Ok(()),
            NextBatch::Opened(end) => {
                let mut state = lock(&self.shared.state);
                let is_current = current.incarnation == state.incarnation;
                if let Some(known) = state.partitions.get_mut(&partition) {
                    // A batch opened is handed out to its end, whatever becomes of the connection;
                    // unless the driver has begun again from before it meanwhile.
                    if is_current {
                        known.place = Place::At(end);
                        known.reached = end;
                        known.is_caught_up = false;
                    }
                }
                drop(state);
                if !is_current {
                    self.current = None;
                }
                Ok(())
            }
            NextBatch::None => {
                self.finish_delivery();
                Ok(())
            }
        }
    }

    fn finish_delivery(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        let mut state = lock(&self.shared.state);
        if let Some(known) = state.partitions.get_mut(&current.partition) {
            known.is_caught_up =
                matches!(known.place, Place::At(next) if next >= current.high_watermark);
        }
        let is_caught_up = state.is_caught_up();
        drop(state);
        if is_caught_up {
            self.shared.tell(SubscriptionEvent::CaughtUp);
        }
    }

    /// What arrived cannot be used: the partition ends, at the record that was due.
    fn give_up(&mut self, error: SubscribeError) -> SubscribeError {
        if let Some(mut current) = self.current.take() {
            let partition = current.partition;
            let mut state = lock(&self.shared.state);
            state.consume(current.incarnation, current.drop_rest());
            if let (Some(known), SubscribeError::Corrupt { position, .. }) =
                (state.partitions.get_mut(&partition), &error)
            {
                known.reached = *position;
            }
            state.end_partition(partition);
            if state.has_live_partition() {
                // The broker would go on sending this one: ask for the others alone.
                self.shared.restart.notify_one();
            }
            drop(state);
            self.shared
                .tell(SubscriptionEvent::PartitionEnded { partition });
        }
        tracing::warn!(topic = %self.shared.topic, %error, "a partition of a subscription ended");
        error
    }

    /// Takes what came next: a delivery becomes the current one.
    fn take_item(&mut self, cx: &Context<'_>) -> Poll<Option<Result<(), SubscribeError>>> {
        let mut state = lock(&self.shared.state);
        if state.is_closed {
            return Poll::Ready(None);
        }
        let item = match state.next_item() {
            Some(item) => item,
            None if state.tells_nothing_left => {
                state.tells_nothing_left = false;
                return Poll::Ready(Some(Err(SubscribeError::NothingLeft)));
            }
            None => {
                state.set_waker(cx.waker());
                return Poll::Pending;
            }
        };
        let incarnation = state.incarnation;
        drop(state);
        match item {
            Item::Delivery(delivery) => {
                self.current = Some(Current::new(incarnation, delivery));
                Poll::Ready(Some(Ok(())))
            }
            Item::Error(error) => Poll::Ready(Some(Err(error))),
            Item::Ended { partition, refusal } => {
                let (error, is_restart) = self.shared.end_partition(partition, refusal);
                if is_restart {
                    self.shared.restart.notify_one();
                }
                Poll::Ready(Some(error.map_or(Ok(()), Err)))
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Delivered, SubscribeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_for(cx, Self::record_at_hand)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.core.counters.close_tally(&self.tally);
    }
}

impl core::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic())
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}
