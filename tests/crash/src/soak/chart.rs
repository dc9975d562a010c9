//! The samples as a chart: memory, disk, files and records over time.

use std::path::Path;

use jiff::Timestamp;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::samples::{Column, Samples, float};
use super::trend::fit;
use crate::error::CrashError;

const SIZE: (u32, u32) = (1_000, 1_080);
const BLUE: RGBColor = RGBColor(31, 95, 168);
const ORANGE: RGBColor = RGBColor(200, 95, 20);
const GREY: RGBColor = RGBColor(110, 110, 110);
/// Room for the legend above the curves.
const HEADROOM: f64 = 1.5;
const MIB: f64 = 1_048_576.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line of a panel.
struct Curve {
    label: &'static str,
    colour: RGBColor,
    /// Minutes, and values in the panel's unit.
    points: Vec<(f64, f64)>,
}

struct Panel {
    unit: &'static str,
    curves: Vec<Curve>,
}

/// Writes the chart.
pub(super) fn draw(samples: &Samples, path: &Path) -> Result<(), CrashError> {
    let mut text = String::new();
    let drawn = draw_all(samples, &mut text);
    drawn.map_err(|error| CrashError::Malformed(format!("no chart: {error}")))?;
    std::fs::write(path, text).map_err(CrashError::io("write", path))
}

fn draw_all(samples: &Samples, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let date = Timestamp::now().strftime("%Y-%m-%d");
    let title = format!("Falcon: one broker while clients and topics come and go, {date}");
    let below = root.titled(&title, ("sans-serif", 24))?;
    let panels = panels(samples);
    let areas = below.split_evenly((panels.len(), 1));
    for (area, panel) in areas.iter().zip(&panels) {
        draw_panel(area, panel)?;
    }
    root.present()?;
    Ok(())
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

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<(), Box<dyn std::error::Error>> {
    let points = panel.curves.iter().flat_map(|curve| &curve.points);
    let (mut minutes, mut top) = (0.1_f64, 1.0_f64);
    for (x, y) in points {
        (minutes, top) = (minutes.max(*x), top.max(*y));
    }
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..minutes, 0.0..top * HEADROOM)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("minutes")
        .y_desc(panel.unit)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    for curve in &panel.curves {
        let colour = curve.colour;
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(curve.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}
