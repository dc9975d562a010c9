//! The only door to time.
#![expect(clippy::disallowed_methods, reason = "this is the door")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock, milliseconds since the Unix epoch.
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A monotonic instant.
pub fn now() -> Instant {
    Instant::now()
}
