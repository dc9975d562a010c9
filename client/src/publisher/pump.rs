//! The task of a publisher: takes batches from the intake, sends them, hears the answers.

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::Frame;
use falcon_protocol::message::PublishAck;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::completion::BatchReceipt;
use super::lane::{Flight, Identity, Lane};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::clock;
use crate::connection::{LinkState, Session};
use crate::error::{Error, LostReason, PublishError, Refusal};
use crate::sync::lock;
use crate::topics::TopicMeta;

/// How often the number of partitions is looked up.
const TOPIC_REFRESH: Duration = Duration::from_secs(5);
/// Longest sleep of a pump that waits for nothing in particular.
const IDLE: Duration = Duration::from_secs(600);

/// What a pump learns from what it asked for.
pub(super) enum Event {
    /// A publish was answered, or will not be.
    Answered {
        lane: usize,
        number: u64,
        session: u64,
        answer: Result<Frame, LostReason>,
    },
    /// A new identity came, or did not.
    Identity(Result<Identity, Error>),
    /// Fresh knowledge of the topic came, or did not.
    Topic(Result<TopicMeta, Error>),
}

/// Why the loop turns.
enum Turn {
    Intake,
    Event(Event),
    All,
}

pub(super) struct Pump {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Vec<Lane>,
    pub(super) backoffs: Vec<Backoff>,
    /// The newest identity; a lane's own may be older.
    pub(super) identity: Identity,
    pub(super) topic: TopicMeta,
    pub(super) events: FuturesUnordered<BoxFuture<'static, Event>>,
    pub(super) is_identity_asked: bool,
    pub(super) is_topic_asked: bool,
    link: watch::Receiver<LinkState>,
    pub(super) session: Option<Arc<Session>>,
    /// A publish found no room on the connection.
    pub(super) is_blocked: bool,
    pub(super) identity_backoff: Backoff,
    /// When something is due without an event.
    pub(super) due: Instant,
    topic_due: Instant,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>, identity: Identity, topic: TopicMeta) -> Self {
        let link = shared.core.link.watch();
        let mut pump = Self {
            shared,
            lanes: Vec::new(),
            backoffs: Vec::new(),
            identity,
            topic,
            events: FuturesUnordered::new(),
            is_identity_asked: false,
            is_topic_asked: false,
            link,
            session: None,
            is_blocked: false,
            identity_backoff: Backoff::default(),
            due: clock::now(),
            topic_due: clock::deadline_in(TOPIC_REFRESH),
        };
        pump.grow(topic.partitions);
        pump
    }

    /// Makes lanes for partitions that are new.
    pub(super) fn grow(&mut self, partitions: u32) {
        lock(&self.shared.intake).grow(partitions);
        let partitions = lock(&self.shared.intake).partitions();
        let identity = self.identity;
        if partitions > self.lanes.len() {
            self.lanes.resize_with(partitions, || Lane::new(identity));
            self.backoffs.resize_with(partitions, Backoff::default);
        }
    }

    /// Runs until the publisher is closed and everything it took has ended, or until the client
    /// stops.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let closing = async {
            shared.core.draining.cancelled().await;
            shared.close_with(PublishError::Closed);
            std::future::pending::<()>().await;
        };
        // CANCEL SAFETY: what is in flight when the client stops is abandoned below; `closing` only
        // waits, and never ends by itself.
        tokio::select! {
            () = shared.core.stop.cancelled() => {}
            () = closing => {}
            () = self.turn_until_done() => {}
        }
        self.abandon_all();
    }

    async fn turn_until_done(&mut self) {
        let mut turn = Turn::All;
        loop {
            self.session = self.link.borrow_and_update().session();
            let session = self.session.clone();
            let idle = tokio::sync::Notify::new();
            let room = session.as_ref().map_or(&idle, |session| session.room());
            let room = room.notified();
            tokio::pin!(room);
            // ORDER: registered before publishes are started, or room that appears is missed.
            room.as_mut().enable();
            self.handle(turn);
            if self.is_done() {
                return;
            }
            let is_blocked = self.is_blocked;
            // CANCEL SAFETY: notifications not consumed stay; answers not taken stay in `events`;
            // `changed` and `room` only wait.
            let next = timeout_at(self.due.min(self.topic_due), async {
                tokio::select! {
                    () = self.shared.wake.notified() => Turn::Intake,
                    Some(event) = self.events.next() => Turn::Event(event),
                    _ = self.link.changed() => Turn::All,
                    () = room, if is_blocked => Turn::All,
                }
            });
            turn = next.await.unwrap_or(Turn::All);
        }
    }

    fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Intake => {}
            Turn::Event(event) => {
                self.apply(event);
                // What else is there already needs no turn of its own.
                while let Some(Some(event)) = self.events.next().now_or_never() {
                    self.apply(event);
                }
            }
            Turn::All => {
                self.is_blocked = false;
                self.due = clock::deadline_in(IDLE);
                if clock::now() >= self.topic_due {
                    self.topic_due = clock::deadline_in(TOPIC_REFRESH);
                    self.ask_topic();
                }
                for index in 0..self.lanes.len() {
                    self.advance(index, false);
                }
            }
        }
        let ready = lock(&self.shared.intake).take_ready();
        for index in ready {
            self.advance(index, false);
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Answered {
                lane,
                number,
                session,
                answer,
            } => {
                self.answered(lane, number, session, answer);
                self.advance(lane, true);
            }
            Event::Identity(granted) => self.identity_came(granted),
            Event::Topic(meta) => self.topic_came(&meta),
        }
    }

    fn answered(
        &mut self,
        index: usize,
        number: u64,
        session: u64,
        answer: Result<Frame, LostReason>,
    ) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let frame = match answer {
            Ok(frame) => frame,
            Err(reason) => return self.publish_lost(index, number, session, &reason),
        };
        if let Some(refusal) = Refusal::of(&frame) {
            tracing::debug!(partition = index, %refusal, "batch refused");
            return lane.refused(number, session, refusal);
        }
        let Ok(ack) = PublishAck::decode(&frame.body) else {
            let reason = LostReason::Protocol("a publish answer cannot be read");
            if let Some(current) = self.session.as_ref().filter(|s| s.number() == session) {
                current.end(reason.clone());
            }
            return self.publish_lost(index, number, session, &reason);
        };
        if let Some(flight) = lane.acked(number) {
            if let Some(backoff) = self.backoffs.get_mut(index) {
                backoff.reset();
            }
            let receipt = BatchReceipt {
                base_offset: ack.base_offset,
                append_time_ms: ack.append_time_ms,
                is_duplicate: ack.is_duplicate,
            };
            self.shared.succeed(&flight, receipt);
        }
    }

    fn publish_lost(&mut self, index: usize, number: u64, session: u64, reason: &LostReason) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        lane.lost(number, session, reason);
        // Without idempotence a second attempt could store the records twice.
        let is_lost = |flight: &Flight| flight.number == number && flight.is_uncertain;
        if !lane.identity.id.is_idempotent() && lane.front().is_some_and(is_lost) {
            self.fail_front(index, &PublishError::Lost(reason.clone()));
        }
    }

    fn is_done(&self) -> bool {
        let intake = lock(&self.shared.intake);
        intake.closed.is_some() && intake.is_settled()
    }

    fn abandon_all(&mut self) {
        let left: Vec<Flight> = self.lanes.iter_mut().flat_map(Lane::take_all).collect();
        self.shared.abandon(left);
    }
}
