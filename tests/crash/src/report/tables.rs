//! Each promise beside what shows it and what the last run says of it.

use super::cells::{count, figure, header, plain, row, verdict};
use super::promises::{Promise, Source};
use crate::campaign::{Section, Status};
use crate::checker::Violation;
use crate::results::Results;
use crate::trial::Trial;

/// More figures of a trial than fit beside a promise.
const FIGURES_MAX: usize = 6;
/// What stands where figures would be.
const NOT_RUN: &str = "not in this run";

/// One row for each way to put a promise to the test.
pub(super) fn promises(results: &Results, promises: &[Promise]) -> String {
    let mut rows = header(&["Promise", "What happens", "Shown by", "Last run"]);
    for promise in promises {
        let mut text = format!("**{}**", promise.text);
        for shown in promise.shown {
            let by = format!("[`{}`](../{})", command(&shown.by), shown.file);
            let found = outcome(results, &shown.by);
            rows.push(row(&[&text, shown.failure, &by, &found]));
            text.clear();
        }
    }
    rows.join("\n")
}

/// What to type, or the test to run.
fn command(source: &Source) -> String {
    match source {
        Source::Test(name) => (*name).to_owned(),
        Source::Load(_) => "tests/crash/run --long".to_owned(),
        Source::Campaign { name, least, .. } => {
            let mut words = name.split('-');
            let kind = words.next().unwrap_or_default();
            let mut command = vec![format!("tests/crash/run {kind}")];
            command.extend(words.map(|word| match word {
                "control" => "--control".to_owned(),
                filesystem => format!("--filesystem {filesystem}"),
            }));
            if *least > 0 {
                command.push(format!("--cycles {least}"));
            }
            command.join(" ")
        }
        Source::Trial { name, .. } => format!("tests/crash/run trial {name}"),
    }
}

/// What the last run says of it.
fn outcome(results: &Results, source: &Source) -> String {
    match source {
        Source::Test(_) => "runs in every build".to_owned(),
        Source::Load(judged) => load_outcome(results, judged),
        Source::Campaign {
            name,
            judged,
            least,
        } => {
            let section = results.sections.iter().find(|found| found.name == *name);
            section.map_or_else(
                || NOT_RUN.to_owned(),
                |section| campaign_outcome(section, judged, *least),
            )
        }
        Source::Trial {
            name,
            figures,
            least,
        } => {
            let trial = results.trials.iter().find(|found| found.name == *name);
            trial.map_or_else(
                || NOT_RUN.to_owned(),
                |trial| trial_outcome(trial, figures, *least),
            )
        }
    }
}

fn campaign_outcome(section: &Section, judged: &[Violation], least: u64) -> String {
    let reason = section.reason.as_deref();
    if section.status == Status::Skipped {
        return verdict(section.status, reason);
    }
    let (faults, what) = faults(section);
    format!(
        "{}{} {what}{}, {} acked: {}",
        unless_passed(section.status, reason),
        count(faults),
        below(faults, least),
        count(section.counts.acked),
        judged_as(&[section], judged)
    )
}

/// All kills and power cuts but those of controls.
fn load_outcome(results: &Results, judged: &[Violation]) -> String {
    let sections = results.sections.iter();
    let sections: Vec<&Section> = sections.filter(|section| !section.is_control).collect();
    let said = |status: Status, word: &str| {
        let of_it = sections.iter().filter(|section| section.status == status);
        let names: Vec<String> = of_it.map(|section| format!("`{}`", section.name)).collect();
        (!names.is_empty()).then(|| format!("{word} {} - ", names.join(", ")))
    };
    let run: Vec<&Section> = sections
        .iter()
        .copied()
        .filter(|section| section.status != Status::Skipped)
        .collect();
    if run.is_empty() {
        return NOT_RUN.to_owned();
    }
    let faults: u64 = run.iter().map(|section| u64::from(section.faults)).sum();
    let cuts: u64 = run
        .iter()
        .map(|section| u64::from(section.power_cuts))
        .sum();
    let acked: u64 = run.iter().map(|section| section.counts.acked).sum();
    format!(
        "{}{}{} kills, {} power cuts, {} acked: {}",
        said(Status::Failed, "**FAILED**").unwrap_or_default(),
        said(Status::Skipped, "skipped").unwrap_or_default(),
        count(faults.saturating_sub(cuts)),
        count(cuts),
        count(acked),
        judged_as(&run, judged)
    )
}

/// How often each promise was broken.
fn judged_as(sections: &[&Section], judged: &[Violation]) -> String {
    let times = |violation| {
        let found = sections
            .iter()
            .filter_map(|section| section.violations.get(violation));
        found.sum::<u64>()
    };
    let found = judged
        .iter()
        .map(|violation| format!("{violation} **{}**", count(times(violation))));
    found.collect::<Vec<_>>().join(", ")
}

/// Power cuts of a campaign that cuts power, else kills.
fn faults(section: &Section) -> (u64, &'static str) {
    if section.name.starts_with("power") {
        (section.power_cuts.into(), "power cuts")
    } else {
        (section.faults.into(), "kills")
    }
}

fn trial_outcome(trial: &Trial, wanted: &[&str], least: Option<(&str, u64)>) -> String {
    let reason = trial.reason.as_deref();
    if trial.status == Status::Skipped {
        return verdict(trial.status, reason);
    }
    let is_short = trial.figures.len() <= FIGURES_MAX;
    let is_needed = |name: &str| least.is_some_and(|(what, _)| what == name);
    let is_wanted =
        |name: &str| wanted.contains(&name) || is_needed(name) || (wanted.is_empty() && is_short);
    let shown = trial.figures.iter().filter(|(name, _)| is_wanted(name));
    let mut shown: Vec<String> = shown
        .map(|(name, value)| {
            let least = least.filter(|(what, _)| what == name);
            let below = least.map_or_else(String::new, |(_, least)| below(*value, least));
            format!("{} **{}**{below}", plain(name), figure(name, *value))
        })
        .collect();
    let missing = wanted.iter().chain(least.iter().map(|(name, _)| name));
    let mut missing: Vec<&str> = missing
        .filter(|name| !trial.figures.contains_key(**name))
        .copied()
        .collect();
    missing.dedup();
    shown.extend(
        missing
            .iter()
            .map(|name| format!("{} unknown", plain(name))),
    );
    if wanted.is_empty() && !is_short {
        shown.push("all its [figures](#figures)".to_owned());
    }
    unless_passed(trial.status, reason) + &shown.join(", ")
}

/// Says so when a figure is not that of a long run.
fn below(value: u64, least: u64) -> String {
    if value < least {
        format!(" (a long run: at least {})", count(least))
    } else {
        String::new()
    }
}

fn unless_passed(status: Status, reason: Option<&str>) -> String {
    match status {
        Status::Passed => String::new(),
        Status::Failed | Status::Skipped => verdict(status, reason) + " - ",
    }
}
