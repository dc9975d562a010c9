//! Throughput over time as a picture.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::limits::Fallible;

const SIZE: (u32, u32) = (1_000, 640);
const BLUE: RGBColor = RGBColor(31, 95, 168);
const ORANGE: RGBColor = RGBColor(200, 95, 20);
/// Room above the curves.
const HEADROOM: f64 = 1.2;

/// Seconds, and values.
pub(crate) struct Curves {
    pub(crate) millions_per_second: Vec<(f64, f64)>,
    pub(crate) gigabytes_on_disk: Vec<(f64, f64)>,
}

/// Writes the picture.
pub(crate) fn draw(curves: &Curves, path: &Path) -> Fallible<()> {
    let mut text = String::new();
    draw_all(curves, &mut text)?;
    Ok(std::fs::write(path, text)?)
}

fn draw_all(curves: &Curves, text: &mut String) -> Fallible<()> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Falcon: 100 B records, one publisher, while the log grows and is trimmed";
    let below = root.titled(title, ("sans-serif", 22))?;
    let (upper, lower) = below.split_vertically(SIZE.1 / 2);
    let rates = &curves.millions_per_second;
    draw_panel(&upper, "million records/s", BLUE, rates)?;
    draw_panel(&lower, "GB on disk", ORANGE, &curves.gigabytes_on_disk)?;
    root.present()?;
    Ok(())
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    unit: &str,
    colour: RGBColor,
    points: &[(f64, f64)],
) -> Fallible<()> {
    let highest = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(f64::EPSILON, f64::max);
    let (right, top) = (highest(|point| point.0), highest(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top * HEADROOM)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("seconds")
        .y_desc(unit)
        .y_label_formatter(&|value| format!("{value:.1}"))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
    chart.draw_series(line)?;
    Ok(())
}
