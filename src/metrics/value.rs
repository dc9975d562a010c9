//! The kinds of numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, and answers the sum.
    pub fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed).wrapping_add(more)
    }

    /// So far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn rise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn fall(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// This many.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// A part of it that was `before` is `now`.
    pub fn shift(&self, before: usize, now: usize) {
        if now >= before {
            self.0.fetch_add((now - before) as u64, Ordering::Relaxed);
        } else {
            self.0.fetch_sub((before - now) as u64, Ordering::Relaxed);
        }
    }

    /// Now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram, without the one that takes everything.
pub const BUCKETS: usize = 19;

/// What a histogram's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Microseconds, shown as seconds; buckets end at 64 us, twice that, up to 16.8 s.
    Micros,
    /// Things; buckets end at 1, 2, 4, up to 262,144.
    Count,
}

impl Scale {
    const fn shift(self) -> u32 {
        match self {
            Self::Micros => 6,
            Self::Count => 0,
        }
    }

    /// Upper end of a bucket, inclusive.
    pub const fn end(self, bucket: u32) -> u64 {
        1 << (self.shift() + bucket)
    }
}

/// How often numbers of each size came; each bucket ends at twice the one before.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    above: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a number.
    pub fn record(&self, scale: Scale, value: u64) {
        // Bits of the number before it: a power of two belongs to the bucket that it ends.
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = bits.saturating_sub(scale.shift()) as usize;
        let bucket = self.buckets.get(bucket).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a duration, as [`Scale::Micros`].
    pub fn record_time(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.record(Scale::Micros, micros);
    }

    /// Numbers in each bucket or a lower one, then all of them, then their sum.
    pub fn value(&self) -> ([u64; BUCKETS], u64, u64) {
        let mut count = 0;
        let mut cumulated = [0; BUCKETS];
        for (bucket, to) in self.buckets.iter().zip(&mut cumulated) {
            count += bucket.load(Ordering::Relaxed);
            *to = count;
        }
        count += self.above.load(Ordering::Relaxed);
        (cumulated, count, self.sum.load(Ordering::Relaxed))
    }
}

/// Since when a loop has been in its current turn.
#[derive(Debug, Default)]
pub struct Beat {
    /// On the monotonic clock, milliseconds; 0: it waits for work.
    since_ms: AtomicU64,
}

impl Beat {
    /// A turn begins.
    pub fn begin(&self) {
        self.since_ms
            .store(clock::monotonic_ms().max(1), Ordering::Relaxed);
    }

    /// The turn is over.
    pub fn end(&self) {
        self.since_ms.store(0, Ordering::Relaxed);
    }

    /// How long the current turn has lasted at `now_ms`; zero between turns.
    pub fn busy_for(&self, now_ms: u64) -> Duration {
        match self.since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms.saturating_sub(since)),
        }
    }
}
