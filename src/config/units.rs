//! Sizes and durations as people write them: `64MiB`, `5s`, `7d`.

use std::time::Duration;

/// Bytes in `text`: a whole number, or a number with a unit (`KiB`, `MB`, `GiB`, ...).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(bytes) = text.parse::<u64>() {
        return Some(bytes);
    }
    // The crate reads the number as a float, which would take "-1B", "inf" and "1e3KB" too.
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(['e', 'E', '-', '+']) {
        return None;
    }
    Some(text.parse::<bytesize::ByteSize>().ok()?.as_u64())
}

/// The shortest exact text of a size: `8MiB`, `1000`.
pub fn show_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .into_iter()
        .find(|(shift, _)| bytes >> shift != 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Milliseconds in `text`: a whole number of them, or a number with a unit (`5s`, `7d`, `1h 30m`).
/// What is finer than a millisecond is refused rather than rounded.
pub fn parse_millis(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(millis) = text.parse::<u64>() {
        return Some(millis);
    }
    let duration = humantime::parse_duration(text).ok()?;
    let millis = u64::try_from(duration.as_millis()).ok()?;
    (Duration::from_millis(millis) == duration).then_some(millis)
}

/// The text of a duration: `10s`, `1day`, `1500ms`.
pub fn show_millis(millis: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let unit = units
        .into_iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_bytes("1024"), Some(1024));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("64 MB"), Some(64_000_000));
        assert_eq!(parse_bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_bytes("10GiB"), Some(10 << 30));
        for bad in ["", "MiB", "-1", "-1MiB", "64 parsecs", "1e3KiB", "inf"] {
            assert_eq!(parse_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        assert_eq!(parse_millis("250"), Some(250));
        assert_eq!(parse_millis("5s"), Some(5_000));
        assert_eq!(parse_millis("7d"), Some(604_800_000));
        assert_eq!(parse_millis("1h 30m"), Some(5_400_000));
        for bad in ["", "-1s", "5 parsecs", "1us", "s"] {
            assert_eq!(parse_millis(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [0, 1, 1000, 1024, 3 << 20, 10 << 30, u64::MAX, 1 << 62] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        for millis in [0, 1, 1500, 5_000, 60_000, 86_400_000, 3_600_000 * 25] {
            assert_eq!(parse_millis(&show_millis(millis)), Some(millis));
        }
    }
}
