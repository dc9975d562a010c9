//! When dead segments are removed, and how many stay for segments to come.
//!
//! Promises: what is likely to be overwritten soon is not removed, what is beyond it goes no faster than a busy
//! broker's writer can bear, and after a pause in which no segment was begun all of it goes. Must not know: which
//! segments these are, or how they go.

use std::time::Duration;

use crate::clock::Instant;

/// A broker that began a segment less than so long ago is busy.
const BUSY: Duration = Duration::from_secs(2);
/// Bytes of segments that are removed in a second while the broker is busy, and while it is not.
const BUSY_BYTES: u64 = 128 << 20;
const IDLE_BYTES: u64 = 2 << 30;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of how long ago segments that were begun are counted.
    period: Duration,
    newest: Option<u64>,
    /// When the newest segment was seen first.
    rolled: Instant,
    /// When the count began, and with which segment as the newest.
    since: (Instant, u64),
    /// Segments begun in the period before it.
    before: u64,
    /// When a segment was removed last, and of how many bytes.
    removed: (Instant, u64),
}

impl Pace {
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self {
            period,
            newest: None,
            rolled: now,
            since: (now, 0),
            before: 0,
            removed: (now, 0),
        }
    }

    /// Notes the newest segment there is.
    pub(super) fn note(&mut self, newest: Option<u64>, now: Instant) {
        let number = newest.unwrap_or(0);
        if self.newest.is_none() {
            // Those that a start found were not begun lately.
            self.since = (now, number);
        }
        if self.newest != newest {
            (self.newest, self.rolled) = (newest, now);
        }
        let (since, from) = self.since;
        let passed = now.since(since);
        if passed >= self.period {
            let is_whole = passed < self.period.saturating_mul(2);
            self.before = if is_whole {
                number.saturating_sub(from)
            } else {
                0
            };
            self.since = (now, number);
        }
    }

    /// How many dead segments stay, since as many were begun lately.
    pub(super) fn reserve(&self) -> usize {
        let begun = self.newest.unwrap_or(0).saturating_sub(self.since.1);
        usize::try_from(begun.max(self.before)).unwrap_or(usize::MAX)
    }

    /// Whether a segment of so many bytes may be removed now; then it counts as removed.
    pub(super) fn may_remove(&mut self, bytes: u64, now: Instant) -> bool {
        let is_busy = now.since(self.rolled) < BUSY;
        let bytes_per_second = if is_busy { BUSY_BYTES } else { IDLE_BYTES };
        let (at, before) = self.removed;
        let pause_ms = before.saturating_mul(1000) / bytes_per_second;
        let is_due = now.since(at) >= Duration::from_millis(pause_ms);
        if is_due {
            self.removed = (now, bytes);
        }
        is_due
    }
}

#[cfg(test)]
mod tests;
