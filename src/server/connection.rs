//! One connection: handshake, read loop, end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::limits::{CONTROL_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX};
use falcon_protocol::{ErrorCode, Frame, FrameHeader, Kind};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::Shared;
use super::budget::Budget;
use super::frames::{FrameReader, ReadError};
use super::handshake::{self, HandshakeError};
use super::outbox::{Delivery, Outbox};
use super::refusal::Refusal;
use super::subscribe::SubscriptionHandle;
use super::write::{self, Pace};
use crate::clock::{self, Instant};
use crate::metrics::{Metrics, Rejection};

/// Deliveries that may wait for the write task; their bytes are bounded by the budget.
const DELIVERIES_MAX: usize = 8;
/// LIMIT: partitions of all subscriptions of a connection.
pub(super) const WATCHED_MAX: u64 = 16_384;
/// Control requests up to this size are bounded by their number alone.
const FREE_BYTES_MAX: usize = 256;
/// Bytes read after the last word, so that the peer gets to read it.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Connection: close\r\nContent-Length: 106\r\n\r\n\
    This port speaks Falcon's binary protocol, not HTTP; use the falcon command or a Falcon client library. \r\n";

/// The state of one connection that its request handlers use.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    /// Bytes of unanswered publishes and steps.
    pub(super) window: Arc<Semaphore>,
    /// Unanswered requests.
    pub(super) requests: Arc<Semaphore>,
    /// Bytes read for subscribers and not yet written.
    pub(super) budget: Budget,
    /// Partitions watched by its subscriptions.
    pub(super) watched: Arc<Semaphore>,
    pub(super) subscriptions: HashMap<u32, SubscriptionHandle>,
    /// Tasks of this connection.
    pub(super) tasks: TaskTracker,
    /// Ends them.
    pub(super) token: CancellationToken,
    /// Pays for the body of the control request that is being handled.
    pub(super) paid: Option<OwnedSemaphorePermit>,
    /// The last large publish came without delay.
    pub(super) is_prompt: bool,
    /// The connection is about to end: requests that wait for something answer now.
    pub(super) ending: CancellationToken,
    pub(super) frame_bytes_max: u32,
    /// How the client reaches this broker.
    pub(super) address: String,
    /// When the header of the request that is being handled was there.
    pub(super) begun: Instant,
    /// Who it is.
    pub(super) origin: Arc<Origin>,
}

/// Where a connection comes from, for people.
#[derive(Debug)]
pub(super) struct Origin {
    /// The client's name of its handshake.
    pub(super) client: String,
    /// Its address.
    pub(super) address: String,
}

/// Why the read loop ended.
enum End {
    /// The peer is gone: nothing to say.
    Gone(ReadError),
    /// Said with a last frame.
    Refused(Refusal),
    /// The peer said goodbye with this correlation.
    Goodbye(u32),
    /// The broker is shutting down.
    Draining,
    /// The broker waits no longer.
    Aborted,
}

/// How a connection is asked to end.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    /// After what is in flight.
    pub(super) draining: CancellationToken,
    /// At once: the grace period is over.
    pub(super) abort: CancellationToken,
}

