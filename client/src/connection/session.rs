//! One live connection: what can be asked of it, and what happens to what it receives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::message::{Credit, Delivery, HelloResponse, Window};
use falcon_protocol::{Frame, Kind};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::outbox::{OutFrame, Outbox};
use super::routes::{Incoming, Inlet, Reply, Routes};
use super::tray::{Slip, Tag, Tray};
use crate::error::{LostReason, Refusal};
use crate::sync::lock;

/// Heartbeat intervals without a byte until the connection counts as dead.
pub(super) const SILENT_INTERVALS_MAX: u32 = 3;
/// Heartbeat intervals outside of this are taken for its nearer end.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// Why a request was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartError {
    /// The broker's limits leave no room now: see [`Session::room`].
    Busy,
    /// The connection has ended or is about to: use the next one.
    Ended,
}

/// One live connection.
pub(crate) struct Session {
    number: u64,
    address: String,
    granted: HelloResponse,
    routes: Mutex<Routes>,
    room: Notify,
    pub(super) outbox: Outbox,
    ended: CancellationToken,
    draining: CancellationToken,
    is_leaving: AtomicBool,
    reason: OnceLock<LostReason>,
}

impl Session {
    pub(super) fn new(address: String, granted: HelloResponse) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let gate = Gate::new(granted.requests_in_flight_max, granted.publish_window_bytes);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            address,
            granted,
            routes: Mutex::new(Routes::new(gate)),
            room: Notify::new(),
            outbox: Outbox::default(),
            ended: CancellationToken::new(),
            draining: CancellationToken::new(),
            is_leaving: AtomicBool::new(false),
            reason: OnceLock::new(),
        }
    }

    /// Tells connections of this process apart.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Where the broker is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What the broker granted in the handshake.
    pub(crate) const fn granted(&self) -> &HelloResponse {
        &self.granted
    }

    pub(super) fn heartbeat(&self) -> Duration {
        let interval = Duration::from_millis(u64::from(self.granted.heartbeat_ms));
        interval.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)
    }

    /// Cancelled when the connection has ended.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Cancelled when the broker announced its end.
    pub(crate) const fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// The client said goodbye: the end that follows is wanted.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Why the connection ended.
    pub(crate) fn reason(&self) -> LostReason {
        self.reason
            .get()
            .cloned()
            .unwrap_or(LostReason::ClosedByBroker)
    }

    /// Notified when room appears for requests that were [`StartError::Busy`].
    pub(crate) const fn room(&self) -> &Notify {
        &self.room
    }

    /// Starts a publish, whose answer comes to `tray` under `tag`. Publishes started one after the other leave in
    /// that order; one that `is_lone` leaves from here if it can.
    pub(crate) fn start_publish(
        &self,
        front: &[u8],
        batch: &Bytes,
        (tray, tag): (&Arc<Tray>, Tag),
        is_lone: bool,
    ) -> Result<(), StartError> {
        let bytes = (front.len() + batch.len()) as u64;
        let reply = || Reply::Tray(Slip::new(tray, tag));
        let correlation = self.enter(Kind::Publish, bytes, reply)?;
        let frame = OutFrame::request(Kind::Publish, correlation, front, batch.clone());
        if is_lone {
            self.outbox.push_lone(frame);
        } else {
            self.outbox.push_bulk(frame);
        }
        Ok(())
    }

    /// Starts a step, which counts as a publish of its size.
    pub(crate) fn start_step(&self, step: &Bytes) -> Result<oneshot::Receiver<Frame>, StartError> {
        let (reply, answer) = oneshot::channel();
        let reply = || Reply::One(reply);
        let correlation = self.enter(Kind::Step, step.len() as u64, reply)?;
        let frame = OutFrame::request(Kind::Step, correlation, &[], step.clone());
        self.outbox.push_bulk(frame);
        Ok(answer)
    }

    /// Starts a control request.
    pub(crate) fn start(
        &self,
        kind: Kind,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Frame>, StartError> {
        let (reply, answer) = oneshot::channel();
        let correlation = self.enter(kind, 0, || Reply::One(reply))?;
        self.push(OutFrame::request(kind, correlation, &[], body));
        Ok(answer)
    }

    /// Starts a Subscribe, whose number is returned; `inlet` takes what arrives for it.
    pub(crate) fn start_subscribe(
        &self,
        body: Bytes,
        inlet: Arc<dyn Inlet>,
    ) -> Result<(u32, oneshot::Receiver<Frame>), StartError> {
        let (reply, answer) = oneshot::channel();
        let correlation = {
            let mut routes = lock(&self.routes);
            let correlation =
                Self::enter_in(&mut routes, Kind::Subscribe, 0, || Reply::One(reply))?;
            // ORDER: known before the answer can be, and what is delivered behind it.
            routes.add_inlet(correlation, inlet);
            correlation
        };
        self.push(OutFrame::request(Kind::Subscribe, correlation, &[], body));
        Ok((correlation, answer))
    }

    fn enter(
        &self,
        kind: Kind,
        publish_bytes: u64,
        reply: impl FnOnce() -> Reply,
    ) -> Result<u32, StartError> {
        Self::enter_in(&mut lock(&self.routes), kind, publish_bytes, reply)
    }

    fn enter_in(
        routes: &mut Routes,
        kind: Kind,
        publish_bytes: u64,
        reply: impl FnOnce() -> Reply,
    ) -> Result<u32, StartError> {
        // Goodbye and Unsubscribe are how a draining connection comes to its end.
        let is_ending = matches!(kind, Kind::Goodbye | Kind::Unsubscribe);
        if !routes.is_open || (routes.is_draining && !is_ending) {
            return Err(StartError::Ended);
        }
        if !routes.gate.try_enter(publish_bytes) {
            routes.is_room_wanted = true;
            return Err(StartError::Busy);
        }
        Ok(routes.add(kind, publish_bytes, reply()))
    }

    /// Grants credit to a subscription. One way, never blocks.
    pub(crate) fn grant(&self, subscription: u32, credit: Credit) {
        let body = credit.encode();
        self.push(OutFrame::request(Kind::Credit, subscription, &[], body));
    }

    /// Takes no more deliveries of this subscription.
    pub(crate) fn forget(&self, subscription: u32) {
        lock(&self.routes).remove_inlet(subscription);
    }

    pub(super) fn ping(&self) {
        self.push(OutFrame::request(Kind::Ping, 0, &[], Bytes::new()));
    }

    fn push(&self, frame: OutFrame) {
        if self.outbox.push_control(frame).is_err() {
            self.end(LostReason::Protocol("it sends, but does not read"));
        }
    }

    /// Ends the connection; the first reason stays.
    pub(crate) fn end(&self, reason: LostReason) {
        self.reason.set(reason).ok();
        // ORDER: the reason stands before anybody can learn of the end.
        lock(&self.routes).close(&self.reason());
        self.ended.cancel();
        self.room.notify_waiters();
    }

    /// Handles one frame; `Err` ends the connection.
    pub(super) fn dispatch(&self, frame: Frame) -> Result<(), LostReason> {
        let Some(kind) = Kind::from_number(frame.header.kind) else {
            return Ok(()); // A newer broker's notice: not for us.
        };
        if frame.header.is_response {
            return self.dispatch_response(kind, frame);
        }
        match kind {
            Kind::Ping => self.push(OutFrame::response(kind, frame.header.correlation)),
            Kind::Goodbye => {
                self.push(OutFrame::response(kind, frame.header.correlation));
                self.drain();
            }
            Kind::Draining => self.drain(),
            Kind::Window => {
                let window = Window::decode(&frame.body)
                    .map_err(|_| LostReason::Protocol("a Window frame cannot be read"))?;
                lock(&self.routes)
                    .gate
                    .set_publish_window(window.publish_window_bytes);
                self.room.notify_waiters();
            }
            Kind::Deliver | Kind::PartitionEnded => self.dispatch_incoming(kind, frame)?,
            Kind::Hello
            | Kind::Metadata
            | Kind::CreateTopic
            | Kind::DescribeTopic
            | Kind::ListTopics
            | Kind::AlterTopic
            | Kind::DeleteTopic
            | Kind::Publish
            | Kind::InitProducer
            | Kind::Fetch
            | Kind::Subscribe
            | Kind::Credit
            | Kind::Unsubscribe
            | Kind::ListOffsets
            | Kind::CommitOffsets
            | Kind::FetchOffsets
            | Kind::ListGroups
            | Kind::DeleteOffsets
            | Kind::Step
            | Kind::CommitOwned
            | Kind::ResetOffsets
            | Kind::DeleteGroup
            | Kind::JoinGroup
            | Kind::GroupReport
            | Kind::LeaveGroup
            | Kind::SummarizeGroups
            | Kind::DescribeGroup
            | Kind::ListGroupPartitions => {
                return Err(LostReason::Protocol(
                    "it sent a request that only clients send",
                ));
            }
        }
        Ok(())
    }

    fn dispatch_response(&self, kind: Kind, frame: Frame) -> Result<(), LostReason> {
        let is_own = frame.header.correlation == 0;
        let is_about_all = is_own && matches!(kind, Kind::Hello | Kind::Goodbye);
        if let Some(refusal) = Refusal::of(&frame).filter(|_| is_about_all) {
            return Err(LostReason::Refused(refusal));
        }
        let (routed, is_room_wanted) = {
            let mut routes = lock(&self.routes);
            (routes.answer(frame), routes.take_is_room_wanted())
        };
        if is_room_wanted {
            self.room.notify_waiters();
        }
        routed.map_err(LostReason::Protocol)
    }

    fn dispatch_incoming(&self, kind: Kind, frame: Frame) -> Result<(), LostReason> {
        let Some(inlet) = lock(&self.routes).inlet(frame.header.correlation) else {
            return Ok(()); // Sent before the broker saw Unsubscribe.
        };
        let incoming = if kind == Kind::Deliver {
            let delivery = Delivery::decode(frame.body)
                .map_err(|_| LostReason::Protocol("a Deliver frame cannot be read"))?;
            Incoming::Delivery(delivery)
        } else {
            let refusal = Refusal::of(&frame);
            let refusal =
                refusal.ok_or(LostReason::Protocol("a partition ended without reason"))?;
            let partition = refusal.partition;
            Incoming::Ended { partition, refusal }
        };
        inlet.accept(incoming).map_err(LostReason::Protocol)
    }

    fn drain(&self) {
        lock(&self.routes).is_draining = true;
        self.draining.cancel();
        self.room.notify_waiters();
    }
}
