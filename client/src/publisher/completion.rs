//! The end of a batch, shared by the tickets of its records.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use falcon_protocol::{Offset, Partition};

use crate::error::PublishError;
use crate::sync::lock;

/// Where a record is: durable, and the same for everybody from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Its partition.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// Broker's clock when it was appended, milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// Whether an earlier attempt had stored it already; the offset is that of then.
    pub is_duplicate: bool,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchReceipt {
    pub(super) base_offset: Offset,
    pub(super) append_time_ms: i64,
    pub(super) is_duplicate: bool,
}

pub(super) type BatchOutcome = Result<BatchReceipt, PublishError>;

/// The end of a batch: written once, read by any number of tickets.
#[derive(Debug)]
pub(super) struct Completion {
    partition: Partition,
    outcome: OnceLock<BatchOutcome>,
    /// One slot per ticket that was polled before the end.
    wakers: Mutex<Vec<Waker>>,
}

impl Completion {
    pub(super) fn new(partition: Partition) -> Arc<Self> {
        Arc::new(Self {
            partition,
            outcome: OnceLock::new(),
            wakers: Mutex::new(Vec::new()),
        })
    }

    /// Ends the batch; the first outcome stays.
    pub(super) fn complete(&self, outcome: BatchOutcome) {
        self.outcome.set(outcome).ok();
        // ORDER: a ticket that registers after this finds the outcome, see `poll_outcome`.
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// `slot` is the caller's place among the wakers, once it has one.
    fn poll_outcome(&self, slot: &mut Option<usize>, cx: &Context<'_>) -> Poll<&BatchOutcome> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut wakers = lock(&self.wakers);
        // INVARIANT: checked under the lock that `complete` takes after setting it.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        if let Some(waker) = slot.and_then(|slot| wakers.get_mut(slot)) {
            waker.clone_from(cx.waker());
        } else {
            *slot = Some(wakers.len());
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> Result<(), PublishError> {
        let mut slot = None;
        std::future::poll_fn(|cx| self.poll_outcome(&mut slot, cx).map(Clone::clone))
            .await
            .map(drop)
    }
}

/// Resolves when the record is durable, or when it is known that it will not be.
///
/// Dropping it neither withdraws the record nor delays anything;
/// [`flush`](crate::Publisher::flush) reports what failed without being looked at.
#[derive(Debug)]
#[must_use = "the record is sent either way; await the ticket, or call flush, to know its end"]
pub struct Ticket {
    completion: Arc<Completion>,
    index: u32,
    slot: Option<usize>,
}

impl Ticket {
    pub(super) const fn new(completion: Arc<Completion>, index: u32) -> Self {
        Self {
            completion,
            index,
            slot: None,
        }
    }

    /// The partition the record was put into.
    pub fn partition(&self) -> Partition {
        self.completion.partition
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = this.completion.poll_outcome(&mut this.slot, cx);
        outcome.map(|outcome| match outcome {
            Ok(batch) => Ok(Receipt {
                partition: this.completion.partition,
                offset: batch.base_offset.advance(u64::from(this.index)),
                append_time_ms: batch.append_time_ms,
                is_duplicate: batch.is_duplicate,
            }),
            Err(error) => Err(error.clone()),
        })
    }
}
