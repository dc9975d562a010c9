//! What a benchmark has seen so far, and how far it is.
//!
//! Owns the counters and histograms that all tasks of a run share. Promises: they are true at any moment, so a run
//! that is interrupted can still say what it measured; `count` takes no lock. Must not know: connections, output.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falcon::clock::Instant;

use super::schedule::Schedule;
use super::times::{Latency, Times};

/// Counters of a run.
pub(super) struct Tally {
    seen: AtomicU64,
    seen_bytes: AtomicU64,
    records: AtomicU64,
    value_bytes: AtomicU64,
    /// Of a rate, if there is one.
    pub(super) schedule: Schedule,
    times: Mutex<[Option<Times>; 3]>,
    phase: Mutex<Phase>,
}

/// What a time is of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Until the ack.
    Ack,
    /// Until a subscriber has it.
    Delivery,
    /// From a join or a leave until every partition is held.
    Rebalance,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Connects, makes its topic.
    Preparing,
    /// Publishes so many records that are read later.
    Filling { records: u64 },
    /// Runs for a time, and is measured in the end of it.
    Timed(Span),
    /// The same, and measured on until everything is durable.
    Drained(Span),
    /// Is measured until it has done so much.
    Counted { from: Instant, total: u64 },
    /// Is measured until it has gone so many rounds.
    Rounds {
        from: Instant,
        done: u64,
        total: u64,
    },
    /// Is measured no more; so long it was.
    Ended { measured: Duration },
}

/// When it is measured: what came, or was due, in between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begun: Instant,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Span {
    /// From now on.
    pub(super) fn new(warm_up: Duration, length: Duration) -> Self {
        let begun = Instant::now();
        let from = begun.after(warm_up);
        Self {
            begun,
            from,
            until: from.after(length),
        }
    }

    pub(super) fn has(self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            seen: AtomicU64::new(0),
            seen_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            value_bytes: AtomicU64::new(0),
            schedule: Schedule::default(),
            times: Mutex::new([None, None, None]),
            phase: Mutex::new(Phase::Preparing),
        }
    }

    /// Records that the broker has acknowledged or delivered: a sign of life. Those measured count.
    pub(super) fn count(&self, records: u64, value_bytes: u64, is_measured: bool) {
        self.seen.fetch_add(records, Relaxed);
        self.seen_bytes.fetch_add(value_bytes, Relaxed);
        if is_measured {
            self.records.fetch_add(records, Relaxed);
            self.value_bytes.fetch_add(value_bytes, Relaxed);
        }
    }

    /// The exact number, where counting has only followed it.
    pub(super) fn settle(&self, records: u64, value_bytes: u64) {
        self.records.store(records, Relaxed);
        self.value_bytes.store(value_bytes, Relaxed);
    }

    pub(super) fn note(&self, kind: Kind, took: Duration) {
        self.note_all(kind, [took]);
    }

    pub(super) fn note_all(&self, kind: Kind, took: impl IntoIterator<Item = Duration>) {
        let mut times = lock(&self.times);
        let [ack, delivery, rebalance] = &mut *times;
        let of = match kind {
            Kind::Ack => ack,
            Kind::Delivery => delivery,
            Kind::Rebalance => rebalance,
        };
        for took in took {
            of.get_or_insert_with(Times::new).note(took);
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        *lock(&self.phase) = phase;
    }

    /// Ends what is measured.
    pub(super) fn end(&self) {
        let mut phase = lock(&self.phase);
        *phase = Phase::Ended {
            measured: phase.measured(),
        };
    }

    pub(super) fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// Records and bytes seen so far, measured or not.
    pub(super) fn seen(&self) -> (u64, u64) {
        (self.seen.load(Relaxed), self.seen_bytes.load(Relaxed))
    }

    /// Records and bytes measured so far.
    pub(super) fn measured(&self) -> (u64, u64) {
        (self.records.load(Relaxed), self.value_bytes.load(Relaxed))
    }

    /// Times until the ack, until the delivery, and of rebalances.
    pub(super) fn times(&self) -> [Option<Latency>; 3] {
        let times = lock(&self.times);
        times
            .each_ref()
            .map(|times| times.as_ref().map(Times::summary))
    }
}

impl Phase {
    /// How long it has been measured by now.
    pub(super) fn measured(self) -> Duration {
        match self {
            Self::Preparing | Self::Filling { .. } => Duration::ZERO,
            Self::Timed(span) => {
                let now = Instant::now();
                now.min(span.until).since(span.from)
            }
            Self::Drained(span) => span.from.elapsed(),
            Self::Counted { from, .. } | Self::Rounds { from, .. } => from.elapsed(),
            Self::Ended { measured } => measured,
        }
    }
}

/// A panic elsewhere leaves whole numbers behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
