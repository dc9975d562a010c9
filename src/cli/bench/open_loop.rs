//! Publishing at even times, whatever the broker does.

use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record, Ticket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::report::Times;
use super::stage::{Pace, TICKETS_MAX};

/// A publisher at a pace.
pub(super) struct OpenLoop {
    pub(super) publisher: Publisher,
    pub(super) pace: Pace,
    pub(super) until: Instant,
}

/// What it did.
pub(super) struct Ran {
    pub(super) sent: u64,
    /// From when records were due.
    pub(super) times: Times,
}

impl OpenLoop {
    /// Publishes what `record` makes of the time a record is due and its number; ends when all of it is
    /// durable. Times of those that `is_measured` are noted.
    pub(super) async fn run(
        self,
        mut record: impl FnMut(Instant, u64) -> (u32, Record) + Send + 'static,
        is_measured: impl Fn(Instant) -> bool + Send + 'static,
    ) -> Result<Ran, PublishError> {
        let (to, mut tickets) = mpsc::channel::<(Instant, Ticket)>(TICKETS_MAX);
        let mut waiter = JoinSet::new();
        waiter.spawn(async move {
            let mut times = Times::new();
            while let Some((due, ticket)) = tickets.recv().await {
                ticket.await?;
                if is_measured(due) {
                    times.note(due.elapsed());
                }
            }
            Ok::<_, PublishError>(times)
        });
        let handle = tokio::runtime::Handle::current();
        let pacer = tokio::task::spawn_blocking(move || {
            let mut sent = 0;
            loop {
                let due = self.pace.due(sent);
                if due >= self.until {
                    return Ok::<u64, PublishError>(sent);
                }
                Pace::wait(due);
                let (partition, record) = record(due, sent);
                let ticket = handle.block_on(self.publisher.send_to(partition, record))?;
                sent += 1;
                // The waiter ends early only with an error, which is the result.
                to.blocking_send((due, ticket)).ok();
            }
        });
        let sent = pacer.await.unwrap_or(Ok(0))?;
        let waited = waiter.join_next().await.and_then(Result::ok);
        let times = waited.unwrap_or_else(|| Ok(Times::new()))?;
        Ok(Ran { sent, times })
    }
}
