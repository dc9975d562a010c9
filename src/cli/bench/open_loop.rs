//! Publishing at even times, whatever the broker does.
//!
//! Owns when records leave. Promises: none leaves before it is due; those that are due by now leave together, each with the
//! time it was due itself; acks and tickets that wait are bounded. Must not know: what is made of the times.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Ticket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, coop};
use tokio::time::timeout_at;

use super::schedule::ShareId;
use super::stage::Stage;
use super::tally::{Kind, Span};

/// When records are due: evenly, from a start. One of several publishers has its share of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    rate: u64,
    first: u64,
    step: u64,
}

/// LIMIT: acks awaited at a time, more than a publisher's window has records of a few bytes.
const TICKETS_MAX: usize = 1 << 20;
/// LIMIT: records that leave together when several are due.
const GROUP_MAX: u32 = 256;
/// A sleeping thread wakes up to so much late; the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(150);
/// So long after the end, what was due before it may still leave: a thread may have been kept waiting.
pub(super) const LATE_MAX: Duration = Duration::from_millis(250);

impl Pace {
    /// Record `first` of each `step` records, of which `rate` a second are due.
    pub(super) fn new(start: Instant, rate: u64, (first, step): (u32, u32)) -> Self {
        Self {
            start,
            rate: rate.max(1),
            first: first.into(),
            step: step.max(1).into(),
        }
    }

    /// When record `number` of this share is due.
    pub(super) fn due(self, number: u64) -> Instant {
        let number = u128::from(number) * u128::from(self.step) + u128::from(self.first);
        let nanos = number * 1_000_000_000 / u128::from(self.rate);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.start.after(Duration::from_nanos(nanos))
    }

    /// Records of this share that are due before then.
    pub(super) fn due_before(self, until: Instant) -> u64 {
        let nanos = until.since(self.start).as_nanos();
        let all = (nanos * u128::from(self.rate)).div_ceil(1_000_000_000);
        let own = all.saturating_sub(self.first.into());
        u64::try_from(own.div_ceil(self.step.into())).unwrap_or(u64::MAX)
    }

    /// Blocks until then: a timer of the runtime rounds to milliseconds.
    fn wait(due: Instant) {
        let left = due.since(Instant::now());
        if left > AWAKE {
            std::thread::sleep(left.saturating_sub(AWAKE));
        }
        while due > Instant::now() {
            std::hint::spin_loop();
        }
    }
}

/// A publisher at a pace.
pub(super) struct OpenLoop {
    pub(super) publisher: Publisher,
    pub(super) pace: Pace,
    /// Ends with it, also when the broker is slower than the pace: what is due then is not published.
    pub(super) span: Span,
    /// Bytes of a record's value.
    pub(super) size: u64,
}

/// Records that left together: when each was due, and its ack.
struct Group {
    tickets: VecDeque<(Instant, Ticket)>,
    /// Paid for all of them.
    _room: Option<OwnedSemaphorePermit>,
}

impl OpenLoop {
    /// Publishes what `record` makes of the time a record is due and its number; ends when all of it is
    /// durable. What was due while it was measured is counted, with its time since then.
    pub(super) async fn run(
        self,
        stage: &Arc<Stage>,
        record: impl FnMut(Instant, u64) -> (u32, Record) + Send + 'static,
    ) -> Result<(), PublishError> {
        let (to, groups) = mpsc::channel(TICKETS_MAX);
        let mut waiter = JoinSet::new();
        waiter.spawn(wait_for(groups, Arc::clone(stage), self.span, self.size));
        let pacer = Pacer {
            share: stage.tally.schedule.add(self.pace, self.span),
            open: self,
            stage: Arc::clone(stage),
            record,
            sent: 0,
            leaving: VecDeque::new(),
            to,
        };
        // A task, as those that publish in a service, though it sleeps as a thread does: `cli` has a worker more for it.
        let mut pacing = JoinSet::new();
        pacing.spawn(pacer.run());
        let paced = pacing.join_next().await.and_then(Result::ok);
        paced.unwrap_or(Ok(()))?;
        let waited = waiter.join_next().await.and_then(Result::ok);
        waited.unwrap_or(Ok(()))
    }
}

struct Pacer<F> {
    open: OpenLoop,
    share: ShareId,
    stage: Arc<Stage>,
    record: F,
    sent: u64,
    /// What has left and is not handed over yet.
    leaving: VecDeque<(Instant, Ticket)>,
    to: mpsc::Sender<Group>,
}

