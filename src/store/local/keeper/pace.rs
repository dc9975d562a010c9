//! When dead segments are removed, and how many stay for segments to come.
//!
//! Promises: what is likely to be overwritten soon is not removed, what is beyond it goes no faster than a busy
//! broker's writer can bear, and after a pause in which no segment was begun all of it goes. Must not know: which
//! segments these are, or how they go.

use std::time::Duration;

use crate::clock::Instant;

/// Between two pieces of a file that is removed while the broker is busy: at least so long, so many times what the one
/// before took, and no longer than a device that hangs should keep the space.
const PAUSE: Duration = Duration::from_millis(16);
const PAUSE_SHARE: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// While it is not: somebody may come at any time.
const IDLE_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of how long ago segments that were begun are counted.
    period: Duration,
    /// A broker that wrote a group less than so long ago is busy.
    busy_for: Duration,
    newest: Option<u64>,
    /// After the last group, and when that was seen first.
    end_seq: u64,
    written: Instant,
    /// When the count began, and with which segment as the newest.
    since: (Instant, u64),
    /// Segments begun in the period before it.
    before: u64,
}

impl Pace {
    pub(super) fn new((period, busy_for): (Duration, Duration), now: Instant) -> Self {
        Self {
            period,
            busy_for,
            newest: None,
            end_seq: 0,
            written: now,
            since: (now, 0),
            before: 0,
        }
    }

    /// Notes the newest segment there is, and where its last group ends.
    pub(super) fn note(&mut self, (newest, end_seq): (Option<u64>, u64), now: Instant) {
        let number = newest.unwrap_or(0);
        if self.newest.is_none() {
            // Those that a start found were not begun lately.
            self.since = (now, number);
        }
        self.newest = newest;
        if self.end_seq != end_seq {
            (self.end_seq, self.written) = (end_seq, now);
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

    /// How long to leave the device to others after a piece that took so long.
    pub(super) fn pause_after(&self, took: Duration, now: Instant) -> Duration {
        if now.since(self.written) < self.busy_for {
            PAUSE.max(took.saturating_mul(PAUSE_SHARE).min(PAUSE_MAX))
        } else {
            IDLE_PAUSE.max(took.min(PAUSE_MAX))
        }
    }
}

#[cfg(test)]
mod tests;
