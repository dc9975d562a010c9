//! Many rounds of one kind, and what comes of them in figures.
//!
//! Owns the folders of rounds: those of a clean round are removed, the others stay and are named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checker::{Counts, Violation};
use crate::error::CrashError;
use crate::history::now_ns;
use crate::round::{RoundOptions, RoundReport};

/// Examples and complaints kept of all rounds.
const SAID_MAX: usize = 40;

/// What a partition keeps in rounds with retention: about one segment.
const RETENTION_BYTES: u64 = 1 << 20;

/// Rounds to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// What it is called in the results.
    pub name: String,
    /// The broker's program.
    pub program: PathBuf,
    /// Folder for the rounds' folders.
    pub work: PathBuf,
    /// Seed of the first round; each later one has the next. Even ones have retention.
    pub seed: u64,
    /// Faults in all, those during starts and before the full reads not counted.
    pub cycles: u32,
    /// Faults of one round.
    pub cycles_per_round: u32,
    /// Longest that clients work between two faults.
    pub work_ms_max: u64,
    /// Variables of the brokers' environment.
    pub environment: Vec<(String, String)>,
    /// Whether the protection is off: the rounds must then find losses.
    pub is_control: bool,
}

/// How a campaign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every promise was kept; or, of a control, records were lost as they must be.
    Passed,
    /// Not so.
    Failed,
    /// The machine lacks what it needs.
    Skipped,
}

/// The figures of a campaign.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Section {
    /// What it was.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped or stopped.
    pub reason: Option<String>,
    /// Whether the protection was off.
    pub is_control: bool,
    /// Seed of the first round.
    pub seed: u64,
    /// Seeds of the rounds that found something.
    pub seeds_with_findings: Vec<u64>,
    /// Rounds run.
    pub rounds: u32,
    /// Faults that struck.
    pub faults: u32,
    /// Those among them that took power away, not only the broker.
    pub power_cuts: u32,
    /// Those that did not come at a random moment, but with something that a broker did.
    #[serde(default)]
    pub faults_at_events: u32,
    /// Those that struck a broker that was starting.
    pub faults_during_start: u32,
    /// Those that struck a broker that was stopping.
    pub faults_during_stop: u32,
    /// Those after an orderly stop.
    pub clean_stops: u32,
    /// Those after which the data folder was looked through before the next start.
    #[serde(default)]
    pub inspections: u32,
    /// What was judged.
    pub counts: Counts,
    /// How often each promise was broken.
    pub violations: BTreeMap<Violation, u64>,
    /// Violations and complaints in words.
    pub said: Vec<String>,
    /// Complaints in all.
    pub complaints: u64,
    /// The longest start of a broker.
    pub start_ms_max: u64,
    /// How long it took.
    pub seconds: u64,
}

impl Campaign {
    /// Runs the rounds, each by `round`.
    pub fn run(
        &self,
        mut round: impl FnMut(&RoundOptions) -> Result<RoundReport, CrashError>,
    ) -> Section {
        let begun = now_ns();
        let mut section = self.nothing_yet();
        let mut left = self.cycles;
        let mut seed = self.seed;
        while left > 0 && section.reason.is_none() {
            // A control whose broker does not even start again has no losses to show: another round has.
            let has_lost = section.violations.contains_key(&Violation::Lost);
            if self.is_control && has_lost {
                break;
            }
            let cycles = left.min(self.cycles_per_round.max(1));
            match self.run_one(seed, cycles, &mut round) {
                Ok(report) => section.add(&report),
                Err(CrashError::Unavailable(what)) => {
                    section.status = Status::Skipped;
                    section.reason = Some(what);
                    return section;
                }
                Err(error) => section.reason = Some(describe(&error)),
            }
            left -= cycles;
            seed = seed.wrapping_add(1);
            eprintln!(
                "{}: {} of {} cycles",
                self.name,
                self.cycles - left,
                self.cycles
            );
        }
        // Those of rounds that found something stay in it.
        std::fs::remove_dir(&self.work).ok();
        section.seconds = Duration::from_nanos(now_ns().saturating_sub(begun)).as_secs();
        let has_lost = section.violations.contains_key(&Violation::Lost);
        let is_clean = section.violations.is_empty() && section.complaints == 0;
        let is_passed = if self.is_control { has_lost } else { is_clean };
        if is_passed && section.reason.is_none() {
            section.status = Status::Passed;
        }
        section
    }