/// Serves a socket until it ends. `permit` is its place among the connections.
///
/// INVARIANT: nothing of the connection, above all no way to the writer, outlives this future.
pub(super) async fn serve(
    socket: TcpStream,
    shared: Arc<Shared>,
    stop: Stop,
    permit: OwnedSemaphorePermit,
) {
    let id = shared.metrics.server.accepted.add(1);
    let _open = Open::new(Arc::clone(&shared.metrics));
    let peer = socket
        .peer_addr()
        .map_or_else(|_| "unknown".into(), |peer| peer.to_string());
    let local = socket
        .local_addr()
        .map_or_else(|_| "unknown".into(), |local| local.to_string());
    let _ignored = socket.set_nodelay(true);
    let (read, mut write) = socket.into_split();
    let idle = Duration::from_millis(shared.timeouts.idle_ms);
    let stall = Duration::from_millis(shared.timeouts.stall_ms);
    let mut frames = FrameReader::new(read, HANDSHAKE_FRAME_BYTES_MAX, idle, stall);
    frames.metrics = Some(Arc::clone(&shared.metrics));
    let handshake = stop
        .abort
        .run_until_cancelled(handshake::run(&mut frames, &shared, id));
    let Some(handshake) = handshake.await else {
        return;
    };
    let agreed = match handshake {
        Ok(agreed) => agreed,
        Err(failure) => {
            let last = explain(&shared, id, &peer, failure);
            say_and_close(&mut frames, &mut write, &last).await;
            return;
        }
    };
    info!(connection = id, peer, client = agreed.client, "connected");
    frames.body_bytes_max = agreed.frame_bytes_max;
    let outbox = Arc::new(Outbox::new(Arc::clone(&shared.metrics)));
    outbox.push(&agreed.answer);
    let (deliveries, delivery_queue) = mpsc::channel(DELIVERIES_MAX);
    let tasks = TaskTracker::new();
    let pace = Pace {
        heartbeat: Duration::from_millis(shared.timeouts.heartbeat_ms),
        stall,
    };
    let write = write::run(write, Arc::clone(&outbox), delivery_queue, pace);
    let (abort, token) = (stop.abort.clone(), stop.abort.child_token());
    let (broken, lender) = (token.clone(), Arc::clone(&outbox));
    let writing = tasks.spawn(async move {
        let written = abort.run_until_cancelled(write).await;
        // A socket that was lent would stay open for as long as an answer is expected.
        drop(lender.take_back());
        // Answers cannot leave any more: nothing of this connection has a purpose.
        broken.cancel();
        written
    });
    let mut connection = Connection {
        id,
        window: semaphore(shared.limits.in_flight_bytes_per_connection),
        requests: semaphore(u64::from(shared.limits.requests_in_flight_per_connection)),
        budget: Budget::new(
            shared.limits.delivery_bytes_per_connection,
            shared.spare.clone(),
        ),
        watched: semaphore(WATCHED_MAX),
        address: shared.advertise.clone().unwrap_or(local),
        frame_bytes_max: agreed.frame_bytes_max,
        shared,
        outbox,
        deliveries,
        subscriptions: HashMap::new(),
        tasks,
        token: token.clone(),
        paid: None,
        is_prompt: false,
        ending: stop.draining.child_token(),
        begun: Instant::now(),
        origin: Arc::new(Origin {
            client: agreed.client,
            address: peer,
        }),
    };
    // CANCEL SAFETY: a request that is dropped half read or not handed over is not answered, which
    // the end of the connection tells the client.
    let end = {
        let read = token.run_until_cancelled(connection.read(&mut frames));
        let read = stop.draining.run_until_cancelled(read).await;
        read.map_or(End::Draining, |read| read.unwrap_or(End::Aborted))
    };
    connection.end(end, &mut frames, writing).await;
    drop(permit);
}

/// Counts a connection as open while it lives.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.server.open.rise();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.server.open.fall();
    }
}

pub(crate) fn semaphore(permits: u64) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

impl Connection {
    async fn read(&mut self, frames: &mut FrameReader) -> End {
        loop {
            self.outbox.room().await;
            let outcome = match frames.header().await {
                Ok(header) => self.request(frames, header).await,
                Err(error) => Err(explain_read(error)),
            };
            match outcome {
                // Requests that wait for nothing would keep a worker from other connections.
                Ok(None) => tokio::task::coop::consume_budget().await,
                Ok(Some(goodbye)) => return End::Goodbye(goodbye),
                Err(end) => return end,
            }
        }
    }

    /// Reads the body and handles the request; the correlation of a goodbye ends the loop.
    async fn request(
        &mut self,
        frames: &mut FrameReader,
        header: FrameHeader,
    ) -> Result<Option<u32>, End> {
        let body_bytes = header.body_bytes as usize;
        self.begun = Instant::now();
        let Some(kind) = Kind::from_number(header.kind) else {
            frames.skip(body_bytes).await.map_err(explain_read)?;
            let text = format!("request kind {} is not known to this broker", header.kind);
            let refusal = Refusal::new(ErrorCode::UnknownRequest, text);
            let code = refusal.code;
            self.outbox.count(&refusal);
            self.shared.metrics.server.frames_unknown.add(1);
            // The kind is echoed by number, so that a newer client recognises its request.
            let mut frame =
                Frame::refusal(Kind::Goodbye, header.correlation, code, refusal.encode());
            frame.header.kind = header.kind;
            self.outbox.push(&frame);
            return Ok(None);
        };
        self.shared.metrics.server.frames_received.of(kind).add(1);
        if header.is_response {
            frames.skip(body_bytes).await.map_err(explain_read)?;
            return Ok(None);
        }
        if kind == Kind::Publish {
            self.publish(frames, header).await.map_err(explain_read)?;
            return Ok(None);
        }
        if kind == Kind::Step {
            self.step(frames, header).await.map_err(explain_read)?;
            return Ok(None);
        }
        if body_bytes > CONTROL_BYTES_MAX {
            let text = format!(
                "a {} request of {body_bytes} bytes is too large",
                kind.name()
            );
            return Err(End::Refused(Refusal::new(ErrorCode::FrameTooLarge, text)));
        }
        if body_bytes > FREE_BYTES_MAX {
            match self.pay_control(body_bytes).await {
                Ok(paid) => self.paid = Some(paid),
                Err(refusal) => {
                    frames.skip(body_bytes).await.map_err(explain_read)?;
                    self.refuse(kind, header.correlation, &refusal);
                    return Ok(None);
                }
            }
        }
        let body = frames.body(body_bytes).await.map_err(explain_read)?;
        if kind == Kind::Goodbye {
            return Ok(Some(header.correlation));
        }
        self.control(kind, header.correlation, body).await;
        self.paid = None;
        Ok(None)
    }

