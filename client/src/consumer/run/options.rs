//! How a run goes, and how it went.

use core::fmt;
use std::time::Duration;

use falcon_protocol::Offset;

use crate::consumer::events::TopicPartition;

const CONCURRENCY: usize = 16;

/// Which records are handled one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those of a partition with the same key. Records without a key: those of a partition.
    #[default]
    Key,
    /// All of a partition.
    Partition,
}

/// What to do when a handler fails, or panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Calls it again after a wait, with the same record; those behind it in its order wait.
    Retry(RetryPolicy),
    /// Counts the record as done, with an event and a line in the log.
    Skip,
    /// Ends the run in order; the record is not committed.
    Stop,
}

/// How often, and after which waits, a handler is called again: each wait is twice the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    first: Duration,
    longest: Duration,
    attempts_max: Option<u32>,
    skips: bool,
}

impl RetryPolicy {
    /// Waits so long before the second attempt, and up to a minute before later ones, without end.
    pub const fn new(first: Duration) -> Self {
        Self {
            first,
            longest: Duration::from_secs(60),
            attempts_max: None,
            skips: false,
        }
    }

    /// The longest wait between two attempts.
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Stops the run after so many attempts in all.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts);
        self
    }

    /// Skips the record after the last attempt, instead of stopping.
    #[must_use]
    pub const fn then_skip(mut self) -> Self {
        self.skips = true;
        self
    }
}

/// What becomes of a record whose handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Again(Duration),
    Skip,
    Stop,
}

impl OnError {
    /// After so many failed attempts before this one.
    pub(super) fn verdict(self, failed_before: u32) -> Verdict {
        match self {
            Self::Skip => Verdict::Skip,
            Self::Stop => Verdict::Stop,
            Self::Retry(policy) => {
                let is_last = |max: u32| failed_before.saturating_add(1) >= max;
                match policy.attempts_max {
                    Some(max) if is_last(max) && policy.skips => Verdict::Skip,
                    Some(max) if is_last(max) => Verdict::Stop,
                    Some(_) | None => {
                        let wait = policy.first.saturating_mul(1 << failed_before.min(20));
                        Verdict::Again(wait.min(policy.longest))
                    }
                }
            }
        }
    }
}

/// How [`Consumer::run`](crate::Consumer::run) goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    pub(super) concurrency: usize,
    pub(super) order: Order,
    pub(super) on_error: OnError,
}

/// Wait before the second attempt, unless told otherwise.
const FIRST_WAIT: Duration = Duration::from_millis(100);

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: CONCURRENCY,
            order: Order::default(),
            on_error: OnError::Retry(RetryPolicy::new(FIRST_WAIT)),
        }
    }
}

impl RunOptions {
    /// 16 handlers at a time, in order per key. A handler that fails is called again after 100 ms, then after
    /// twice as long each time up to a minute, without end: nothing stops because of one record.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many handlers may run at a time; at least 1.
    #[must_use]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.max(1);
        self
    }

    /// Which records are handled one after the other.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// What to do when a handler fails, or panics.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RunEnd {
    /// [`ConsumerHandle::stop`](crate::ConsumerHandle::stop) was called.
    #[default]
    Stopped,
    /// A handler failed for the last time. Its record is handed out again.
    HandlerFailed {
        /// The record's partition.
        partition: TopicPartition,
        /// Its offset.
        offset: Offset,
        /// What the handler said.
        error: String,
    },
    /// The consumer was closed.
    Closed,
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Closed => f.write_str("closed"),
            Self::HandlerFailed {
                partition,
                offset,
                error,
            } => write!(f, "the handler failed at {partition}@{offset}: {error}"),
        }
    }
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunReport {
    /// Records whose handler succeeded.
    pub handled: u64,
    /// Records whose handler failed for the last time.
    pub failed: u64,
    /// Failed attempts that were followed by another.
    pub retried: u64,
    /// Of those that failed: passed over.
    pub skipped: u64,
    /// Records finished after their partition was taken away: their new owner handles them again.
    pub stale: u64,
    /// The committed offset of each partition that it held at the end.
    pub committed: Vec<(TopicPartition, Offset)>,
    /// Why it ended.
    pub end: RunEnd,
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            handled,
            failed,
            retried,
            skipped,
            stale,
            committed: _,
            end,
        } = self;
        write!(
            f,
            "{handled} handled, {failed} failed, {retried} retried, {skipped} skipped, {stale} stale; {end}"
        )
    }
}
