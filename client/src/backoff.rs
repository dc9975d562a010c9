//! Waiting between attempts: exponential, with jitter, bounded.

use std::time::Duration;

/// Shortest wait before an attempt is repeated.
const FIRST: Duration = Duration::from_millis(50);
/// Longest wait before an attempt is repeated.
const LONGEST: Duration = Duration::from_secs(5);
/// Doublings until [`LONGEST`] is reached.
const DOUBLINGS_MAX: u32 = 7;

/// Counts failed attempts and says how long to wait before the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt: half of it fixed, half random, so that clients that lost
    /// the same broker do not come back at the same moment.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let ceiling = (FIRST * 2_u32.pow(self.attempts.min(DOUBLINGS_MAX))).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// How many attempts failed since the last success.
    pub(crate) const fn attempts(self) -> u32 {
        self.attempts
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_25_ms_to_at_most_5_s() {
        let mut backoff = Backoff::default();
        let first = backoff.next_wait();
        assert!(first >= FIRST / 2 && first <= FIRST, "{first:?}");
        for _ in 0..100 {
            assert!(backoff.next_wait() <= LONGEST);
        }
        assert!(backoff.next_wait() >= LONGEST / 2);
    }
}
