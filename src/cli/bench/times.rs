//! Times of operations, as histograms.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

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
    pub(super) count: u64,
    pub(super) mean_us: f64,
    pub(super) p50_us: u64,
    pub(super) p90_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
}
