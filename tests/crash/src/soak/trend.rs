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

/// What must be flat, and by how much it may grow in the length of a run, as a part of its mean.
///
/// Each bound lies above what the churn of a sound broker does to the slope, and below a leak worth the name.
/// Memory: 100 bytes kept for each client, topic and group ever made, tens of thousands in an hour, are some
/// percent. Disk goes in steps of a segment, a twentieth of it, and may hold four times what the topic kept for
/// ever grows by, a hundredth; one segment lost in a hundred rolls is a third. Files are few, and their number
/// depends on who is connected; one kept in a hundred clients is far above a tenth. Threads that read from
/// disk are as many as ever had to read at a time, so rare moments add some; one kept in a thousand clients is
/// far above a half. The index is a few MiB, and takes its space in steps of half a MiB.
const FLAT: [(Column, f64); 5] = [
    (Column::Rss, 0.05),
    (Column::Disk, 0.1),
    (Column::IndexDisk, 0.5),
    (Column::OpenFiles, 0.1),
    (Column::Threads, 0.5),
];

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
    for (column, part) in FLAT {
        let line = fit(&samples.settled(column));
        let Some(line) = line else {
            findings.broken.push("too short to be judged".into());
            return;
        };
        let growth = line.slope * length.as_secs_f64();
        findings.expect(growth < line.mean * part, || {
            format!(
                "{} is not flat: {growth:+.0} in {} s, {:.1} % of its mean {:.0}, {:.0} % are allowed",
                column.name(),
                length.as_secs(),
                growth / line.mean * 100.0,
                line.mean,
                part * 100.0
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_through_noise() {
        let noise = [3.0, -3.0, -3.0, 3.0];
        let points = (0..400).map(|n| (f64::from(n), 100.0 + f64::from(n) * 0.5));
        let points: Vec<_> = points
            .zip(noise.into_iter().cycle())
            .map(|((x, y), noise)| (x, y + noise))
            .collect();
        let line = fit(&points).expect("times differ");
        assert!((line.slope - 0.5).abs() < 1e-3, "{line:?}");
        assert!((line.mean - 199.75).abs() < 1e-6, "{line:?}");
    }

    #[test]
    fn one_moment_has_no_slope() {
        assert_eq!(fit(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(fit(&[]), None);
    }
}
