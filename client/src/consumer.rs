//! Consuming as a member of a group: partitions come and go, records are handed out, offsets are
//! stored.
//!
//! Owns what the member holds, what of it the application was given and has finished, its commits.
//! Promises: the stream ends only when it is closed; a record committed under a grant is not handed
//! out again under it; a commit is durable when it returns; nothing is committed that was not
//! finished; heartbeats go on whatever the application does; a slow partition holds up no other.
//!
//! Must not know: how the broker decides who has what (`member` knows the rules of the talk), how a
//! connection comes back.

mod builder;
mod committer;
mod desk;
mod events;
mod grant;
mod handle;
pub mod member;
mod membership;
mod reader;
mod run;
mod shared;
mod tracker;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use falcon_protocol::{Offset, Partition};
use futures_core::Stream;

pub use builder::{Assignor, AutoCommit, ConsumerBuilder, OnDamage};
pub use events::{ConsumerEvent, ConsumerEvents, TopicPartition};
pub(crate) use grant::{Grant, Owner};
pub use handle::ConsumerHandle;
pub use run::{OnError, Order, RetryPolicy, RunEnd, RunOptions, RunReport};

use crate::core::{Counters, Keep};
use crate::error::{CommitError, ConsumerError};
use crate::offsets::PartitionNumber;
use crate::start::Start;
use crate::step::Step;
use crate::subscription::Delivered;
use crate::sync::lock;
use desk::{Taken, check};
use shared::Shared;

/// A member of a consumer group. Made by [`Client::consumer`](crate::Client::consumer).
///
/// Either take records with [`next`](Self::next) and commit them, or let [`run`](Self::run) call a
/// handler. Dropping it without [`close`](Self::close) is like a crash: the group waits for its
/// session before others get its partitions.
pub struct Consumer {
    shared: Arc<Shared>,
    /// Keeps the client open.
    keep: Arc<Keep>,
}

impl Consumer {
    /// The group's name.
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// The next record, or an error between records; `None` after `close`, and for no other reason.
    ///
    /// CANCEL SAFETY: a record not returned stays.
    pub async fn next(&mut self) -> Option<Result<Delivered, ConsumerError>> {
        std::future::poll_fn(|cx| self.poll_record(cx)).await
    }

    /// Commits a record, and with it every one of its partition before; durable when this returns.
    /// A record before one already committed changes nothing.
    ///
    /// # Errors
    /// [`CommitError::StaleOwner`] when the partition was taken away since.
    pub async fn commit(&self, record: &Delivered) -> Result<(), CommitError> {
        self.shared.commit(record).await
    }

    /// Commits everything that `next` has returned; durable when this returns.
    ///
    /// # Errors
    /// [`CommitError::StaleOwner`] when some of it was from a partition that was taken away before
    /// it was committed; the rest is committed all the same.
    pub async fn commit_all(&self) -> Result<(), CommitError> {
        self.shared.commit_all().await
    }

    /// Goes on from another place in a partition that it holds. What was handed out stays so;
    /// the next commit of the partition may be lower than the last.
    pub async fn seek(
        &self,
        topic: &str,
        partition: impl Into<PartitionNumber>,
        start: impl Into<Start>,
    ) -> Result<(), ConsumerError> {
        let PartitionNumber(partition) = partition.into();
        self.shared.seek(topic, partition, start.into()).await
    }

    /// Hands out nothing of a partition until [`resume`](Self::resume); it stays assigned.
    pub fn pause(
        &self,
        topic: &str,
        partition: impl Into<PartitionNumber>,
    ) -> Result<(), ConsumerError> {
        let PartitionNumber(partition) = partition.into();
        self.shared.set_paused(topic, partition, true)
    }

    /// Goes on with a paused partition.
    pub fn resume(
        &self,
        topic: &str,
        partition: impl Into<PartitionNumber>,
    ) -> Result<(), ConsumerError> {
        let PartitionNumber(partition) = partition.into();
        self.shared.set_paused(topic, partition, false)
    }

    /// The offset of the next record of a partition that would be handed out; `None` when it is
    /// not held, or its start is not known yet.
    pub fn position(&self, topic: &str, partition: impl Into<PartitionNumber>) -> Option<Offset> {
        let PartitionNumber(partition) = partition.into();
        lock(&self.shared.desk).named(topic, partition)?.position()
    }

    /// The offset committed for a partition that it holds, as far as this consumer knows.
    pub fn committed(&self, topic: &str, partition: impl Into<PartitionNumber>) -> Option<Offset> {
        let PartitionNumber(partition) = partition.into();
        lock(&self.shared.desk).named(topic, partition)?.committed
    }

    /// The partitions it holds, in order.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        lock(&self.shared.desk).assignment()
    }

    /// What happens beside records: the first time from the join on, later from now on.
    pub fn events(&self) -> ConsumerEvents {
        let first = lock(&self.shared.first_events).take();
        let receiver = first.unwrap_or_else(|| self.shared.events.subscribe());
        ConsumerEvents { receiver }
    }

    /// An atomic step of this consumer: records and commits, all or nothing.
    pub fn step(&self) -> Step {
        self.handle().step()
    }

    /// A handle for other tasks and for handlers.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle::new(Arc::clone(&self.shared), Arc::clone(&self.keep))
    }

    /// Stores what is being committed, leaves the group, and ends the stream. Others get its
    /// partitions at once. It is closed whatever this returns.
    ///
    /// # Errors
    /// The [final](ConsumerError::is_final) error that had ended it before.
    pub async fn close(&mut self) -> Result<(), ConsumerError> {
        self.shared.close().await;
        match lock(&self.shared.desk).take_fatal() {
            None | Some(ConsumerError::Closed) => Ok(()),
            Some(error) => Err(error),
        }
    }

    fn poll_record(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Delivered, ConsumerError>>> {
        self.poll_take(cx, None)
    }

    /// As `next`; `limit`: how many records of a partition may be unfinished, in `run`.
    fn poll_take(
        &mut self,
        cx: &Context<'_>,
        limit: Option<usize>,
    ) -> Poll<Option<Result<Delivered, ConsumerError>>> {
        loop {
            let mut desk = lock(&self.shared.desk);
            let taken = desk.take(crate::clock::now(), limit);
            if matches!(taken, Taken::Nothing) {
                desk.set_waker(cx.waker());
            }
            let (is_hungry, is_resuming, is_caught_up) = desk.take_notes();
            drop(desk);
            if is_hungry {
                self.shared.hungry.notify_one();
            }
            if is_resuming {
                self.shared.membership.notify_one();
            }
            if is_caught_up {
                self.shared.tell(ConsumerEvent::CaughtUp);
            }
            match taken {
                Taken::Record(record) => {
                    Counters::add(&self.shared.core.counters.delivered, 1);
                    return Poll::Ready(Some(Ok(record)));
                }
                Taken::Error(error) => return Poll::Ready(Some(Err(error))),
                Taken::End => return Poll::Ready(None),
                Taken::Nothing => return Poll::Pending,
                Taken::Check(unopened) => {
                    // Outside the lock: checksum and decompression.
                    let checked = check(&unopened);
                    let damage = lock(&self.shared.desk).checked(&unopened, checked);
                    if let Some((place, range)) = damage {
                        self.shared.damaged(&unopened.hold, place, range);
                    }
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Delivered, ConsumerError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_record(cx)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl core::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group())
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

/// A partition of a topic, for those who do not hold it.
fn not_assigned(topic: &str, partition: Partition) -> ConsumerError {
    ConsumerError::NotAssigned {
        topic: topic.to_owned(),
        partition,
    }
}
