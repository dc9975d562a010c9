//! The flights that left New York on 1 January 2013.

use bytes::Bytes;
use falcon_protocol::Record;
use sha2::{Digest, Sha256};

use crate::cli::fields::Fields;

static FILE: &[u8] = include_bytes!("../../../examples/data/flights-2013-01-01.jsonl");

/// 18:00 in New York on that day, milliseconds since the Unix epoch.
pub(super) const EVENING_MS: i64 = 1_357_081_200_000;

/// One flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    /// The line, without its end.
    pub(super) line: Bytes,
    /// The aircraft; a few are not known.
    pub(super) tailnum: Option<Bytes>,
    /// The hour it was due to leave, milliseconds since the Unix epoch.
    pub(super) time_ms: i64,
}

impl Flight {
    /// All of them, in the order of the file.
    pub(super) fn all() -> Result<Vec<Self>, String> {
        let fields = Fields {
            key: Some("tailnum".into()),
            timestamp: Some("time_hour".into()),
        };
        let lines = FILE.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let found = fields.find(line)?;
                Ok(Self {
                    line: Bytes::from_static(line),
                    tailnum: found.key,
                    time_ms: found.timestamp_ms.ok_or("a flight has no time_hour")?,
                })
            })
            .collect()
    }

    /// As it is published: keyed by the aircraft, at the flight's own time.
    pub(super) fn record(&self) -> Record {
        let mut record = Record::new(self.line.clone()).timestamp_ms(self.time_ms);
        record.key.clone_from(&self.tailnum);
        record
    }
}

/// SHA-256 of the file.
pub(super) fn file_digest() -> String {
    hex(&Sha256::digest(FILE))
}

/// SHA-256 of lines, each with its end.
pub(super) fn digest<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for line in lines {
        digest.update(line);
        digest.update(b"\n");
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_whole() {
        let flights = Flight::all().unwrap();
        assert_eq!(flights.len(), 842);
        assert_eq!(flights[0].tailnum.as_deref(), Some(&b"N14228"[..]));
        assert_eq!(flights[0].time_ms, 1_357_034_400_000);
        assert_eq!(
            digest(flights.iter().map(|flight| &*flight.line)),
            file_digest()
        );
        let later = flights.iter().filter(|flight| flight.time_ms >= EVENING_MS);
        assert!((50..400).contains(&later.count()));
    }
}
