//! Calling a handler for each record: in order per key or partition, several at a time.
//!
//! Owns the handlers' tasks. Promises: at most `concurrency` handlers at a time; a record is
//! committed when it and every one before it is finished; a handler that hangs holds up its own
//! queue; a panic is an error like any other; dropped, it ends its handlers.

mod options;
mod schedule;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use core::fmt::Display;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub use options::{OnError, Order, RetryPolicy, RunEnd, RunOptions, RunReport};

use super::Consumer;
use super::builder::AutoCommit;
use super::desk::Finished;
use super::events::{ConsumerEvent, TopicPartition};
use crate::clock;
use crate::error::ConsumerError;
use crate::subscription::Delivered;
use crate::sync::lock;
use options::Verdict;
use schedule::{Job, Schedule};

/// LIMIT: records of a partition that were taken and are not finished.
const UNFINISHED_MAX: usize = 1024;
/// How long a run that is stopped waits for its last commit.
const LAST_COMMIT: Duration = Duration::from_secs(30);

/// A handler that ended.
struct Ended {
    job: Job,
    outcome: Result<(), String>,
}

/// One call of [`Consumer::run`].
struct Run<'a> {
    consumer: &'a mut Consumer,
    options: RunOptions,
    schedule: Schedule,
    handlers: JoinSet<Ended>,
    report: RunReport,
    /// Why no further handler begins.
    end: Option<RunEnd>,
    failure: Option<ConsumerError>,
    commit_due: Option<Instant>,
}

impl Consumer {
    /// Calls `handler` for each record, until [`ConsumerHandle::stop`](super::ConsumerHandle::stop),
    /// until a handler fails under [`OnError::Stop`], or until the consumer is closed. Then running
    /// handlers end, what is finished is committed, and the report says how it went.
    ///
    /// With [`AutoCommit::Handled`] it commits what handlers finished. Without, only handlers do,
    /// by [`ConsumerHandle::commit`](super::ConsumerHandle::commit) or a step.
    ///
    /// CANCEL SAFETY: dropped, handlers end where they are, and what they had not finished is
    /// handed out again.
    ///
    /// # Errors
    /// What [is final](ConsumerError::is_final) about the consumer, when its handlers have ended.
    pub async fn run<H, F, E>(
        &mut self,
        options: RunOptions,
        handler: H,
    ) -> Result<RunReport, ConsumerError>
    where
        H: Fn(Delivered) -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let mut run = Run {
            schedule: Schedule::new(options.order),
            consumer: self,
            options,
            handlers: JoinSet::new(),
            report: RunReport::default(),
            end: None,
            failure: None,
            commit_due: None,
        };
        run.serve(&handler).await;
        run.conclude().await
    }
}

