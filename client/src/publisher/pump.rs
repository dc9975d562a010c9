//! The task of a publisher: takes batches from the intake, sends them, hears the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::message::PublishAck;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::advance::Cause;
use super::completion::BatchReceipt;
use super::lane::{Flight, Identity, Lane};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::clock;
use crate::connection::{Answer, LinkState, Session, Tag, Tray};
use crate::error::{Error, LostReason, PublishError, Refusal};
use crate::sync::lock;
use crate::topics::TopicMeta;

/// How often the number of partitions is looked up.
const TOPIC_REFRESH: Duration = Duration::from_secs(5);
/// Longest sleep of a pump that waits for nothing in particular.
const IDLE: Duration = Duration::from_secs(600);

/// What a pump learns from what it asked for.
pub(super) enum Event {
    /// A new identity came, or did not.
    Identity(Result<Identity, Error>),
    /// Fresh knowledge of the topic came, or did not.
    Topic(Result<TopicMeta, Error>),
}

/// Why the loop turns.
enum Turn {
    /// Records or answers came.
    Woken,
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
    /// Where answers to publishes arrive.
    pub(super) tray: Arc<Tray>,
    /// Publishes that were sent and not answered.
    pub(super) unanswered: usize,
    /// Lanes whose open batch waits because so many are under way, in turn.
    pub(super) crowd: VecDeque<usize>,
    /// When this turn began.
    pub(super) now: Instant,
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
        let tray = Tray::new(Arc::clone(&shared.wake));
        let mut pump = Self {
            shared,
            lanes: Vec::new(),
            backoffs: Vec::new(),
            identity,
            topic,
            events: FuturesUnordered::new(),
            tray,
            unanswered: 0,
            crowd: VecDeque::new(),
            now: clock::now(),
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
        let mut answers = Vec::new();
        let due = sleep_until(self.due);
        tokio::pin!(due);
        loop {
            self.session = self.link.borrow_and_update().session();
            let session = self.session.clone();
            let idle = tokio::sync::Notify::new();
            let room = session.as_ref().map_or(&idle, |session| session.room());
            let room = room.notified();
            tokio::pin!(room);
            // ORDER: registered before publishes are started, or room that appears is missed.
            room.as_mut().enable();
            self.now = clock::now();
            self.tray.take(&mut answers);
            self.handle(turn, &mut answers);
            if self.is_done() {
                return;
            }
            let is_blocked = self.is_blocked;
            let due_at = self.due.min(self.topic_due);
            if due.deadline() != due_at {
                due.as_mut().reset(due_at);
            }
            // CANCEL SAFETY: notifications not consumed stay; what was not taken stays in `events` and
            // in the tray; `changed` and `room` only wait.
            let next = async {
                tokio::select! {
                    () = self.shared.wake.notified() => Turn::Woken,
                    Some(event) = self.events.next() => Turn::Event(event),
                    _ = self.link.changed() => Turn::All,
                    () = room, if is_blocked => Turn::All,
                }
            };
            // CANCEL SAFETY: as above; a timer only waits.
            turn = tokio::select! {
                turn = next => turn,
                () = due.as_mut() => Turn::All,
            };
        }
    }

    fn handle(&mut self, turn: Turn, answers: &mut Vec<Answer>) {
        // Room may have come while this task was awake for something else.
        let is_about_all = self.is_blocked || matches!(turn, Turn::All);
        for answer in answers.drain(..) {
            self.unanswered -= 1;
            let lane = answer.tag.lane;
            self.answered(answer);
            self.advance(lane, Cause::Returned);
        }
        if let Turn::Event(event) = turn {
            self.apply(event);
            // What else is there already needs no turn of its own.
            while let Some(Some(event)) = self.events.next().now_or_never() {
                self.apply(event);
            }
        }
        if is_about_all {
            self.look_at_all();
        }
        let ready = lock(&self.shared.intake).take_ready();
        for index in ready {
            self.advance(index, Cause::Woken);
        }
        self.serve_crowd();
    }

    fn look_at_all(&mut self) {
        self.is_blocked = false;
        self.due = self.now + IDLE;
        if self.now >= self.topic_due {
            self.topic_due = self.now + TOPIC_REFRESH;
            lock(&self.shared.intake).spares.trim();
            self.ask_topic();
        }
        for index in 0..self.lanes.len() {
            self.advance(index, Cause::Woken);
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Identity(granted) => self.identity_came(granted),
            Event::Topic(meta) => self.topic_came(&meta),
        }
    }

    fn answered(&mut self, answer: Answer) {
        let Tag {
            lane: index,
            number,
            session,
        } = answer.tag;
        let frame = match answer.frame {
            Ok(frame) => frame,
            Err(reason) => return self.publish_lost(index, number, session, &reason),
        };
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
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
            self.shared.succeed(flight, receipt);
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
