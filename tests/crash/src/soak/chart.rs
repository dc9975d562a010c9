//! The samples as a chart: memory, disk, files and records over time.

use std::path::Path;

use jiff::Timestamp;

use super::samples::{Column, Samples, float};
use super::trend::fit;
use crate::chart::{BLUE, Chart, Curve, GREY, ORANGE, Panel};
use crate::error::CrashError;

const MIB: f64 = 1_048_576.0;

/// Writes the chart.
pub(super) fn draw(samples: &Samples, path: &Path) -> Result<(), CrashError> {
    let date = Timestamp::now().strftime("%Y-%m-%d");
    let title = format!("Falcon: one broker while clients and topics come and go, {date}");
    let chart = Chart {
        title: &title,
        time: "minutes",
        panels: &panels(samples),
        marks: &[],
    };
    let drawn = chart.write(path);
    drawn.map_err(|error| CrashError::Malformed(format!("no chart: {error}")))
}

fn panels(samples: &Samples) -> [Panel; 4] {
    let curve = |label, colour, column, unit: f64| {
        let points = samples.points(column).into_iter();
        let points = points.map(|(seconds, value)| (seconds / 60.0, value / unit));
        Curve {
            label,
            colour,
            points: points.collect(),
        }
    };
    let rate = |label, colour, column| Curve {
        label,
        colour,
        points: rates(&samples.points(column)),
    };
    [
        Panel {
            unit: "memory, MiB",
            curves: vec![
                curve("resident", BLUE, Column::Rss, MIB),
                trend(samples, Column::Rss),
            ],
        },
        Panel {
            unit: "disk, MiB",
            curves: vec![
                curve("allocated", BLUE, Column::Disk, MIB),
                trend(samples, Column::Disk),
                curve("live records", ORANGE, Column::Live, MIB),
            ],
        },
        Panel {
            unit: "number",
            curves: vec![
                curve("open files", BLUE, Column::OpenFiles, 1.0),
                curve("sockets", ORANGE, Column::Connections, 1.0),
                curve("threads", GREY, Column::Threads, 1.0),
            ],
        },
        Panel {
            unit: "records per second",
            curves: vec![
                rate("read", ORANGE, Column::Read),
                rate("acknowledged", BLUE, Column::Acked),
            ],
        },
    ]
}

/// The line that is judged.
fn trend(samples: &Samples, column: Column) -> Curve {
    let points = samples.settled(column);
    let line = fit(&points);
    let middle = points.iter().map(|(x, _)| x).sum::<f64>() / float(points.len() as u64);
    let ends = points.first().into_iter().chain(points.last());
    let at = |x: f64| line.map(|line| (x / 60.0, (line.mean + line.slope * (x - middle)) / MIB));
    Curve {
        label: "least squares",
        colour: GREY,
        points: ends.filter_map(|(x, _)| at(*x)).collect(),
    }
}

/// From sums to what was added per second.
fn rates(sums: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let pairs = sums.iter().zip(sums.iter().skip(1));
    let rate = |((x, sum), (next_x, next)): (&(f64, f64), &(f64, f64))| {
        (next_x / 60.0, (next - sum) / (next_x - x).max(f64::EPSILON))
    };
    pairs.map(rate).collect()
}
