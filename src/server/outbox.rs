//! What leaves a connection: answers at once, deliveries behind them.
//!
//! Answers go into a buffer under a short lock, from any thread; the write task takes all of
//! them at one wake-up. The buffer is bounded because requests in flight are, and because the
//! read task takes no new request while more than [`ANSWER_BYTES_MAX`] wait.
//!
//! While the write task has nothing to do it lends its socket to the outbox: then the answers of a turn
//! of the writer leave from there, and small deliveries among them, without waking another thread for
//! them. What the socket does not take at once is left to the write task.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use falcon_protocol::message::PublishAck;
use falcon_protocol::{Frame, FrameHeader, Kind};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::refusal::Refusal;
use crate::clock::Instant;
use crate::metrics::Metrics;
use crate::writer::Flush;

/// LIMIT: bytes of answers that may wait before the connection reads no more requests.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const ACK_BYTES: u32 = 24;
/// A buffer of answers that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Connections with answers of one turn up to which the writer's thread sends them itself: one write
/// costs about as much as waking the task that would do it.
const DIRECT_MAX: usize = 4;

/// Frames for the peer that go out behind the answers, in order.
pub(super) struct Delivery {
    /// What it is.
    pub(super) kind: Kind,
    /// Frame header and what precedes the batches.
    pub(super) head: Bytes,
    /// Batches as stored.
    pub(super) batches: Vec<Bytes>,
    /// Pays for the batches' memory until they are written.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Place among the requests in flight, when this answers one.
    pub(super) request: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    /// Whether its order among what a subscription sends matters.
    fn is_of_subscription(&self) -> bool {
        matches!(self.kind, Kind::Deliver | Kind::PartitionEnded)
    }
}

/// A delivery is among the answers. It says who is to be flushed for it, unless somebody was told before.
pub(super) struct Direct(pub(super) Option<Arc<dyn Flush>>);

#[derive(Debug)]
pub(super) struct Outbox {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Bytes of answers that wait.
    waiting: AtomicUsize,
    /// Subscriptions of the connection that may be about to send something by themselves.
    busy: AtomicUsize,
    /// Something waits to be written, or nothing more will come.
    pub(super) wake: Notify,
    /// The buffer was taken.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    answers: BytesMut,
    is_finished: bool,
    /// The turn that is being answered will flush.
    is_due: bool,
    /// Deliveries of subscriptions that the write task has not taken yet.
    deliveries: usize,
    /// Lent by the write task while it waits: everything taken before has been written.
    socket: Option<OwnedWriteHalf>,
}

impl Outbox {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            wake: Notify::new(),
            taken: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted of the broker.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts an error that goes out, and the decision behind it.
    pub(super) fn count(&self, refusal: &Refusal) {
        let (code, rejection) = (refusal.code, refusal.rejection);
        self.metrics.server.refused(code, rejection);
    }

    /// A subscription opens.
    pub(super) fn subscribed(&self) {
        self.metrics.server.subscriptions.rise();
        self.goes_on();
    }

    /// A subscription has ended.
    pub(super) fn unsubscribed(&self) {
        self.metrics.server.subscriptions.fall();
        self.rests();
    }

