//! All figures of a run, and what failed in it.

use std::collections::{BTreeMap, BTreeSet};

use super::Published;
use super::cells::{count, figure, header, plain, row, verdict};
use crate::campaign::{Section, Status};
use crate::checker::Violation;
use crate::results::Results;

/// A trial with more figures has a table of its own.
const FIGURES_MAX: usize = 10;
/// How the figure ends that each of several cases of a trial has.
const CASE: &str = "_rss_peak_bytes";
/// Numbers of campaigns that come first.
const FIRST: &[&str] = &[
    "rounds",
    "faults",
    "power_cuts",
    "faults_during_start",
    "faults_during_stop",
    "clean_stops",
    "acked",
];
/// Numbers of campaigns that are told otherwise.
const TOLD: &[&str] = &["seed", "complaints"];

/// Kills and power cuts, or their controls: a column each.
pub(super) fn campaigns(published: &Published, is_control: bool) -> String {
    let all = published.campaigns();
    let (chosen, numbers): (Vec<_>, Vec<_>) = all
        .filter(|(section, _)| section.is_control == is_control)
        .unzip();
    if chosen.is_empty() {
        return "None in this run.".to_owned();
    }
    let names: Vec<String> = chosen
        .iter()
        .map(|section| format!("`{}`", section.name))
        .collect();
    let mut rows = header(&titled("", &names));
    let mut add = |name: &str, value: &dyn Fn(&Section) -> String| {
        let values: Vec<String> = chosen.iter().map(|section| value(section)).collect();
        rows.push(row(&titled(name, &values)));
    };
    add("Result", &|section| {
        verdict(section.status, section.reason.as_deref())
    });
    add("Found", &|section| {
        found(&section.violations, section.complaints)
    });
    add("Seeds", &|section| {
        let last = section.seed + u64::from(section.rounds.saturating_sub(1));
        match section.rounds {
            0 | 1 => section.seed.to_string(),
            _ => format!("{} to {last}", section.seed),
        }
    });
    let known: BTreeSet<&str> = numbers.iter().flat_map(BTreeMap::keys).copied().collect();
    let first = FIRST.iter().copied().filter(|name| known.contains(name));
    let is_other = |name: &&str| !FIRST.contains(name) && !TOLD.contains(name);
    for name in first.chain(known.iter().copied().filter(is_other)) {
        let value =
            |of: &BTreeMap<&str, u64>| of.get(name).map_or_else(String::new, |n| figure(name, *n));
        let values: Vec<String> = numbers.iter().map(value).collect();
        rows.push(row(&titled(&plain(name), &values)));
    }
    rows.join("\n")
}

fn titled<'a>(name: &'a str, values: &'a [String]) -> Vec<&'a str> {
    std::iter::once(name)
        .chain(values.iter().map(String::as_str))
        .collect()
}

fn found(violations: &BTreeMap<Violation, u64>, complaints: u64) -> String {
    let violations = violations.iter();
    let mut found: Vec<String> = violations
        .map(|(violation, times)| format!("{violation} {}", count(*times)))
        .collect();
    if complaints > 0 {
        found.push(format!("errors in logs or starts {}", count(complaints)));
    }
    if found.is_empty() {
        found.push("nothing".to_owned());
    }
    found.join(", ")
}

/// Each trial with all of its figures, also of kinds that no promise names.
pub(super) fn trials(results: &Results) -> String {
    let mut rows = header(&["Trial", "Result", "Seed", "Figures", "Time"]);
    let mut own = Vec::new();
    for trial in &results.trials {
        let figures = trial.figures.iter();
        let mut figures: Vec<String> = figures
            .map(|(name, value)| format!("{} **{}**", plain(name), figure(name, *value)))
            .collect();
        if figures.len() > FIGURES_MAX {
            figures = vec![format!("{} of them, below", figures.len())];
            own.push(format!("`{}`:\n\n{}", trial.name, table_of(&trial.figures)));
        }
        rows.push(row(&[
            &format!("`{}`", trial.name),
            &verdict(trial.status, trial.reason.as_deref()),
            &trial.seed.to_string(),
            &figures.join(", "),
            &format!("{} s", count(trial.seconds)),
        ]));
    }
    own.insert(0, rows.join("\n"));
    own.join("\n\n")
}

