//! Curves over time, in panels below each other, as an SVG file.
//!
//! Owns how they look. Must not know: what was measured.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

/// For what is measured.
pub const BLUE: RGBColor = RGBColor(31, 95, 168);
/// For what stands beside it.
pub const ORANGE: RGBColor = RGBColor(200, 95, 20);
/// For what is drawn to compare.
pub const GREY: RGBColor = RGBColor(110, 110, 110);

const WIDTH: u32 = 1_000;
const TITLE_HEIGHT: u32 = 40;
const PANEL_HEIGHT: u32 = 260;
/// Room for the legend above the curves.
const HEADROOM: f64 = 1.5;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line of a panel.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its place in the legend.
    pub label: &'static str,
    /// Its colour.
    pub colour: RGBColor,
    /// Times, and values in the panel's unit.
    pub points: Vec<(f64, f64)>,
}

/// Curves with the same unit.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What the values are.
    pub unit: &'static str,
    /// At least one.
    pub curves: Vec<Curve>,
}

/// A whole picture.
#[derive(Debug, Clone)]
pub struct Chart<'a> {
    /// What is above it.
    pub title: &'a str,
    /// What times are counted in.
    pub time: &'static str,
    /// From the top.
    pub panels: &'a [Panel],
    /// Times at which something began, with its name.
    pub marks: &'a [(f64, &'static str)],
}

impl Chart<'_> {
    /// Writes the file.
    ///
    /// # Errors
    /// What the file system or the library says.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut text = String::new();
        self.draw(&mut text)?;
        Ok(std::fs::write(path, text)?)
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn Error>> {
        let panels = u32::try_from(self.panels.len())?;
        let size = (WIDTH, TITLE_HEIGHT + panels * PANEL_HEIGHT);
        let root = SVGBackend::with_string(text, size).into_drawing_area();
        root.fill(&WHITE)?;
        let below = root.titled(self.title, ("sans-serif", 24))?;
        let areas = below.split_evenly((self.panels.len(), 1));
        for (area, panel) in areas.iter().zip(self.panels) {
            self.draw_panel(area, panel)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_panel(&self, area: &Area<'_>, panel: &Panel) -> Result<(), Box<dyn Error>> {
        let points = panel.curves.iter().flat_map(|curve| &curve.points);
        let (mut right, mut top) = (0.1_f64, 1.0_f64);
        for (x, y) in points {
            (right, top) = (right.max(*x), top.max(*y));
        }
        let decimals = usize::from(top < 10.0);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, 0.0..top * HEADROOM)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.time)
            .y_desc(panel.unit)
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        let marks = self.marks.iter().map(|(at, label)| Curve {
            label,
            colour: GREY,
            points: vec![(*at, 0.0), (*at, top * HEADROOM)],
        });
        for curve in panel.curves.iter().cloned().chain(marks) {
            let colour = curve.colour;
            let line = LineSeries::new(curve.points, colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(curve.label)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", 14))
            .draw()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_and_mark_is_in_the_picture() {
        let curve = Curve {
            label: "written",
            colour: BLUE,
            points: vec![(0.0, 1.0), (5.0, 2.0)],
        };
        let panel = |unit| Panel {
            unit,
            curves: vec![curve.clone()],
        };
        let chart = Chart {
            title: "A title",
            time: "seconds",
            panels: &[panel("GB"), panel("MB")],
            marks: &[(2.5, "trims begin")],
        };
        let mut text = String::new();
        chart.draw(&mut text).expect("it can be drawn");
        for words in ["A title", "seconds", "GB", "MB"] {
            assert!(text.contains(words), "{words}");
        }
        for label in ["written", "trims begin"] {
            assert_eq!(text.matches(label).count(), 2, "{label}");
        }
    }
}
