//! Whether what a broker holds on to stays flat.

use std::time::Duration;

use super::samples::{Column, Samples};
use crate::trial::Findings;

/// When tables, caches and retention have filled, in seconds: after a fifth of a run, and not before five
/// minutes, of which copy-forward needs the most. Of shorter runs half counts, and the verdict is a hint.
pub(super) fn warm_up(seconds: f64) -> f64 {
    const FILLED: f64 = 300.0;
    (seconds * 0.2).max(FILLED.min(seconds * 0.5))
}

/// What must be flat, and by how much it may grow in the length of a run.
///
/// Each bound lies above what the coming and going does to the line through a sound broker's samples, and below
/// a leak worth the name. An hour makes some 35,000 clients, topics and groups, and 600 rolls.
///
/// - Memory: 200 bytes kept for each of them are 7 MB, or 8 %.
/// - Disk: moves in steps of a segment, 8 MiB or a twentieth of it; what is kept for ever may hold four times its own
///   growth, 3 MB. One segment lost in a hundred rolls is a third.
/// - Index: moves in steps of half a MiB. One row kept in ten of those that die is twice the bound.
/// - Open files: one kept in a thousand clients is twice the bound. Who is connected moves the line by less than two.
/// - Threads that read from disk are as many as ever had to read at a time, so rare moments add some. One kept in
///   a thousand clients is twice the bound.
const FLAT: [(Column, Slack); 5] = [
    (Column::Rss, Slack::Part(0.05)),
    (Column::Disk, Slack::Part(0.1)),
    (Column::IndexDisk, Slack::Number(2_097_152.0)),
    (Column::OpenFiles, Slack::Number(8.0)),
    (Column::Threads, Slack::Number(8.0)),
];

/// How much may be added in the length of a run.
#[derive(Debug, Clone, Copy)]
enum Slack {
    /// Of the mean.
    Part(f64),
    Number(f64),
}

impl Slack {
    fn of(self, mean: f64) -> f64 {
        match self {
            Self::Part(part) => mean * part,
            Self::Number(number) => number,
        }
    }
}

/// A straight line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) mean: f64,
    /// Per second.
    pub(super) slope: f64,
}

/// The line of least squares; `None` when all points have the same time.
pub(super) fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
    let n = sum(&|_| 1.0);
    let (mean_x, mean) = (sum(&|p| p.0) / n, sum(&|p| p.1) / n);
    let covariance = sum(&|p| (p.0 - mean_x) * (p.1 - mean));
    let variance = sum(&|p| (p.0 - mean_x).powi(2));
    (variance > 0.0).then(|| Line {
        mean,
        slope: covariance / variance,
    })
}

/// Notes what is not flat.
pub(super) fn judge(samples: &Samples, length: Duration, findings: &mut Findings) {
    for (column, slack) in FLAT {
        let line = fit(&samples.settled(column));
        let Some(line) = line else {
            findings.broken.push("too short to be judged".into());
            return;
        };
        let growth = line.slope * length.as_secs_f64();
        let allowed = slack.of(line.mean);
        findings.expect(growth < allowed, || {
            format!(
                "{} is not flat: {growth:+.0} in {} s about a mean of {:.0}, {allowed:.0} are allowed",
                column.name(),
                length.as_secs(),
                line.mean,
            )
        });
    }
}

#[cfg(test)]
mod tests;