/// Figures in a table of their own. Where several memories are measured, each against its bound, what
/// stands before `_rss_peak_bytes` is a row.
fn table_of(figures: &BTreeMap<String, u64>) -> String {
    let cases: Vec<&str> = figures
        .keys()
        .filter_map(|name| name.strip_suffix(CASE))
        .collect();
    // The longest wins: one case may begin like another.
    let split = |name: &str| {
        let of_case = |case: &&&str| {
            name.strip_prefix(**case)
                .is_some_and(|rest| rest.starts_with('_'))
        };
        let case = cases.iter().filter(of_case).max_by_key(|case| case.len())?;
        Some((*case, name.get(case.len() + 1..)?.to_owned()))
    };
    let columns: BTreeSet<String> = figures
        .keys()
        .filter_map(|name| Some(split(name)?.1))
        .collect();
    let mut parts = Vec::new();
    if !cases.is_empty() {
        let titles: Vec<String> = columns.iter().map(|column| plain(column)).collect();
        let mut rows = header(&titled("", &titles));
        for case in &cases {
            let values = columns.iter().map(|column| {
                let found = figures.get(&format!("{case}_{column}"));
                found.map_or_else(String::new, |value| figure(column, *value))
            });
            rows.push(row(&titled(&plain(case), &values.collect::<Vec<_>>())));
        }
        parts.push(rows.join("\n"));
    }
    let single = figures.iter().filter(|(name, _)| split(name).is_none());
    let single: Vec<String> = single
        .map(|(name, value)| row(&[&plain(name), &figure(name, *value)]))
        .collect();
    if !single.is_empty() {
        parts.push([header(&["Figure", ""]), single].concat().join("\n"));
    }
    parts.join("\n\n")
}

/// What judging took.
pub(super) fn judge(results: &Results) -> String {
    let judge = &results.judge;
    let peak = judge.peak_memory_bytes.map_or_else(String::new, |bytes| {
        format!(", with {} MiB of memory at most", count(bytes >> 20))
    });
    let found = if judge.is_clean {
        ""
    } else {
        "**FAILED:** it found fault with a good history. "
    };
    format!(
        "The judge: {found}a good history of {} records is judged in {} ms{peak}.",
        count(judge.records),
        count(judge.milliseconds)
    )
}

/// Names of what failed.
pub(super) fn failed(results: &Results) -> Vec<String> {
    let sections = results.sections.iter().map(|s| (s.status, &s.name));
    let trials = results.trials.iter().map(|t| (t.status, &t.name));
    let all = sections.chain(trials);
    let mut failed: Vec<String> = all
        .filter(|(status, _)| *status == Status::Failed)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    if !results.judge.is_clean {
        failed.push("the judge".to_owned());
    }
    failed
}

/// What failed, in its own words. Nothing when nothing did.
pub(super) fn troubles(results: &Results) -> String {
    let sections = results.sections.iter();
    let sections = sections.map(|s| (s.status, &s.name, s.reason.as_deref(), &s.said));
    let trials = results.trials.iter();
    let trials = trials.map(|t| (t.status, &t.name, t.reason.as_deref(), &t.said));
    let mut parts = Vec::new();
    for (status, name, reason, said) in sections.chain(trials) {
        if status == Status::Failed {
            let lines = reason.into_iter().chain(said.iter().map(String::as_str));
            let lines: Vec<&str> = lines.flat_map(str::lines).collect();
            // Indented text is not Markdown, whatever is in it.
            let lines: Vec<String> = lines.iter().map(|line| format!("    {line}")).collect();
            let nothing = "It said nothing; a control found nothing lost.".to_owned();
            let text = if lines.is_empty() {
                nothing
            } else {
                lines.join("\n")
            };
            parts.push(format!("`{name}`:\n\n{text}"));
        }
    }
    if parts.is_empty() {
        return String::new();
    }
    format!("### What failed\n\n{}", parts.join("\n\n"))
}
