//! Subscriptions: push what is durable while there is credit.

mod deliver;
mod follow;
mod progress;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use falcon_protocol::limits::TOPIC_PARTITIONS_MAX;
use falcon_protocol::message::{
    self, Credit, DELIVER_HEADER_BYTES, Empty, StartPosition, Subscribe, Subscribed,
    SubscribedPartition,
};
use falcon_protocol::{ErrorCode, Frame, Kind, PartitionId};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use self::follow::Follower;
use self::progress::{Position, Progress};
use super::budget::Budget;
use super::connection::{Connection, WATCHED_MAX};
use super::outbox::{Delivery, Outbox};
use super::refusal::Refusal;
use crate::clock::Instant;
use crate::reader::Reader;
use crate::writer::PartitionView;

/// The read task's grip on a subscription. Dropping it ends the subscription.
pub(super) struct SubscriptionHandle {
    control: Arc<Control>,
}

/// What the read task tells the subscription's task.
#[derive(Debug)]
struct Control {
    bytes_total: AtomicU64,
    records_total: AtomicU64,
    /// A partition changed or credit came.
    changed: Arc<Notify>,
    goodbye: Mutex<Goodbye>,
    token: CancellationToken,
}

/// How far a subscription's end has come.
#[derive(Debug)]
enum Goodbye {
    /// Nobody has asked for it.
    Open,
    /// This request asks for it and is to be answered.
    Asked(u32, Option<OwnedSemaphorePermit>),
    /// Its task has ended.
    Over,
}

impl Control {
    fn goodbye(&self) -> MutexGuard<'_, Goodbye> {
        self.goodbye.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        matches!(*self.goodbye(), Goodbye::Over)
    }
}

impl SubscriptionHandle {
    /// Raises the totals; lower values are ignored. False: there was one.
    pub(super) fn grant(&self, credit: &Credit) -> bool {
        let (bytes, records) = (&self.control.bytes_total, &self.control.records_total);
        let bytes = bytes.fetch_max(credit.bytes_total, Ordering::AcqRel);
        let records = records.fetch_max(credit.records_total, Ordering::AcqRel);
        self.control.changed.notify_one();
        bytes <= credit.bytes_total && records <= credit.records_total
    }

    /// Ends it; its task answers the request behind the last delivery. False: it has ended by
    /// itself, and nobody will answer.
    pub(super) fn end(self, correlation: u32, permit: Option<OwnedSemaphorePermit>) -> bool {
        let mut goodbye = self.control.goodbye();
        match *goodbye {
            Goodbye::Over => false,
            Goodbye::Open | Goodbye::Asked(..) => {
                *goodbye = Goodbye::Asked(correlation, permit);
                true
            }
        }
    }
}

impl Drop for SubscriptionHandle {
    fn drop(&mut self) {
        self.control.token.cancel();
    }
}

struct Subscription {
    number: u32,
    control: Arc<Control>,
    reader: Reader,
    outbox: Arc<Outbox>,
    deliveries: mpsc::Sender<Delivery>,
    budget: Budget,
    /// The connection's token: ends everything of it.
    connection: CancellationToken,
    _watched: OwnedSemaphorePermit,
    frame_room: usize,
    /// Nothing while it is lent to the follower.
    progress: Progress,
    follower: Arc<Follower>,
    /// When it was asked for.
    begun: Instant,
}

impl Connection {
    pub(super) async fn subscribe(&mut self, number: u32, body: &[u8]) -> Result<(), Refusal> {
        let request: Subscribe = message::decode(body)?;
        self.subscriptions
            .retain(|_, handle| !handle.control.is_over());
        if self.subscriptions.contains_key(&number) {
            return Err(Refusal::of(ErrorCode::SubscriptionExists));
        }
        let limit = self.shared.limits.subscriptions_per_connection;
        if self.subscriptions.len() >= limit as usize {
            let text = format!("a connection may have {limit} subscriptions");
            return Err(Refusal::new(ErrorCode::LimitReached, text).range(u64::from(limit), 0));
        }
        let starts = self.starts(&request)?;
        let count = u32::try_from(starts.len()).unwrap_or(u32::MAX);
        let Ok(watched) = Arc::clone(&self.watched).try_acquire_many_owned(count) else {
            let text = format!(
                "the subscriptions of a connection may have {WATCHED_MAX} partitions in all"
            );
            return Err(Refusal::new(ErrorCode::LimitReached, text).range(WATCHED_MAX, 0));
        };
        let permit = self.request_permit().await;
        let control = Arc::new(Control {
            bytes_total: AtomicU64::new(request.credit_bytes),
            records_total: AtomicU64::new(request.credit_records),
            changed: Arc::new(Notify::new()),
            goodbye: Mutex::new(Goodbye::Open),
            token: self.token.child_token(),
        });
        let (reader, outbox) = (self.shared.reader.clone(), Arc::clone(&self.outbox));
        let frame_room = self.frame_bytes_max as usize - DELIVER_HEADER_BYTES;
        let follower = Arc::new(Follower {
            number,
            control: Arc::clone(&control),
            reader: reader.clone(),
            outbox: Arc::clone(&outbox),
            frame_room,
            lent: Mutex::default(),
        });
        let subscription = Subscription {
            number,
            control: Arc::clone(&control),
            reader,
            outbox,
            deliveries: self.deliveries.clone(),
            budget: self.budget.clone(),
            connection: self.token.clone(),
            _watched: watched,
            frame_room,
            progress: Progress::default(),
            follower,
            begun: self.begun,
        };
        self.subscriptions
            .insert(number, SubscriptionHandle { control });
        self.tasks.spawn(subscription.run(starts, permit));
        Ok(())
    }

