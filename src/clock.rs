//! The door to time.
//!
//! Owns the only calls of `SystemTime::now` and `Instant::now` in the broker, so that a search for
//! who depends on time ends here. Promises: [`Instant`] never runs backwards; [`now_unix_ms`] may,
//! because operators set clocks, so nothing that must be ordered relies on it. Must not know:
//! what the times are used for.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the door the lint sends everybody to"
)]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, now. Before 1970 it is 0, far in the future `i64::MAX`.
pub fn now_unix_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds on a monotonic clock that starts with its first use.
pub fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// A point on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(std::time::Instant);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Self(std::time::Instant::now())
    }

    /// How long ago it was; zero when it lies ahead.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// How long after `earlier` it lies; zero when it does not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The point `duration` later; the same point when the clock cannot express it.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or(self.0))
    }

    /// For timers of the standard library and the runtime.
    pub fn into_std(self) -> std::time::Instant {
        self.0
    }
}

impl From<std::time::Instant> for Instant {
    fn from(instant: std::time::Instant) -> Self {
        Self(instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward_from_this_century() {
        assert!(now_unix_ms() > 1_700_000_000_000);
        let start = Instant::now();
        let later = start.after(Duration::from_secs(1));
        assert_eq!(later.since(start), Duration::from_secs(1));
        assert_eq!(start.since(later), Duration::ZERO);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
