//! What leaves a connection: answers at once, deliveries behind them.
//!
//! Answers go into a buffer under a short lock, from any thread; the write task takes all of
//! them at one wake-up. The buffer is bounded because requests in flight are, and because the
//! read task takes no new request while more than [`ANSWER_BYTES_MAX`] wait.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::PublishAck;
use falcon_protocol::{Frame, FrameHeader, Kind};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::refusal::Refusal;
use crate::clock::Instant;
use crate::metrics::Metrics;

/// LIMIT: bytes of answers that may wait before the connection reads no more requests.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const ACK_BYTES: u32 = 24;

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

#[derive(Debug)]
pub(super) struct Outbox {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something waits to be written, or nothing more will come.
    pub(super) wake: Notify,
    /// The buffer was taken.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    answers: BytesMut,
    is_finished: bool,
}

impl Outbox {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            state: Mutex::default(),
            wake: Notify::new(),
            taken: Notify::new(),
        }
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

    /// Queues a publish answer without an allocation of its own.
    pub(super) fn ack(&self, correlation: u32, ack: &PublishAck) {
        let header = FrameHeader {
            body_bytes: ACK_BYTES,
            kind: Kind::Publish.number(),
            is_response: true,
            status: 0,
            correlation,
        };
        self.metrics.server.frames_sent.of(Kind::Publish).add(1);
        self.fill(|to| {
            header.encode(to);
            ack.encode(to);
        });
    }

    fn fill(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = state.answers.is_empty();
        write(&mut state.answers);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Moves the waiting answers to `into`, which must be empty. Returns whether more may come.
    pub(super) fn take(&self, into: &mut BytesMut) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        core::mem::swap(&mut state.answers, into);
        let is_open = !state.is_finished;
        drop(state);
        self.taken.notify_one();
        is_open
    }

    /// Nothing more will be queued.
    pub(super) fn finish(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_finished = true;
        self.wake.notify_one();
    }

    /// Waits until few enough answers wait. For the read task alone.
    ///
    /// CANCEL SAFETY: holds nothing.
    pub(super) async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            let waiting = self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .answers
                .len();
            if waiting <= ANSWER_BYTES_MAX {
                return;
            }
            taken.await;
        }
    }
}