    /// The partitions asked for, each once.
    fn starts(
        &self,
        request: &Subscribe,
    ) -> Result<Vec<(Arc<PartitionView>, StartPosition)>, Refusal> {
        let count = request.partitions.len();
        if count == 0 || count > TOPIC_PARTITIONS_MAX as usize {
            let text = format!("1 to {TOPIC_PARTITIONS_MAX} partitions can be subscribed to");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let mut seen = HashSet::with_capacity(count);
        let mut starts = Vec::with_capacity(count);
        for wanted in &request.partitions {
            if !seen.insert(wanted.partition) {
                let text = format!("partition {} is named twice", wanted.partition);
                return Err(Refusal::new(ErrorCode::MalformedRequest, text));
            }
            let id = PartitionId {
                topic: request.topic_id,
                partition: wanted.partition,
            };
            starts.push((self.partition(id)?, wanted.start));
        }
        Ok(starts)
    }
}

impl Drop for Subscription {
    /// Watches keep the follower, which keeps what was lent, and with it the watches.
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Counts a subscription as open while its task lives.
struct Open(Arc<Outbox>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.unsubscribed();
    }
}

impl Subscription {
    async fn run(
        mut self,
        starts: Vec<(Arc<PartitionView>, StartPosition)>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let (control, connection) = (Arc::clone(&self.control), self.connection.clone());
        self.outbox.subscribed();
        let _open = Open(Arc::clone(&self.outbox));
        // Opening is not interrupted by an end that was pipelined behind it: both are answered.
        let opened = connection.run_until_cancelled(self.open(starts)).await;
        drop(permit);
        self.outbox.answered(Kind::Subscribe, self.begun);
        if opened == Some(true) {
            let _ended = control.token.run_until_cancelled(self.deliver()).await;
        }
        // Watches end before the place is free for another subscription of this number.
        self.take_back();
        self.progress.positions.clear();
        let asked = core::mem::replace(&mut *control.goodbye(), Goodbye::Over);
        if let Goodbye::Asked(correlation, request) = asked {
            let body = message::encode(&Empty {}).unwrap_or_default();
            let head = Frame::response(Kind::Unsubscribe, correlation, body).to_bytes();
            let last = Delivery {
                kind: Kind::Unsubscribe,
                head,
                batches: Vec::new(),
                permit: None,
                request,
            };
            let _closed = connection
                .run_until_cancelled(self.deliveries.send(last))
                .await;
        }
    }

    /// Resolves where each partition starts and answers the request.
    async fn open(&mut self, starts: Vec<(Arc<PartitionView>, StartPosition)>) -> bool {
        let mut partitions = Vec::with_capacity(starts.len());
        for (view, start) in starts {
            // ORDER: watch, then look: nothing that is appended in between is missed.
            let watch = view.watch(Arc::<Follower>::clone(&self.follower));
            let turn = self.budget.turn().await;
            let resolved = self.reader.resolve(&view, start).await;
            drop(turn);
            let offset = match resolved {
                Ok(offset) => offset,
                Err(failure) => {
                    let refusal = Refusal::from(failure).partition(view.id.partition);
                    self.outbox.refuse(Kind::Subscribe, self.number, &refusal);
                    return false;
                }
            };
            partitions.push(SubscribedPartition {
                partition: view.id.partition,
                offset,
                log_start: view.log_start(),
                high_watermark: view.high_watermark(),
            });
            self.progress
                .positions
                .push(Position::new(view, offset, watch));
        }
        match message::encode(&Subscribed { partitions }) {
            Ok(body) => self.outbox.answer(Kind::Subscribe, self.number, body),
            Err(error) => {
                self.outbox
                    .refuse(Kind::Subscribe, self.number, &Refusal::from(error));
                return false;
            }
        }
        true
    }
}
