//! Publishing: records in, receipts out.
//!
//! Owns batching, the publish window, identity and sequences, and sending again. Promises: a
//! receipt means durable; order within a partition is the order of `send`; a batch whose answer was
//! lost is sent again as the same bytes; records stay within the window, and so does memory kept for
//! the next; nothing waits for a tuned linger, and only behind many others for its turn.
//!
//! Must not know: sockets, and how a connection comes back.

mod advance;
mod builder;
mod completion;
mod intake;
mod lane;
mod pump;
mod room;
mod shared;
mod spares;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::{Partition, Record};
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

pub use builder::PublisherBuilder;
pub use completion::{Receipt, Ticket};

use crate::core::Keep;
use crate::error::{PublishError, TrySendError};
use crate::offsets::PartitionNumber;
use crate::sync::lock;
use shared::Shared;

/// Publishes records to one topic. Made by [`Client::publisher`](crate::Client::publisher); clones
/// share window, batches and identity.
///
/// When the last clone is dropped, what was sent is still published, as long as the runtime and
/// the broker live; nobody waits for it. To be sure of it call [`flush`](Self::flush),
/// [`close`](Self::close) or [`Client::shutdown`](crate::Client::shutdown).
#[derive(Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

/// Closes the intake when the last clone goes.
struct Handle {
    shared: Arc<Shared>,
    /// Also held by the pump until it has sent everything.
    _keep: Arc<Keep>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close_with(PublishError::Closed);
    }
}

impl Publisher {
    fn new(shared: Arc<Shared>, keep: Arc<Keep>) -> Self {
        Self {
            handle: Arc::new(Handle {
                shared,
                _keep: keep,
            }),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.shared().topic
    }

    /// Publishes a record and waits until it is durable.
    ///
    /// For many records at a time use [`send`](Self::send): waiting for each before the next takes
    /// a round trip and a sync per record.
    ///
    /// CANCEL SAFETY: dropped before it resolves, the record may be published or not.
    pub async fn publish(&self, record: impl Into<Record>) -> Result<Receipt, PublishError> {
        self.send(record).await?.await
    }

    /// Hands a record over, waiting for room in the window: this is the backpressure. The ticket
    /// resolves when the record is durable; it need not be awaited.
    ///
    /// The partition is that of the record's key; without a key, batches take partitions in turn.
    ///
    /// CANCEL SAFETY: dropped before it resolves, the record is not published.
    pub async fn send(&self, record: impl Into<Record>) -> Result<Ticket, PublishError> {
        self.send_record(None, &record.into()).await
    }

    /// [`send`](Self::send) to a partition of choice.
    ///
    /// CANCEL SAFETY: as `send`.
    pub async fn send_to(
        &self,
        partition: impl Into<PartitionNumber>,
        record: impl Into<Record>,
    ) -> Result<Ticket, PublishError> {
        let PartitionNumber(partition) = partition.into();
        self.send_record(Some(partition), &record.into()).await
    }

    async fn send_record(
        &self,
        partition: Option<Partition>,
        record: &Record,
    ) -> Result<Ticket, PublishError> {
        let shared = self.shared();
        if shared.is_turn_over() {
            consume_budget().await;
        }
        let cost = shared.cost(record);
        if let Some(admitted) = shared.try_admit(partition, record, cost) {
            return admitted;
        }
        shared.take_room(cost).await?;
        shared.admit(partition, record, cost)
    }

    /// [`send`](Self::send) that gives up with [`PublishError::WindowFull`] when there is no room
    /// within `limit`.
    ///
    /// CANCEL SAFETY: as `send`.
    pub async fn send_timeout(
        &self,
        record: impl Into<Record>,
        limit: Duration,
    ) -> Result<Ticket, PublishError> {
        match timeout(limit, self.send(record)).await {
            Ok(sent) => sent,
            Err(_) => Err(PublishError::WindowFull { after: limit }),
        }
    }

    /// [`send`](Self::send) that does not wait: when there is no room, the record comes back.
    pub fn try_send(&self, record: impl Into<Record>) -> Result<Ticket, TrySendError> {
        let record = record.into();
        let shared = self.shared();
        let cost = shared.cost(&record);
        match shared.try_admit(None, &record, cost) {
            Some(admitted) => admitted.map_err(TrySendError::Failed),
            None => Err(TrySendError::Full(record)),
        }
    }

    /// Waits until everything sent before this call has ended: durable, or the first error. An
    /// error of a record whose ticket was dropped is reported here, once.
    ///
    /// CANCEL SAFETY: only waits; an error not yet reported stays.
    pub async fn flush(&self) -> Result<(), PublishError> {
        let shared = self.shared();
        for completion in shared.begin_flush() {
            // The first failure is kept for the end, so that all have ended by then.
            completion.wait().await.ok();
        }
        let failed = lock(&shared.intake).failed.take();
        failed.map_or(Ok(()), Err)
    }

    /// [`flush`](Self::flush), and takes no more records from any clone.
    ///
    /// CANCEL SAFETY: dropped before it resolves, the publisher is closed, and what was sent is
    /// still published.
    pub async fn close(&self) -> Result<(), PublishError> {
        self.shared().close_with(PublishError::Closed);
        self.flush().await
    }

    /// Bytes of the window that are taken: payload not yet acknowledged.
    pub fn window_used_bytes(&self) -> usize {
        self.shared().window_used_bytes()
    }
}

impl core::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.topic())
            .field("window_used_bytes", &self.window_used_bytes())
            .finish_non_exhaustive()
    }
}