impl Run<'_> {
    async fn serve<H, F, E>(&mut self, handler: &H)
    where
        H: Fn(Delivered) -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let shared = std::sync::Arc::clone(&self.consumer.shared);
        loop {
            if shared.wants_stop() {
                self.end.get_or_insert(RunEnd::Stopped);
            }
            self.begin(handler);
            let is_ending = self.end.is_some() || self.failure.is_some();
            if is_ending && self.handlers.is_empty() {
                return;
            }
            let wants_more = !is_ending && self.wants_more();
            let due = self.due();
            let consumer = &mut *self.consumer;
            let next = async {
                if wants_more {
                    std::future::poll_fn(|cx| consumer.poll_take(cx, Some(UNFINISHED_MAX))).await
                } else {
                    std::future::pending().await
                }
            };
            // CANCEL SAFETY: a record not returned stays; handlers not joined stay in the set.
            tokio::select! {
                Some(ended) = self.handlers.join_next() => {
                    // A handler's panic is caught inside of its task.
                    if let Ok(ended) = ended {
                        self.ended(ended);
                    }
                }
                record = next => self.took(record),
                () = shared.running.notified() => {}
                () = sleep_until(due) => {}
            }
            self.commit_when_due();
        }
    }

    /// Begins with what may begin.
    fn begin<H, F, E>(&mut self, handler: &H)
    where
        H: Fn(Delivered) -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        if self.end.is_some() || self.failure.is_some() {
            return;
        }
        while self.handlers.len() < self.options.concurrency {
            if let Some(job) = self.schedule.begin(clock::now()) {
                let grant = job.record.grant;
                let is_held = grant.is_some_and(|grant| {
                    lock(&self.consumer.shared.desk).begin(&grant, job.record.offset)
                });
                if !is_held {
                    self.schedule.done(&job);
                    continue;
                }
                let work = AssertUnwindSafe(handler(job.record.clone())).catch_unwind();
                self.handlers.spawn(async move {
                    let outcome = match work.await {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(panic) => Err(panic_text(panic.as_ref())),
                    };
                    Ended { job, outcome }
                });
                continue;
            }
            // What is there already needs no wait.
            let waker = std::task::Waker::noop();
            let context = std::task::Context::from_waker(waker);
            match self.consumer.poll_take(&context, Some(UNFINISHED_MAX)) {
                Poll::Ready(record) => self.took(record),
                Poll::Pending => break,
            }
            if self.end.is_some() || self.failure.is_some() {
                break;
            }
        }
    }

    /// Whether another record could begin at once.
    fn wants_more(&self) -> bool {
        self.handlers.len() + self.schedule.startable() < self.options.concurrency
    }

    fn took(&mut self, record: Option<Result<Delivered, ConsumerError>>) {
        match record {
            Some(Ok(record)) => self.schedule.push(record),
            Some(Err(error)) if error.is_final() => self.failure = Some(error),
            // It says so in events and log, and goes on.
            Some(Err(error)) => tracing::warn!(%error, "the run goes on"),
            None => {
                self.end.get_or_insert(RunEnd::Closed);
            }
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { job, outcome } = ended;
        let place = TopicPartition {
            topic: std::sync::Arc::clone(&job.record.topic),
            partition: job.record.partition,
        };
        let offset = job.record.offset;
        let Err(error) = outcome else {
            self.report.handled += 1;
            return self.finish(&job);
        };
        if self.is_over(&job) {
            // A step or commit of it cannot succeed any more. Whoever has the partition now handles the record.
            tracing::info!(partition = %place, %offset, error, "handler failed on a record of a partition taken away");
            self.schedule.done(&job);
            self.report.stale += 1;
            return;
        }
        tracing::warn!(partition = %place, %offset, error, attempt = job.attempts + 1, "handler failed");
        match self.options.on_error.verdict(job.attempts) {
            Verdict::Again(wait) => {
                self.report.retried += 1;
                self.schedule.again(job, clock::deadline_in(wait));
            }
            Verdict::Skip => {
                self.report.failed += 1;
                self.report.skipped += 1;
                self.consumer.shared.tell(ConsumerEvent::Skipped {
                    partition: place,
                    range: offset..offset.advance(1),
                });
                self.finish(&job);
            }
            Verdict::Stop => {
                self.report.failed += 1;
                self.schedule.done(&job);
                self.end.get_or_insert(RunEnd::HandlerFailed {
                    partition: place,
                    offset,
                    error,
                });
            }
        }
    }

    fn is_over(&self, job: &Job) -> bool {
        let desk = lock(&self.consumer.shared.desk);
        let grant = job.record.grant.as_ref();
        grant.is_some_and(|grant| desk.is_over(&grant.hold))
    }

    fn finish(&mut self, job: &Job) {
        self.schedule.done(job);
        let Some(grant) = job.record.grant else {
            return;
        };
        let mut desk = lock(&self.consumer.shared.desk);
        let finished = desk.finish(&grant, job.record.offset);
        let has_revoked = desk.has_revoked();
        drop(desk);
        if finished == Finished::Stale {
            self.report.stale += 1;
        }
        if has_revoked {
            self.consumer.shared.membership.notify_one();
        }
        if let AutoCommit::Handled { every } = self.consumer.shared.auto_commit {
            self.commit_due
                .get_or_insert_with(|| clock::deadline_in(every));
        }
    }

    fn due(&self) -> Instant {
        let far = clock::deadline_in(Duration::from_secs(3600));
        let retry = self.schedule.next_due();
        [retry, self.commit_due]
            .into_iter()
            .flatten()
            .fold(far, Instant::min)
    }

    fn commit_when_due(&mut self) {
        if self.commit_due.is_some_and(|due| due <= clock::now()) {
            self.commit_due = None;
            if lock(&self.consumer.shared.desk).want_finished() {
                self.consumer.shared.dirty.notify_one();
            }
        }
    }

    /// Commits what is finished, puts back what was not begun.
    async fn conclude(mut self) -> Result<RunReport, ConsumerError> {
        let shared = std::sync::Arc::clone(&self.consumer.shared);
        shared.is_stopping.store(false, Ordering::Release);
        if matches!(shared.auto_commit, AutoCommit::Handled { .. }) {
            let deadline = clock::deadline_in(LAST_COMMIT);
            lock(&shared.desk).want_finished();
            shared.dirty.notify_one();
            while lock(&shared.desk).has_dirty()
                && !shared.stop.is_cancelled()
                && clock::now() < deadline
            {
                // CANCEL SAFETY: both only wait.
                tokio::select! {
                    () = shared.running.notified() => {}
                    () = sleep_until(clock::deadline_in(Duration::from_millis(20))) => {}
                }
            }
        }
        let mut desk = lock(&shared.desk);
        desk.give_back();
        self.report.committed = desk.committed();
        drop(desk);
        shared.hungry.notify_one();
        shared.membership.notify_one();
        if let Some(error) = self.failure.take() {
            Err(error)
        } else {
            self.report.end = self.end.take().unwrap_or(RunEnd::Stopped);
            Ok(std::mem::take(&mut self.report))
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // What handlers had not finished when the run was dropped comes again.
        lock(&self.consumer.shared.desk).give_back();
        self.consumer.shared.hungry.notify_one();
    }
}

fn panic_text(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a text"))
}
