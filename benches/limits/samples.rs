//! Many times, and what they say together.

use std::time::Duration;

use serde::Serialize;

/// How long many operations took.
#[derive(Default)]
pub(crate) struct Samples {
    micros: Vec<f64>,
    bytes: u64,
}

/// A line about them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Summary {
    /// How many.
    pub(crate) count: usize,
    /// The median.
    pub(crate) p50_us: f64,
    /// One in a hundred takes longer.
    pub(crate) p99_us: f64,
    /// Bytes by the time that they took.
    pub(crate) mb_per_s: f64,
}

impl Samples {
    /// Notes an operation.
    pub(crate) fn note(&mut self, took: Duration, bytes: usize) {
        self.micros.push(took.as_secs_f64() * 1e6);
        self.bytes += bytes as u64;
    }

    /// Median, tail and throughput.
    pub(crate) fn summary(mut self) -> Summary {
        self.micros.sort_by(f64::total_cmp);
        let total: f64 = self.micros.iter().sum();
        let at = |percent: usize| {
            let index = self.micros.len() * percent / 100;
            let last = self.micros.len().saturating_sub(1);
            self.micros.get(index.min(last)).copied()
        };
        Summary {
            count: self.micros.len(),
            p50_us: at(50).unwrap_or_default(),
            p99_us: at(99).unwrap_or_default(),
            mb_per_s: self.bytes as f64 / total.max(f64::MIN_POSITIVE),
        }
    }
}

/// The middle of some figures; of two, the lower one; of none, 0.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or_default()
}
