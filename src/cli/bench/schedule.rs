//! How well a pace was kept.
//!
//! Owns what of a rate has left when it was due, how late the rest was, and how long there was no room for it. Promises: it is true
//! at any moment, also while nothing leaves. Must not know: publishers, output.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falcon::clock::Instant;

use super::open_loop::{LATE_MAX, Pace};
use super::tally::Span;

/// What the publishers of a rate have done of it, each its share.
#[derive(Default)]
pub(super) struct Schedule {
    shares: Mutex<Vec<Share>>,
}

/// Names the share of a publisher.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareId(usize);

struct Share {
    pace: Pace,
    span: Span,
    sent: u64,
    /// How late the last one left, and the latest while it was measured.
    late: Duration,
    late_max: Duration,
    /// For room in the publisher's window, while it was measured.
    waited: Duration,
    waiting: Option<Instant>,
}

/// How well a rate was kept, by all together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kept {
    /// Records that were due.
    pub(super) due: u64,
    /// How late the last record left, or what is still there is.
    pub(super) behind: Duration,
    pub(super) behind_max: Duration,
    /// Of the time, how much was spent waiting for room: 0 to 1.
    pub(super) waited_share: f64,
}

impl Schedule {
    /// One more publisher.
    pub(super) fn add(&self, pace: Pace, span: Span) -> ShareId {
        let mut shares = self.lock();
        shares.push(Share {
            pace,
            span,
            sent: 0,
            late: Duration::ZERO,
            late_max: Duration::ZERO,
            waited: Duration::ZERO,
            waiting: None,
        });
        ShareId(shares.len() - 1)
    }

    /// So many records have left by `now`.
    pub(super) fn sent(&self, ShareId(id): ShareId, sent: u64, now: Instant) {
        if let Some(share) = self.lock().get_mut(id) {
            share.sent = sent;
            let due = share.pace.due(sent.saturating_sub(1));
            share.late = now.since(due);
            if share.span.has(due) {
                share.late_max = share.late_max.max(share.late);
            }
        }
    }

    /// There is no room for the next record.
    pub(super) fn wait(&self, ShareId(id): ShareId, now: Instant) {
        if let Some(share) = self.lock().get_mut(id) {
            share.waiting = Some(now);
        }
    }

    /// There is room again.
    pub(super) fn go_on(&self, ShareId(id): ShareId, now: Instant) {
        if let Some(share) = self.lock().get_mut(id) {
            share.waited = share.waited_by(now);
            share.waiting = None;
        }
    }

    /// What is known by `now`, unless nothing was due while it was measured.
    pub(super) fn kept(&self, now: Instant) -> Option<Kept> {
        let shares = self.lock();
        let measured = shares.iter().filter(|share| share.due_by(now) > 0);
        let mut kept = Kept {
            due: 0,
            behind: Duration::ZERO,
            behind_max: Duration::ZERO,
            waited_share: 0.0,
        };
        let (mut waited, mut length) = (Duration::ZERO, Duration::ZERO);
        for share in measured {
            let behind = share.behind(now);
            kept.due += share.due_by(now);
            kept.behind = kept.behind.max(behind);
            kept.behind_max = kept.behind_max.max(share.late_max).max(behind);
            waited += share.waited_by(now);
            length += now.min(share.span.until).since(share.span.from);
        }
        kept.waited_share = waited.div_duration_f64(length.max(Duration::from_nanos(1)));
        Some(kept).filter(|kept| kept.due > 0)
    }

    /// A panic elsewhere leaves whole numbers behind.
    fn lock(&self) -> MutexGuard<'_, Vec<Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Records that were due by `now` while it was measured.
    fn due_by(&self, now: Instant) -> u64 {
        let until = now.min(self.span.until);
        let before = self.pace.due_before(self.span.from);
        self.pace.due_before(until).saturating_sub(before)
    }

    fn behind(&self, now: Instant) -> Duration {
        let next = self.pace.due(self.sent);
        if next >= now.min(self.span.until) {
            return self.late;
        }
        // After that it does not try any more.
        now.min(self.span.until.after(LATE_MAX)).since(next)
    }

    fn waited_by(&self, now: Instant) -> Duration {
        let Some(waiting) = self.waiting else {
            return self.waited;
        };
        let (from, until) = (waiting.max(self.span.from), now.min(self.span.until));
        self.waited + until.since(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A hundred a second, measured from the first second to the third.
    fn hundred() -> (Schedule, ShareId, Instant) {
        let begun = Instant::now();
        let (from, until) = (begun.after(SECOND), begun.after(3 * SECOND));
        let span = Span { begun, from, until };
        let schedule = Schedule::default();
        let id = schedule.add(Pace::new(begun, 100, (0, 1)), span);
        (schedule, id, begun)
    }

    #[test]
    fn a_rate_that_is_kept_is_not_behind() {
        let (schedule, id, begun) = hundred();
        for sent in 1..=300 {
            let due = begun.after(Duration::from_millis((sent - 1) * 10));
            schedule.sent(id, sent, due.after(Duration::from_micros(sent % 7)));
        }
        let kept = schedule.kept(begun.after(9 * SECOND)).unwrap();
        assert_eq!((kept.due, kept.waited_share), (200, 0.0));
        assert_eq!(kept.behind, Duration::from_micros(300 % 7));
        assert_eq!(kept.behind_max, Duration::from_micros(6));
    }

    #[test]
    fn what_happens_before_it_is_measured_does_not_count() {
        let (schedule, id, begun) = hundred();
        schedule.wait(id, begun);
        assert_eq!(schedule.kept(begun.after(SECOND / 2)), None);
        schedule.go_on(id, begun.after(SECOND / 2));
        schedule.sent(id, 100, begun.after(SECOND));
        let kept = schedule.kept(begun.after(SECOND * 11 / 10)).unwrap();
        assert_eq!((kept.due, kept.waited_share), (10, 0.0));
        assert_eq!(kept.behind, SECOND / 10);
    }

    #[test]
    fn one_that_is_stuck_falls_behind_until_it_gives_up() {
        let (schedule, id, begun) = hundred();
        schedule.sent(id, 150, begun.after(SECOND * 3 / 2));
        schedule.wait(id, begun.after(SECOND * 3 / 2));
        let kept = schedule.kept(begun.after(2 * SECOND)).unwrap();
        assert_eq!((kept.due, kept.waited_share), (100, 0.5));
        assert_eq!(kept.behind, SECOND / 2);
        let kept = schedule.kept(begun.after(9 * SECOND)).unwrap();
        assert_eq!((kept.due, kept.waited_share), (200, 0.75));
        assert_eq!(kept.behind, SECOND * 3 / 2 + LATE_MAX);
        assert_eq!(kept.behind_max, kept.behind);
    }
}
