//! What all handles of one client share: the link, its tasks, the topics known, the counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::codes::{ErrorCode, Outcome};
use falcon_protocol::message::{decode, encode};
use falcon_protocol::{Frame, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::clock;
use crate::connection::{Link, Session, StartError};
use crate::error::{Error, Refusal};
use crate::step::StepLanes;
use crate::sync::lock;
use crate::topics::Topics;

/// Records published by this client, by their end.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) acked: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    /// By consumers, and by subscriptions that have ended.
    pub(crate) delivered: AtomicU64,
    /// Of subscriptions that live.
    tallies: Mutex<Vec<Arc<Tally>>>,
}

/// Records handed out by one subscription. Only that writes it, so counting a record takes no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    #[inline]
    pub(crate) fn add(&self, records: u64) {
        self.0.store(self.count() + records, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// A tally that [`delivered`](Self::delivered) has in it.
    pub(crate) fn open_tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        lock(&self.tallies).push(Arc::clone(&tally));
        tally
    }

    /// Its subscription has ended; what it counted stays.
    pub(crate) fn close_tally(&self, ended: &Arc<Tally>) {
        let mut tallies = lock(&self.tallies);
        tallies.retain(|tally| !Arc::ptr_eq(tally, ended));
        Self::add(&self.delivered, ended.count());
    }

    /// Records handed to the application.
    pub(crate) fn delivered(&self) -> u64 {
        let tallies = lock(&self.tallies);
        let live: u64 = tallies.iter().map(|tally| tally.count()).sum();
        self.delivered.load(Ordering::Relaxed) + live
    }

    pub(crate) fn add(counter: &AtomicU64, records: u64) {
        counter.fetch_add(records, Ordering::Relaxed);
    }
}

/// What all handles of one client share. Tasks hold it; it does not keep the client open.
pub(crate) struct Core {
    pub(crate) link: Link,
    /// Every task but the publishers.
    pub(crate) tracker: TaskTracker,
    /// One task per publisher.
    pub(crate) publishers: TaskTracker,
    /// Asks publishers to send what they have and end.
    pub(crate) draining: CancellationToken,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) topics: Topics,
    pub(crate) counters: Counters,
    /// Lanes for steps without a publisher id.
    pub(crate) steps: Arc<StepLanes>,
    pub(crate) request_timeout: Duration,
}

/// Whether a request may be sent again although its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Sent twice it does what it does once.
    Safe,
    /// Sent twice it may do something twice, or fail because it had succeeded.
    Unsafe,
}

/// Why one attempt of a request had no answer.
enum Missed {
    /// It was not sent.
    NotSent,
    /// It was sent, and the connection was lost.
    Lost(Arc<Session>),
}

impl Core {
    /// Sends a control message and decodes its answer, within the request timeout. Reconnects and
    /// repeats where that is safe.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        operation: &'static str,
        kind: Kind,
        message: &impl Serialize,
        repeat: Repeat,
    ) -> Result<A, Error> {
        let body = encode(message).map_err(|_| Error::InvalidOption {
            option: operation,
            reason: "the request is too large",
        })?;
        let frame = self.request(operation, kind, body, repeat).await?;
        decode(&frame.body).map_err(|_| Error::Answer { operation })
    }

    async fn request(
        &self,
        operation: &'static str,
        kind: Kind,
        body: Bytes,
        repeat: Repeat,
    ) -> Result<Frame, Error> {
        let deadline = clock::deadline_in(self.request_timeout);
        let mut backoff = Backoff::default();
        let mut was_sent = false;
        loop {
            let refusal = match self.attempt(kind, &body, deadline, &mut was_sent).await {
                Ok(Some(Ok(frame))) => match Refusal::of(&frame) {
                    None => return Ok(frame),
                    Some(refusal) if is_passing(&refusal) => refusal,
                    Some(refusal) => return Err(Error::Refused(refusal)),
                },
                Ok(Some(Err(Missed::Lost(session)))) if repeat == Repeat::Unsafe => {
                    return Err(Error::Lost(session.reason()));
                }
                Ok(Some(Err(Missed::Lost(_) | Missed::NotSent))) => continue,
                Ok(None) => return Err(self.timed_out(operation, was_sent)),
                Err(error) => return Err(error),
            };
            let wait = refusal.retry_after.unwrap_or_else(|| backoff.next_wait());
            if clock::now() + wait >= deadline {
                return Err(Error::Refused(refusal));
            }
            sleep(wait).await;
        }
    }

    /// One attempt; `None` when the deadline passed.
    async fn attempt(
        &self,
        kind: Kind,
        body: &Bytes,
        deadline: Instant,
        was_sent: &mut bool,
    ) -> Result<Option<Result<Frame, Missed>>, Error> {
        let answered = timeout_at(deadline, async {
            let session = self.link.session().await?;
            let Some(answer) = start_when_room(&session, kind, body).await else {
                self.link.left(&session).await;
                return Ok(Err(Missed::NotSent));
            };
            *was_sent = true;
            Ok(answer.await.map_err(|_| Missed::Lost(session)))
        });
        match answered.await {
            Ok(Ok(outcome)) => Ok(Some(outcome)),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn timed_out(&self, operation: &'static str, was_sent: bool) -> Error {
        Error::Timeout {
            operation,
            after: self.request_timeout,
            outcome: if was_sent {
                Outcome::Unknown
            } else {
                Outcome::NotApplied
            },
            reason: self.link.down_reason(),
        }
    }
}

/// Waits for room among the requests in flight; `None` when the session takes no more.
pub(crate) async fn start_when_room(
    session: &Session,
    kind: Kind,
    body: &Bytes,
) -> Option<tokio::sync::oneshot::Receiver<Frame>> {
    loop {
        let room = session.room().notified();
        tokio::pin!(room);
        // ORDER: registered before the attempt, or room that appears in between is missed.
        room.as_mut().enable();
        match session.start(kind, body.clone()) {
            Ok(answer) => return Some(answer),
            Err(StartError::Busy) => room.await,
            Err(StartError::Ended) => return None,
        }
    }
}

/// Refusals that say "not now" about the connection rather than about the request.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::TooManyRequests | ErrorCode::Draining | ErrorCode::QueueFull
    )
}

/// Keeps the client open; the last one dropped ends it, without waiting.
pub(crate) struct Keep {
    pub(crate) core: Arc<Core>,
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.core.tracker.close();
        self.core.publishers.close();
    }
}