impl<F: FnMut(Instant, u64) -> (u32, Record)> Pacer<F> {
    async fn run(mut self) -> Result<(), PublishError> {
        let OpenLoop { pace, span, .. } = self.open;
        let end = span.until.after(LATE_MAX);
        let give_up = tokio::time::Instant::from_std(end.into_std());
        let room = Arc::new(Semaphore::new(TICKETS_MAX));
        while pace.due(self.sent) < span.until {
            Pace::wait(pace.due(self.sent));
            let due = pace.due_before(Instant::now().min(span.until));
            let count = u32::try_from(due.saturating_sub(self.sent)).unwrap_or(u32::MAX);
            let count = count.clamp(1, GROUP_MAX);
            let room = Arc::clone(&room).acquire_many_owned(count).await;
            let mut room = room.ok();
            // CANCEL SAFETY: a send that is dropped has not taken the record, those before it are kept.
            let sent = timeout_at(give_up, self.send(count, &mut room)).await;
            let now = Instant::now();
            self.note_left(now);
            let is_behind = pace.due(self.sent) <= now;
            if !is_behind {
                // ORDER: the records leave before the waiter is woken: with both to run, another thread would be woken to
                // help.
                tokio::task::yield_now().await;
            }
            // The waiter ends early with an error, or with the whole run.
            let is_over = !self.hand_over(&mut room) || sent.is_err() || Instant::now() > end;
            sent.unwrap_or(Ok(()))?;
            if is_over {
                break;
            }
            if !is_behind {
                // What it has woken runs before this thread sleeps.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Publishes so many records; each is due at its own time.
    async fn send(
        &mut self,
        count: u32,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), PublishError> {
        let publisher = self.open.publisher.clone();
        for _ in 0..count {
            let due = self.open.pace.due(self.sent);
            let (partition, record) = (self.record)(due, self.sent);
            let mut sending = pin!(publisher.send_to(partition, record));
            let mut is_waiting = false;
            let ticket = poll_fn(|cx| {
                let polled = sending.as_mut().poll(cx);
                // Without budget it only lets others run.
                if polled.is_pending() && !is_waiting && coop::has_budget_remaining() {
                    is_waiting = true;
                    // The acks of those before it are not to wait as well.
                    let now = Instant::now();
                    self.note_left(now);
                    self.hand_over(room);
                    self.stage.tally.schedule.wait(self.share, now);
                }
                polled
            })
            .await?;
            self.leaving.push_back((due, ticket));
            self.sent += 1;
            if is_waiting {
                let now = Instant::now();
                self.stage.tally.schedule.go_on(self.share, now);
            }
        }
        Ok(())
    }

    fn note_left(&self, now: Instant) {
        if !self.leaving.is_empty() {
            self.stage.tally.schedule.sent(self.share, self.sent, now);
        }
    }

    /// Lets the acks of what has left be waited for; `false` when nobody does any more.
    fn hand_over(&mut self, room: &mut Option<OwnedSemaphorePermit>) -> bool {
        if self.leaving.is_empty() {
            return !self.to.is_closed();
        }
        let tickets = std::mem::take(&mut self.leaving);
        let paid = room.as_mut().and_then(|room| room.split(tickets.len()));
        let group = Group {
            tickets,
            _room: paid,
        };
        // INVARIANT: a group has a permit at least, and there is room for as many groups as there are permits.
        self.to.try_send(group).is_ok()
    }
}

async fn wait_for(
    mut groups: mpsc::Receiver<Group>,
    stage: Arc<Stage>,
    span: Span,
    size: u64,
) -> Result<(), PublishError> {
    while let Some(mut group) = groups.recv().await {
        while !group.tickets.is_empty() {
            let mut ended = poll_fn(|cx| group.poll_ended(cx)).await?;
            let now = Instant::now();
            let all = ended.len() as u64;
            ended.retain(|due| span.has(*due));
            let measured = ended.len() as u64;
            let took = ended.into_iter().map(|due| now.since(due));
            stage.tally.note_all(Kind::Ack, took);
            stage.tally.count(measured, measured * size, true);
            stage
                .tally
                .count(all - measured, (all - measured) * size, false);
        }
    }
    Ok(())
}

impl Group {
    /// Takes out those that are durable, at least one, and says when they were due.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Instant>, PublishError>> {
        let mut ended = Vec::new();
        while let Some((due, ticket)) = self.tickets.front_mut() {
            match Pin::new(ticket).poll(cx) {
                Poll::Ready(Ok(_)) => ended.push(*due),
                // It ends so again when it is asked next.
                Poll::Ready(Err(_)) | Poll::Pending if !ended.is_empty() => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            self.tickets.pop_front();
        }
        Poll::Ready(Ok(ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_share_what_is_due() {
        let start = Instant::now();
        let end = start.after(Duration::from_secs(1));
        for rate in [1, 2, 3, 10, 1000] {
            let shares = (0..4).map(|first| Pace::new(start, rate, (first, 4)));
            let due: Vec<u64> = shares.clone().map(|pace| pace.due_before(end)).collect();
            assert_eq!(due.iter().sum::<u64>(), rate, "{due:?}");
            for (pace, due) in shares.zip(due) {
                assert!(pace.due(due) >= end);
                assert!(due == 0 || pace.due(due - 1) < end);
            }
        }
    }
}
