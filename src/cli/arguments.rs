//! Values of flags: durations, sizes, positions.

use std::time::Duration;

use falcon::config::units::{parse_bytes, parse_millis};
use falcon_client::Start;
use falcon_protocol::Offset;
use jiff::Timestamp;

/// A duration with a unit. A bare number is refused, zero too: nobody who writes
/// `--retention-age 7` means milliseconds, and the records would be gone before that is noticed.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let is_bare = !text.contains(|c: char| c.is_ascii_alphabetic());
    parse_millis(text)
        .filter(|_| !is_bare)
        .map(Duration::from_millis)
        .ok_or_else(|| "a duration needs a number and a unit: 7d, 12h, 90s, 500ms".into())
}

/// A duration that is not zero.
pub(crate) fn duration_above_zero(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("it must be longer than that".into());
    }
    Ok(duration)
}

/// A size with or without a unit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a size such as 1048576, 64MiB or 10GiB".into())
}

/// A value that can also be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting<T> {
    /// `none`.
    Cleared,
    /// This value.
    Set(T),
}

impl<T> Setting<T> {
    /// The value, or nothing when it was cleared.
    pub(crate) fn into_option(self) -> Option<T> {
        match self {
            Self::Cleared => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// A duration or `none`.
pub(crate) fn duration_or_none(text: &str) -> Result<Setting<Duration>, String> {
    setting(text, duration)
}

/// A size or `none`.
pub(crate) fn bytes_or_none(text: &str) -> Result<Setting<u64>, String> {
    setting(text, bytes)
}

fn setting<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Setting<T>, String> {
    if text == "none" {
        return Ok(Setting::Cleared);
    }
    let value = parse(text).map_err(|error| format!("{error}, or none"))?;
    Ok(Setting::Set(value))
}

/// A position: `earliest`, `latest`, `offset:N`, `time:RFC3339`, `last:N`.
pub(crate) fn position(text: &str) -> Result<Start, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let start = match text.split_once(':') {
        None if text == "earliest" => Some(Start::Earliest),
        None if text == "latest" => Some(Start::Latest),
        Some(("offset", rest)) => number(rest).map(|offset| Start::Offset(Offset(offset))),
        Some(("last", rest)) => number(rest).map(Start::Last),
        Some(("time", rest)) => return time(rest).map(Start::TimestampMs),
        None | Some(_) => None,
    };
    start
        .ok_or_else(|| "use earliest, latest, offset:N, last:N or time:2013-01-01T10:00:00Z".into())
}

fn time(text: &str) -> Result<i64, String> {
    text.parse::<Timestamp>()
        .map(Timestamp::as_millisecond)
        .map_err(|_| "write the time as RFC 3339, for example time:2013-01-01T10:00:00Z".into())
}

/// A time for people: RFC 3339 with milliseconds.
pub(crate) fn show_time(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => format!("{timestamp_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read() {
        assert!(matches!(position("earliest"), Ok(Start::Earliest)));
        assert!(matches!(position("latest"), Ok(Start::Latest)));
        assert!(matches!(
            position("offset:300000"),
            Ok(Start::Offset(Offset(300_000)))
        ));
        assert!(matches!(position("last:5"), Ok(Start::Last(5))));
        for (text, expected) in [
            ("time:2013-01-01T10:00:00Z", 1_357_034_400_000),
            ("time:2013-01-01T05:00:00-05:00", 1_357_034_400_000),
            ("time:2013-01-01T10:00:00.250Z", 1_357_034_400_250),
        ] {
            assert!(matches!(position(text), Ok(Start::TimestampMs(ms)) if ms == expected));
        }
        for bad in [
            "",
            "begin",
            "offset:",
            "offset:-1",
            "last:x",
            "time:today",
            "5",
        ] {
            assert!(position(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_can_be_cleared() {
        assert_eq!(bytes_or_none("none"), Ok(Setting::Cleared));
        assert_eq!(bytes_or_none("1KiB"), Ok(Setting::Set(1024)));
        assert_eq!(
            duration_or_none("7d"),
            Ok(Setting::Set(Duration::from_hours(24 * 7)))
        );
        assert!(duration_or_none("never").is_err());
        assert!(duration_or_none("7").is_err());
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration_above_zero("0s").is_err());
        assert_eq!(duration_above_zero("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        for bad in ["1", "0", " 7 ", "1000", "1.5", "", "d", "-1s"] {
            let error = duration(bad).unwrap_err();
            assert!(error.contains("7d, 12h, 90s, 500ms"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        assert_eq!(show_time(1_357_034_400_250), "2013-01-01T10:00:00.250Z");
        assert_eq!(show_time(i64::MAX), format!("{} ms", i64::MAX));
    }
}
