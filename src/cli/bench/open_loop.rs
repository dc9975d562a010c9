//! Publishing at even times, whatever the broker does.

use std::sync::Arc;
use std::time::Duration;

use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Ticket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

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

/// LIMIT: acks awaited at a time; the publisher's window bounds their bytes.
pub(super) const TICKETS_MAX: usize = 65_536;
/// A sleeping thread wakes up to so much late; the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(150);
/// So long after the end, what was due before it may still leave: a thread may have been kept waiting.
const LATE_MAX: Duration = Duration::from_millis(250);

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

impl OpenLoop {
    /// Publishes what `record` makes of the time a record is due and its number; ends when all of it is
    /// durable. What was due while it was measured is counted, with its time since then.
    pub(super) async fn run(
        self,
        stage: &Arc<Stage>,
        mut record: impl FnMut(Instant, u64) -> (u32, Record) + Send + 'static,
    ) -> Result<(), PublishError> {
        let (to, tickets) = mpsc::channel::<(Instant, Ticket)>(TICKETS_MAX);
        let (pace, span) = (self.pace, self.span);
        let mut waiter = JoinSet::new();
        waiter.spawn(wait_for(tickets, Arc::clone(stage), span, self.size));
        // A task, as those that publish in a service, though it sleeps as a thread does: `cli` has a worker more for it.
        let mut pacer = JoinSet::new();
        pacer.spawn(async move {
            let end = tokio::time::Instant::from_std(span.until.after(LATE_MAX).into_std());
            for sent in 0.. {
                let due = pace.due(sent);
                if due >= span.until {
                    break;
                }
                Pace::wait(due);
                let (partition, record) = record(due, sent);
                let sending = self.publisher.send_to(partition, record);
                // CANCEL SAFETY: a send that is dropped has not taken the record.
                let Ok(sent) = timeout_at(end, sending).await else {
                    break;
                };
                let sent = sent?;
                // ORDER: the record leaves before the waiter is woken: with both to run, another thread would be woken to
                // help.
                tokio::task::yield_now().await;
                // The waiter ends early with an error, or with the whole run.
                if to.send((due, sent)).await.is_err() || Instant::now() > end.into_std().into() {
                    break;
                }
                // What it has woken runs before this thread sleeps.
                tokio::task::yield_now().await;
            }
            Ok::<_, PublishError>(())
        });
        let paced = pacer.join_next().await.and_then(Result::ok);
        paced.unwrap_or(Ok(()))?;
        let waited = waiter.join_next().await.and_then(Result::ok);
        waited.unwrap_or(Ok(()))?;
        let due = pace.due_before(span.until) - pace.due_before(span.from);
        stage.tally.add_due(due);
        Ok(())
    }
}

async fn wait_for(
    mut tickets: mpsc::Receiver<(Instant, Ticket)>,
    stage: Arc<Stage>,
    span: Span,
    size: u64,
) -> Result<(), PublishError> {
    while let Some((due, ticket)) = tickets.recv().await {
        ticket.await?;
        let is_measured = span.has(due);
        if is_measured {
            stage.tally.note(Kind::Ack, due.elapsed());
        }
        stage.tally.count(1, size, is_measured);
    }
    Ok(())
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
