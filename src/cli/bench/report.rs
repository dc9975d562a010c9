//! What came of a benchmark: a few lines for people, or one JSON object.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::cli::failure::CliError;
use crate::cli::output::Output;

/// Times of many operations: 1 us to a minute, to three digits.
#[derive(Debug, Clone)]
pub(super) struct Times {
    micros: Histogram<u64>,
}

const MINUTE_US: u64 = 60_000_000;

impl Times {
    pub(super) fn new() -> Self {
        let micros = Histogram::new_with_bounds(1, MINUTE_US, 3);
        Self {
            micros: micros.expect("the bounds are constants that it takes"),
        }
    }

    pub(super) fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MINUTE_US);
        self.micros.saturating_record(micros.clamp(1, MINUTE_US));
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        self.micros.add(&other.micros).ok();
    }

    pub(super) fn summary(&self) -> Latency {
        let at = |quantile| self.micros.value_at_quantile(quantile);
        Latency {
            count: self.micros.len(),
            mean_us: self.micros.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.micros.max(),
        }
    }
}

/// A histogram in a line.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    count: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Latency {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bench: &'static str,
    /// The load, as it was asked for.
    #[serde(serialize_with = "as_object")]
    pub(super) load: Vec<(&'static str, u64)>,
    pub(super) records: u64,
    pub(super) value_bytes: u64,
    pub(super) seconds: f64,
    /// Until the ack.
    pub(super) ack: Option<Latency>,
    /// Until a subscriber has it.
    pub(super) delivery: Option<Latency>,
    /// From a join or a leave until every partition is held.
    pub(super) rebalance: Option<Latency>,
}

fn as_object<S: Serializer>(load: &[(&str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(load.iter().copied())
}

#[derive(Serialize)]
struct Rates<'a> {
    #[serde(flatten)]
    report: &'a Report,
    records_per_second: f64,
    megabytes_per_second: f64,
}

impl Report {
    pub(super) fn print(&self, is_json: bool) -> Result<(), CliError> {
        let seconds = self.seconds.max(f64::MIN_POSITIVE);
        #[expect(clippy::cast_precision_loss, reason = "rates have three digits")]
        let (records, bytes) = (self.records as f64, self.value_bytes as f64);
        let (rate, megabytes) = (records / seconds, bytes / seconds / 1e6);
        let mut output = Output::new();
        if is_json {
            output.json(&Rates {
                report: self,
                records_per_second: rate,
                megabytes_per_second: megabytes,
            })?;
            return output.flush();
        }
        let load = self
            .load
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        let load = load.collect::<Vec<_>>().join(", ");
        output.line(format!("{}: {load}", self.bench).as_bytes())?;
        let line = format!(
            "  {rate:.0} records/s  {megabytes:.1} MB/s  ({} records in {:.2} s)",
            self.records, self.seconds
        );
        if self.records > 0 {
            output.line(line.as_bytes())?;
        }
        let all = [
            ("ack", self.ack),
            ("delivery", self.delivery),
            ("rebalance", self.rebalance),
        ];
        for (name, latency) in all {
            if let Some(latency) = latency {
                let line = format!(
                    "  {name}: p50 {} us  p90 {}  p99 {}  p99.9 {}  max {}  ({} measured)",
                    latency.p50_us,
                    latency.p90_us,
                    latency.p99_us,
                    latency.p999_us,
                    latency.max_us,
                    latency.count
                );
                output.line(line.as_bytes())?;
            }
        }
        output.flush()
    }
}