    fn run_one(
        &self,
        seed: u64,
        cycles: u32,
        round: &mut impl FnMut(&RoundOptions) -> Result<RoundReport, CrashError>,
    ) -> Result<RoundReport, CrashError> {
        let folder = fresh_folder(&self.work, &format!("{}-{seed}", self.name))?;
        let report = round(&RoundOptions {
            program: self.program.clone(),
            folder: folder.clone(),
            seed,
            cycles,
            work_ms_max: self.work_ms_max,
            // Every second round reuses segments.
            retention_bytes: seed.is_multiple_of(2).then_some(RETENTION_BYTES),
            environment: self.environment.clone(),
        })?;
        if report.is_clean() || self.is_control {
            std::fs::remove_dir_all(&folder).map_err(CrashError::io("remove", &folder))?;
        } else {
            eprintln!("seed {seed} found something: see {}", folder.display());
        }
        Ok(report)
    }

    fn nothing_yet(&self) -> Section {
        Section {
            name: self.name.clone(),
            status: Status::Failed,
            reason: None,
            is_control: self.is_control,
            seed: self.seed,
            seeds_with_findings: Vec::new(),
            rounds: 0,
            faults: 0,
            power_cuts: 0,
            faults_at_events: 0,
            faults_during_start: 0,
            faults_during_stop: 0,
            clean_stops: 0,
            inspections: 0,
            counts: Counts::default(),
            violations: BTreeMap::new(),
            said: Vec::new(),
            complaints: 0,
            start_ms_max: 0,
            seconds: 0,
        }
    }
}

impl Section {
    fn add(&mut self, report: &RoundReport) {
        self.rounds += 1;
        self.faults += report.faults;
        self.power_cuts += report.power_cuts;
        self.faults_at_events += report.faults_at_events;
        self.faults_during_start += report.faults_during_start;
        self.faults_during_stop += report.faults_during_stop;
        self.clean_stops += report.clean_stops;
        self.inspections += report.inspections;
        self.counts.add(&report.verdict.counts);
        for (violation, count) in &report.verdict.violations {
            *self.violations.entry(*violation).or_default() += count;
        }
        self.complaints += report.complaints.len() as u64;
        self.start_ms_max = self.start_ms_max.max(report.start_ms_max);
        if !report.is_clean() {
            self.seeds_with_findings.push(report.seed);
        }
        let room = SAID_MAX.saturating_sub(self.said.len());
        let said = report.verdict.examples.iter().chain(&report.complaints);
        self.said.extend(said.take(room).cloned());
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let Counts { acked, stored, .. } = self.counts;
        let found = match (self.violations.is_empty(), self.complaints) {
            (true, 0) => "nothing broken".to_owned(),
            (_, complaints) => format!("{:?}, {complaints} complaints", self.violations),
        };
        let reason = self.reason.as_deref().unwrap_or_default();
        format!(
            "{} {:?}: seed {}, {} faults ({} power cuts, {} at events), {acked} acked, {stored} stored, {found} ({} s) {reason}",
            self.name,
            self.status,
            self.seed,
            self.faults,
            self.power_cuts,
            self.faults_at_events,
            self.seconds
        )
    }
}

/// An error with its causes.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An empty folder of this name.
pub(crate) fn fresh_folder(work: &Path, name: &str) -> Result<PathBuf, CrashError> {
    let folder = work.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(CrashError::io("remove", &folder))?;
    }
    std::fs::create_dir_all(&folder).map_err(CrashError::io("create", &folder))?;
    Ok(folder)
}
