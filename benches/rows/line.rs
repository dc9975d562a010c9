//! A row of the table: what was aimed at, what the machine could do, what was reached.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::samples::median;

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    RecordsPerSecond,
    MegabytesPerSecond,
    Micros,
    Seconds,
    Megabytes,
    /// Of something by something.
    Share,
}

impl Unit {
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::RecordsPerSecond if figure >= 1e6 => format!("{:.2}M/s", figure / 1e6),
            Self::RecordsPerSecond => format!("{:.0}k/s", figure / 1e3),
            Self::MegabytesPerSecond => format!("{figure:.0} MB/s"),
            Self::Micros => format!("{figure:.0} us"),
            Self::Seconds => format!("{figure:.3} s"),
            Self::Megabytes => format!("{figure:.0} MB"),
            Self::Share => format!("{figure:.3}"),
        }
    }
}

/// What is aimed at: a figure, or a ratio to the limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

impl Goal {
    fn is_met(self, reached: f64, ratio: Option<f64>) -> bool {
        match self {
            Self::AtLeast(least) => reached >= least,
            Self::AtMost(most) => reached <= most,
            Self::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= least),
            Self::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
        }
    }

    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", unit.show(least)),
            Self::AtMost(most) => format!("<= {}", unit.show(most)),
            Self::RatioAtLeast(least) => format!(">= {least} x limit"),
            Self::RatioAtMost(most) => format!("<= {most} x limit"),
        }
    }
}

/// One measurement, with the limit that was measured beside it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) limit: Option<f64>,
    pub(crate) reached: f64,
}

impl Round {
    pub(crate) const fn new(limit: f64, reached: f64) -> Self {
        Self {
            limit: Some(limit),
            reached,
        }
    }

    /// Nothing that the machine does compares with it.
    pub(crate) const fn alone(reached: f64) -> Self {
        Self {
            limit: None,
            reached,
        }
    }
}

/// What is measured, apart from the figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// The number of the target.
    pub(crate) row: u8,
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    /// What the limit is.
    pub(crate) limit_is: String,
}

impl Subject {
    pub(crate) fn new(row: u8, what: &str, unit: Unit, goal: Goal) -> Self {
        Self {
            row,
            what: what.to_owned(),
            unit,
            goal,
            limit_is: String::new(),
        }
    }

    pub(crate) fn against(mut self, limit: &str) -> Self {
        limit.clone_into(&mut self.limit_is);
        self
    }

    pub(crate) fn line(self, rounds: Vec<Round>, notes: Vec<String>) -> Line {
        let reached: Vec<f64> = rounds.iter().map(|round| round.reached).collect();
        let limits: Vec<f64> = rounds.iter().filter_map(|round| round.limit).collect();
        let by_limit = |round: &Round| round.limit.map(|limit| round.reached / limit);
        let ratios: Vec<f64> = rounds.iter().filter_map(by_limit).collect();
        let middle = |figures: &[f64]| (!figures.is_empty()).then(|| median(figures));
        let (reached, ratio) = (median(&reached), middle(&ratios));
        Line {
            is_met: self.goal.is_met(reached, ratio),
            limit: middle(&limits),
            subject: self,
            reached,
            ratio,
            rounds,
            notes,
            source: Source::default(),
        }
    }
}

/// What came of it: medians of the rounds, the ratio too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) limit: Option<f64>,
    pub(crate) reached: f64,
    pub(crate) ratio: Option<f64>,
    pub(crate) is_met: bool,
    pub(crate) rounds: Vec<Round>,
    pub(crate) notes: Vec<String>,
    pub(crate) source: Source,
}

/// Where a figure comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) command: String,
}

/// The top of the table.
pub(crate) const HEAD: &str = "\
| # | What | Target | Limit | Reached | Ratio | Met |\n\
|---|---|---|---|---|---|---|";

impl fmt::Display for Line {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject {
            row,
            what,
            unit,
            goal,
            ..
        } = &self.subject;
        let limit = self.limit.map(|limit| unit.show(limit));
        let limit = limit.unwrap_or_else(|| "-".to_owned());
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}"));
        let ratio = ratio.unwrap_or_else(|| "-".to_owned());
        let (goal, reached) = (goal.show(*unit), unit.show(self.reached));
        let is_met = if self.is_met { "yes" } else { "**no**" };
        write!(
            to,
            "| {row} | {what} | {goal} | {limit} | {reached} | {ratio} | {is_met} |"
        )
    }
}
