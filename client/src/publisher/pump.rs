//! The task of a publisher: takes batches from the intake, sends them, hears the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use falcon_protocol::message::{PUBLISH_HEADER_BYTES, PublishAck, PublishHeader};
use falcon_protocol::{Frame, Partition, PartitionId};
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::completion::BatchReceipt;
use super::intake::OpenBatch;
use super::lane::{Flight, Hold, Identity, Lane, Stage};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::clock;
use crate::connection::{LinkState, Session, StartError};
use crate::error::{Error, LostReason, PublishError, Refusal};
use crate::sync::lock;
use crate::topics::TopicMeta;

/// How often the number of partitions is looked up.
const TOPIC_REFRESH: Duration = Duration::from_secs(60);
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
    session: Option<Arc<Session>>,
    /// A publish found no room on the connection.
    is_blocked: bool,
    pub(super) identity_backoff: Backoff,
    /// When something is due without an event.
    due: Instant,
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
            Event::Topic(meta) => self.topic_came(meta),
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

    /// Does what can be done in a lane: judge, expire, take, send. `has_returned` says that an
    /// answer just came, which lets the open batch leave.
    pub(super) fn advance(&mut self, index: usize, has_returned: bool) {
        self.release(index);
        self.judge(index);
        self.expire(index);
        self.fill(index, has_returned);
        self.send(index);
        self.note_due(index);
    }

    /// A wait that is over holds no longer.
    fn release(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            if matches!(lane.hold, Hold::Until(at) if at <= clock::now()) {
                lane.hold = Hold::Flowing;
            }
        }
    }

    fn expire(&mut self, index: usize) {
        let now = clock::now();
        while let Some(lane) = self.lanes.get(index) {
            let Some(front) = lane.front().filter(|front| front.deadline <= now) else {
                return;
            };
            let error = PublishError::DeliveryTimeout {
                after: self.shared.delivery_timeout,
                last: self.trouble(lane),
                is_uncertain: front.may_be_stored(),
            };
            self.fail_front(index, &error);
        }
        self.expire_waiting(index, now);
    }

    /// What waits in the intake of a lane that cannot take it has a deadline too.
    fn expire_waiting(&mut self, index: usize, now: Instant) {
        let after = self.shared.delivery_timeout;
        let Some(lane) = self.lanes.get(index).filter(|lane| !lane.has_room()) else {
            return;
        };
        let mut expired = Vec::new();
        {
            let mut intake = lock(&self.shared.intake);
            while intake.oldest(index).is_some_and(|at| at + after <= now) {
                expired.extend(intake.take_batch(index, |_, _| true));
            }
        }
        for batch in expired {
            let error = PublishError::DeliveryTimeout {
                after,
                last: self.trouble(lane),
                is_uncertain: false,
            };
            self.shared.fail_open(batch, error);
        }
    }

    fn trouble(&self, lane: &Lane) -> String {
        let down = || self.shared.core.link.down_reason();
        let trouble = lane.last_trouble.clone();
        trouble.unwrap_or_else(|| match down() {
            Some(reason) => format!("no connection: {reason}"),
            None => "no answer".to_owned(),
        })
    }

    /// Takes batches from the intake while there is room for them in flight.
    fn fill(&mut self, index: usize, mut has_returned: bool) {
        let linger = self.shared.linger;
        let now = clock::now();
        loop {
            let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.has_room()) else {
                return;
            };
            let is_idle = lane.is_empty() || has_returned;
            let batch = {
                let mut intake = lock(&self.shared.intake);
                let flush_below = intake.flush_below;
                let is_closing = intake.closed.is_some();
                intake.take_batch(index, |number, opened_at| {
                    let lingered = opened_at + linger <= now;
                    is_idle && (lingered || number < flush_below || is_closing)
                })
            };
            has_returned = false;
            let Some(batch) = batch else { return };
            if let Some(flight) = into_flight(lane, batch, self.shared.delivery_timeout) {
                lane.push(flight);
            }
        }
    }

    /// Sends what may be sent, in order.
    fn send(&mut self, index: usize) {
        let Some(session) = &self.session else { return };
        let number_of_session = session.number();
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let partition = Partition(u32::try_from(index).unwrap_or(u32::MAX));
        let header = PublishHeader {
            partition: PartitionId {
                topic: self.topic.id,
                partition,
            },
            timeout_ms: 0,
        };
        let mut front = BytesMut::with_capacity(PUBLISH_HEADER_BYTES);
        header.encode(&mut front);
        while let Some(flight) = lane.next_to_send(number_of_session) {
            let answer = match session.start_publish(&front, &flight.bytes) {
                Ok(answer) => answer,
                Err(StartError::Busy) => {
                    self.is_blocked = true;
                    return;
                }
                Err(StartError::Ended) => return,
            };
            flight.stage = Stage::Sent {
                session: number_of_session,
            };
            flight.attempts += 1;
            let number = flight.number;
            let session = Arc::clone(session);
            let event = async move {
                let answer = answer.await.map_err(|_| session.reason());
                Event::Answered {
                    lane: index,
                    number,
                    session: number_of_session,
                    answer,
                }
            };
            self.events.push(event.boxed());
        }
    }

    /// Remembers when the lane needs a turn although nothing happens.
    fn note_due(&mut self, index: usize) {
        let Some(lane) = self.lanes.get(index) else {
            return;
        };
        if let Hold::Until(at) = lane.hold {
            self.due = self.due.min(at);
        }
        if let Some(front) = lane.front() {
            self.due = self.due.min(front.deadline);
        } else if let Some(opened_at) = lock(&self.shared.intake).oldest(index) {
            let wait = match lane.has_room() {
                true => self.shared.linger,
                false => self.shared.delivery_timeout,
            };
            self.due = self.due.min(opened_at + wait);
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

/// Lays a batch out under the lane's identity.
fn into_flight(
    lane: &mut Lane,
    mut batch: OpenBatch,
    delivery_timeout: Duration,
) -> Option<Flight> {
    let records = batch.builder.record_count();
    let producer = lane.assign(records);
    let bytes = batch.builder.build(producer)?;
    Some(Flight {
        number: batch.number,
        bytes,
        records,
        completion: batch.completion,
        window_bytes: batch.window_bytes,
        deadline: batch.opened_at + delivery_timeout,
        stage: Stage::Waiting,
        is_uncertain: false,
        attempts: 0,
    })
}