    /// A place among the requests in flight; waiting for it stops reading.
    pub(super) async fn request_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.requests).acquire_owned().await.ok()
    }

    pub(super) fn refuse(&self, kind: Kind, correlation: u32, refusal: &Refusal) {
        debug!(
            connection = self.id,
            kind = kind.name(),
            code = refusal.code.name(),
            text = refusal.body.text,
            "refused"
        );
        self.outbox.refuse(kind, correlation, refusal);
    }

    async fn end(
        mut self,
        end: End,
        frames: &mut FrameReader,
        writing: tokio::task::JoinHandle<Option<Result<(), write::WriteError>>>,
    ) {
        let id = self.id;
        self.ending.cancel();
        if matches!(end, End::Goodbye(_) | End::Draining) {
            if matches!(end, End::Draining) {
                let frame = Frame::request(Kind::Draining, 0, bytes::Bytes::new());
                self.outbox.push(&frame);
            }
            let finish = self.finish_requests();
            let _broken = self.token.run_until_cancelled(finish).await;
        }
        match end {
            End::Aborted => info!(
                connection = id,
                reason = "answers cannot leave",
                "disconnected"
            ),
            End::Gone(reason) => info!(connection = id, %reason, "disconnected"),
            End::Goodbye(correlation) => {
                self.outbox
                    .answer(Kind::Goodbye, correlation, bytes::Bytes::new());
                info!(connection = id, reason = "goodbye", "disconnected");
            }
            End::Draining => {
                let refusal = Refusal::of(ErrorCode::Draining).retry_later();
                self.outbox.refuse(Kind::Goodbye, 0, &refusal);
                info!(connection = id, reason = "shutdown", "disconnected");
            }
            End::Refused(refusal) => {
                warn!(
                    connection = id,
                    code = refusal.code.name(),
                    reason = refusal.body.text,
                    "disconnected"
                );
                self.outbox.refuse(Kind::Goodbye, 0, &refusal);
            }
        }
        self.token.cancel();
        self.subscriptions.clear();
        self.outbox.finish();
        self.tasks.close();
        let _drained = timeout(DRAIN_PATIENCE, frames.drain(DRAIN_BYTES_MAX)).await;
        if let Ok(Some(Err(reason))) = writing.await {
            if matches!(reason, write::WriteError::Stalled) {
                let rejections = &self.shared.metrics.server.rejections;
                rejections.add(Rejection::StalledReading);
            }
            debug!(connection = id, %reason, "the last words were not delivered");
        }
        self.tasks.wait().await;
    }

    /// Waits until every request in flight is answered.
    async fn finish_requests(&self) {
        let all = self.shared.limits.requests_in_flight_per_connection;
        let _all = self.requests.acquire_many(all).await;
    }
}

fn explain_read(error: ReadError) -> End {
    let text = error.to_string();
    match error {
        ReadError::Frame(frame) => End::Refused(frame.into()),
        ReadError::Idle(_) => End::Refused(Refusal::new(ErrorCode::IdleTimeout, text)),
        ReadError::Stalled(_) => End::Refused(Refusal::new(ErrorCode::StallTimeout, text)),
        gone @ (ReadError::Closed | ReadError::Cut | ReadError::Broken(_)) => End::Gone(gone),
    }
}

/// Logs a failed handshake and says what the peer is told.
fn explain(shared: &Shared, id: u64, peer: &str, failure: HandshakeError) -> Vec<u8> {
    let server = &shared.metrics.server;
    match failure {
        HandshakeError::Gone(reason) => {
            debug!(connection = id, peer, %reason, "left before the handshake");
            Vec::new()
        }
        HandshakeError::Http => {
            if let Some(left_out) = shared.warnings.admit(0, clock::monotonic_ms()) {
                warn!(
                    connection = id,
                    peer, left_out, "an HTTP request came to the broker's port"
                );
            }
            server.rejections.add(Rejection::Http);
            HTTP_ANSWER.to_vec()
        }
        HandshakeError::Refused {
            correlation,
            refusal,
        } => {
            let kind = refusal.code.number();
            if let Some(left_out) = shared.warnings.admit(kind, clock::monotonic_ms()) {
                warn!(
                    connection = id,
                    peer,
                    code = refusal.code.name(),
                    reason = refusal.body.text,
                    left_out,
                    "the handshake was refused"
                );
            }
            server.refused(refusal.code, refusal.rejection);
            server.frames_sent.of(Kind::Hello).add(1);
            let body = refusal.encode();
            Frame::refusal(Kind::Hello, correlation, refusal.code, body)
                .to_bytes()
                .to_vec()
        }
    }
}

pub(super) async fn say_and_close(
    frames: &mut FrameReader,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    last: &[u8],
) {
    let say = async {
        if !last.is_empty() {
            write.write_all(last).await?;
        }
        write.shutdown().await
    };
    if let Ok(Ok(())) = timeout(DRAIN_PATIENCE, say).await {
        let _drained = timeout(DRAIN_PATIENCE, frames.drain(DRAIN_BYTES_MAX)).await;
    }
}
