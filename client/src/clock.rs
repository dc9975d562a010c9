//! The only door to the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Monotonic time, for deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall clock, milliseconds since the Unix epoch, for the time of records.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the door that the ban points to"
)]
pub(crate) fn unix_ms() -> i64 {
    unix_ms_of(SystemTime::now())
}

/// [`unix_ms`] as of the system's last tick, at most 10 ms ago: read in a fifth of the time.
#[cfg(target_os = "linux")]
pub(crate) fn unix_ms_cheap() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1000) + now.tv_nsec / 1_000_000
}

/// [`unix_ms`], where there is nothing cheaper.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unix_ms_cheap() -> i64 {
    unix_ms()
}

/// Milliseconds since the Unix epoch; saturates at both ends.
pub(crate) fn unix_ms_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// `duration` from now; far in the future where that cannot be represented.
pub(crate) fn deadline_in(duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now() + duration.min(FAR)
}
