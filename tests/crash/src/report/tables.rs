//! Figures as Markdown.

use std::collections::BTreeMap;

use super::promises::{Promise, Source};
use crate::campaign::{Section, Status};
use crate::checker::Violation;
use crate::results::Results;
use crate::trial::Trial;

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
    let is_wanted = |name: &str| wanted.is_empty() || wanted.contains(&name);
    let shown = trial.figures.iter().filter(|(name, _)| is_wanted(name));
    let mut shown: Vec<String> = shown
        .map(|(name, value)| {
            let least = least.filter(|(what, _)| what == name);
            let below = least.map_or_else(String::new, |(_, least)| below(*value, least));
            format!("{} **{}**{below}", plain(name), count(*value))
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

fn verdict(status: Status, reason: Option<&str>) -> String {
    let said = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    match status {
        Status::Passed => "passed".to_owned(),
        Status::Failed => format!("**FAILED**{said}"),
        Status::Skipped => format!("skipped{said}"),
    }
}

fn unless_passed(status: Status, reason: Option<&str>) -> String {
    match status {
        Status::Passed => String::new(),
        Status::Failed | Status::Skipped => verdict(status, reason) + " - ",
    }
}

/// Kills and power cuts; or, of controls, what was lost.
pub(super) fn campaigns(results: &Results, is_control: bool) -> String {
    let mut rows = header(&[
        "Campaign",
        "Result",
        "Seeds",
        "Faults",
        "Power cuts",
        "In starts",
        "In stops",
        "Clean stops",
        "Acked",
        "Read at the end",
        "Read on the way",
        "Commits",
        "Found",
        "Longest start",
        "Time",
    ]);
    let chosen = results.sections.iter();
    for section in chosen.filter(|section| section.is_control == is_control) {
        let last = section.seed + u64::from(section.rounds.saturating_sub(1));
        let counts = &section.counts;
        rows.push(row(&[
            &format!("`{}`", section.name),
            &verdict(section.status, section.reason.as_deref()),
            &format!("{} to {last}", section.seed),
            &count(section.faults),
            &count(section.power_cuts),
            &count(section.faults_during_start),
            &count(section.faults_during_stop),
            &count(section.clean_stops),
            &count(counts.acked),
            &count(counts.stored),
            &count(counts.read),
            &count(counts.commits),
            &found(&section.violations, section.complaints),
            &format!("{} ms", count(section.start_ms_max)),
            &format!("{} s", count(section.seconds)),
        ]));
    }
    rows.join("\n")
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
    for trial in &results.trials {
        let figures: Vec<String> = trial
            .figures
            .iter()
            .map(|(name, value)| format!("{} **{}**", plain(name), count(*value)))
            .collect();
        rows.push(row(&[
            &format!("`{}`", trial.name),
            &verdict(trial.status, trial.reason.as_deref()),
            &trial.seed.to_string(),
            &figures.join(", "),
            &format!("{} s", count(trial.seconds)),
        ]));
    }
    rows.join("\n")
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

fn header(names: &[&str]) -> Vec<String> {
    let rule = vec!["---"; names.len()].join("|");
    vec![row(names), format!("|{rule}|")]
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    format!("| {} |", cells.join(" | "))
}

/// Text that stays in one cell.
pub(super) fn cell(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").replace('|', "\\|")
}

/// `acks_after_failure` -> `acks after failure`.
fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// `1234567` -> `1,234,567`.
pub(super) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `24684084 kB` -> `23 GiB`; as it is when it is something else.
pub(super) fn memory(text: &str) -> String {
    let kibibytes = text
        .strip_suffix(" kB")
        .and_then(|digits| digits.parse::<u64>().ok());
    kibibytes.map_or_else(
        || text.to_owned(),
        |kibibytes| format!("{} GiB", kibibytes >> 20),
    )
}