    /// A subscription has nothing to do until something changes.
    pub(super) fn rests(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// A subscription has something to do.
    pub(super) fn goes_on(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a request took that is answered now.
    pub(super) fn answered(&self, kind: Kind, begun: Instant) {
        let times = self.metrics.server.request_seconds.of(kind);
        times.record_time(begun.elapsed());
    }

    /// Queues a frame.
    pub(super) fn push(&self, frame: &Frame) {
        if let Some(kind) = Kind::from_number(frame.header.kind) {
            self.metrics.server.frames_sent.of(kind).add(1);
        }
        self.fill(|to| {
            frame.header.encode(to);
            to.extend_from_slice(&frame.body);
        });
    }

    /// Queues a successful answer.
    pub(super) fn answer(&self, kind: Kind, correlation: u32, body: Bytes) {
        self.push(&Frame::response(kind, correlation, body));
    }

    /// Queues a refusal.
    pub(super) fn refuse(&self, kind: Kind, correlation: u32, refusal: &Refusal) {
        self.count(refusal);
        self.push(&Frame::refusal(
            kind,
            correlation,
            refusal.code,
            refusal.encode(),
        ));
    }

    /// Queues a publish answer without an allocation of its own; to be flushed with its turn.
    pub(super) fn ack(
        self: &Arc<Self>,
        correlation: u32,
        ack: &PublishAck,
    ) -> Option<Arc<dyn Flush>> {
        let header = FrameHeader {
            body_bytes: ACK_BYTES,
            kind: Kind::Publish.number(),
            is_response: true,
            status: 0,
            correlation,
        };
        self.metrics.server.frames_sent.of(Kind::Publish).add(1);
        let mut state = self.lock();
        header.encode(&mut state.answers);
        ack.encode(&mut state.answers);
        self.waiting.store(state.answers.len(), Ordering::Relaxed);
        let is_due = core::mem::replace(&mut state.is_due, true);
        drop(state);
        (!is_due).then(|| Arc::clone(self) as Arc<dyn Flush>)
    }

    /// A delivery of a subscription is about to be queued for the write task.
    pub(super) fn delivering(&self) {
        self.lock().deliveries += 1;
    }

    /// Queues a delivery among the answers, to be flushed with its turn. `None`: it would overtake another one, or
    /// wait behind a peer that does not read.
    pub(super) fn deliver(self: &Arc<Self>, head: &[u8], batches: &[Bytes]) -> Option<Direct> {
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        let mut state = self.lock();
        // INVARIANT: a socket that is lent has been given everything that the write task has taken.
        let is_clear = state.socket.is_some() && state.deliveries == 0;
        if !is_clear || state.answers.len() + head.len() + bytes > KEPT_BYTES_MAX {
            return None;
        }
        state.answers.extend_from_slice(head);
        for batch in batches {
            state.answers.extend_from_slice(batch);
        }
        self.waiting.store(state.answers.len(), Ordering::Relaxed);
        let is_due = core::mem::replace(&mut state.is_due, true);
        drop(state);
        self.metrics.server.frames_sent.of(Kind::Deliver).add(1);
        Some(Direct(
            (!is_due).then(|| Arc::clone(self) as Arc<dyn Flush>),
        ))
    }

    fn fill(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.lock();
        let was_empty = state.answers.is_empty();
        write(&mut state.answers);
        self.waiting.store(state.answers.len(), Ordering::Relaxed);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Moves the waiting answers to `into`, which must be empty, to be written before `next`. Returns whether more
    /// may come.
    pub(super) fn take(&self, into: &mut BytesMut, next: Option<&Delivery>) -> bool {
        if into.capacity() > KEPT_BYTES_MAX {
            *into = BytesMut::new();
        }
        let mut state = self.lock();
        core::mem::swap(&mut state.answers, into);
        if next.is_some_and(Delivery::is_of_subscription) {
            state.deliveries = state.deliveries.saturating_sub(1);
        }
        let is_open = !state.is_finished;
        self.emptied(&state);
        is_open
    }

    fn emptied(&self, state: &State) {
        let before = self.waiting.swap(state.answers.len(), Ordering::Relaxed);
        if before > ANSWER_BYTES_MAX {
            self.taken.notify_one();
        }
    }

    /// Lends the socket until [`take_back`](Self::take_back). For the write task alone, with nothing in hand.
    pub(super) fn lend(&self, socket: OwnedWriteHalf) {
        self.lock().socket = Some(socket);
    }

    /// The socket that was lent.
    pub(super) fn take_back(&self) -> Option<OwnedWriteHalf> {
        self.lock().socket.take()
    }

    /// Nothing more will be queued.
    pub(super) fn finish(&self) {
        self.lock().is_finished = true;
        self.wake.notify_one();
    }

    /// Waits until few enough answers wait. For the read task alone.
    ///
    /// CANCEL SAFETY: holds nothing.
    pub(super) async fn room(&self) {
        // ORDER: what was stored under the lock is seen here at the latest when `taken` says so.
        while self.waiting.load(Ordering::Relaxed) > ANSWER_BYTES_MAX {
            self.taken.notified().await;
        }
    }
}

impl Flush for Outbox {
    fn flush(&self, count: usize) {
        let mut state = self.lock();
        state.is_due = false;
        if state.answers.is_empty() {
            return;
        }
        let State {
            answers, socket, ..
        } = &mut *state;
        // Where deliveries may follow, the write task sends both with one write.
        if let Some(socket) = socket
            && count <= DIRECT_MAX
            && self.busy.load(Ordering::Relaxed) == 0
            && let Ok(written) = socket.try_write(answers)
        {
            self.metrics.server.bytes_sent.add(written as u64);
            answers.advance(written);
            self.emptied(&state);
            if state.answers.is_empty() {
                return;
            }
        }
        drop(state);
        self.wake.notify_one();
    }
}
