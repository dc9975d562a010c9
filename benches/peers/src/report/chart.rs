//! Bars: one file for each family of figures.

use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::metric::Metric;
use crate::results::Results;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Figures, file and title of each plot.
pub(super) const FAMILIES: [(&[Metric], &str, &str); 4] = [
    (
        &[Metric::Small, Metric::Four, Metric::Tasks, Metric::Large],
        "publish.svg",
        "Publishing: more is better",
    ),
    (
        &[
            Metric::OneP50,
            Metric::OneP99,
            Metric::DeliveryP50,
            Metric::DeliveryP99,
        ],
        "latency.svg",
        "Latency: less is better",
    ),
    (
        &[Metric::ReplaySmall, Metric::ReplayLarge],
        "replay.svg",
        "Replaying: more is better",
    ),
    (
        &[Metric::CpuSmall, Metric::DiskSmall, Metric::Memory],
        "cost.svg",
        "Cost: less is better",
    ),
];

const WIDTH: u32 = 900;
const TITLE: i32 = 40;
const HEADING: i32 = 30;
const BAR: i32 = 22;
/// Where bars begin, and the longest one's length.
const LEFT: i32 = 110;
const LONGEST: f64 = 660.0;
const BLUE: RGBColor = RGBColor(31, 95, 168);
const GREY: RGBColor = RGBColor(150, 150, 150);
const DARK: RGBColor = RGBColor(40, 40, 40);

/// Writes all of them.
pub(crate) fn charts(results: &Results, folder: &Path) -> Result<()> {
    for (metrics, file, title) in FAMILIES {
        let mut text = String::new();
        let drawn = draw(results, metrics, title, &mut text);
        drawn.map_err(|error| anyhow!("{file}: {error}"))?;
        std::fs::write(folder.join(file), text)?;
    }
    Ok(())
}

fn draw(
    results: &Results,
    metrics: &[Metric],
    title: &str,
    text: &mut String,
) -> Result<(), Box<dyn Error>> {
    let bars = i32::try_from(results.systems.len())?;
    let panel = HEADING + bars * BAR + BAR / 2;
    let height = TITLE + panel * i32::try_from(metrics.len())?;
    let area = SVGBackend::with_string(text, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    area.fill(&WHITE)?;
    write(&area, title, (10, 10), 20)?;
    for (metric, top) in metrics
        .iter()
        .zip((TITLE..).step_by(usize::try_from(panel)?))
    {
        draw_panel(&area, results, *metric, top)?;
    }
    area.present()?;
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    results: &Results,
    metric: Metric,
    top: i32,
) -> Result<(), Box<dyn Error>> {
    write(area, metric.label(), (10, top + 6), 15)?;
    let systems = results.systems.iter();
    let medians = systems.map(|measured| (measured.name, results.median(measured.system, metric)));
    let medians: Vec<_> = medians.collect();
    let most = medians.iter().filter_map(|(_, median)| *median);
    let most = most.fold(f64::MIN_POSITIVE, f64::max);
    for ((name, median), at) in medians
        .into_iter()
        .zip((top + HEADING..).step_by(BAR as usize))
    {
        write(area, name, (10, at + 3), 14)?;
        let Some(value) = median else {
            write(area, "-", (LEFT + 6, at + 3), 14)?;
            continue;
        };
        let length = (value / most * LONGEST) as i32;
        let colour = if name == "Falcon" { BLUE } else { GREY };
        let corners = [(LEFT, at), (LEFT + length.max(1), at + BAR - 5)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        write(area, &metric.text(value), (LEFT + length + 6, at + 3), 14)?;
    }
    Ok(())
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32) -> Result<(), Box<dyn Error>> {
    let style = ("sans-serif", size).into_font().color(&DARK);
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
