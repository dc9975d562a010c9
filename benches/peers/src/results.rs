//! What a run found.
//!
//! Owns the figures of all rounds. Promises: medians over rounds; a load that failed has its reason instead.
//! Must not know: how it is shown.

use serde::Serialize;

use crate::limits::Limits;
use crate::machine::Machine;
use crate::metric::{Load, METRICS, Metric};
use crate::peers::System;

/// One figure of one round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) round: u32,
    pub(crate) system: System,
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

/// One load that failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    pub(crate) round: u32,
    pub(crate) system: System,
    pub(crate) load: Load,
    pub(crate) reason: String,
}

/// A system that was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) system: System,
    pub(crate) name: &'static str,
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) settings: String,
}

/// The median of a figure.
#[derive(Debug, Clone, Copy, Serialize)]
struct Median {
    system: System,
    metric: Metric,
    value: f64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    pub(crate) rounds: u32,
    pub(crate) systems: Vec<Measured>,
    /// Not there, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) limits: Vec<Limits>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) figures: Vec<Figure>,
}

/// Of values; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *values.get(middle - 1)?))
}

impl Results {
    /// Over all rounds.
    pub(crate) fn median(&self, system: System, metric: Metric) -> Option<f64> {
        let figures = self.figures.iter();
        let figures = figures.filter(|figure| figure.system == system && figure.metric == metric);
        median(figures.map(|figure| figure.value).collect())
    }

    /// Over all rounds.
    pub(crate) fn limit(&self, of: impl Fn(&Limits) -> f64) -> Option<f64> {
        median(self.limits.iter().map(of).collect())
    }

    /// As JSON.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(self)?;
        let mut medians = Vec::new();
        for measured in &self.systems {
            for metric in METRICS {
                let system = measured.system;
                medians.extend(self.median(system, metric).map(|value| Median {
                    system,
                    metric,
                    value,
                }));
            }
        }
        value["medians"] = serde_json::to_value(medians)?;
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}
