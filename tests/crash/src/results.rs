//! The results file: what ran, where, with which seeds, and what came of it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::campaign::{Section, Status};
use crate::error::CrashError;
use crate::scale::ScaleReport;
use crate::trial::Trial;

/// Everything that one run of all tests found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// When it ended, RFC 3339.
    pub date: String,
    /// `short` or `long`.
    pub length: String,
    /// The sources, as git names them.
    pub commit: String,
    /// Where it ran.
    pub machine: Machine,
    /// First seed.
    pub seed: u64,
    /// Kills and power cuts.
    pub sections: Vec<Section>,
    /// All other trouble.
    pub trials: Vec<Trial>,
    /// What judging a large history took.
    pub judge: ScaleReport,
    /// Campaigns and trials that were run alone after the others, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repeated: BTreeMap<String, Repeated>,
}

/// When and on what something was run alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// When it ended, RFC 3339.
    pub date: String,
    /// The sources, as git names them.
    pub commit: String,
}

impl Repeated {
    /// It ended now.
    pub fn now(commit: String) -> Self {
        let date = now();
        Self { date, commit }
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A machine, as far as it matters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that may be used.
    pub processors: usize,
    /// Model of the first one.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in all.
    pub memory: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: value_in("/proc/cpuinfo", "model name"),
            kernel: text_of("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory: value_in("/proc/meminfo", "MemTotal"),
        }
    }
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first `name: value` line.
fn value_in(path: &str, name: &str) -> String {
    let text = text_of(path);
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let value = rest.and_then(|rest| rest.split(':').nth(1));
    value.unwrap_or_default().trim().to_owned()
}

impl Results {
    /// Puts results together; their date is now.
    pub fn new(
        length: &str,
        commit: String,
        sections: Vec<Section>,
        trials: Vec<Trial>,
        judge: ScaleReport,
    ) -> Self {
        Self {
            date: now(),
            length: length.to_owned(),
            commit,
            machine: Machine::here(),
            seed: sections.first().map_or(0, |section| section.seed),
            sections,
            trials,
            judge,
            repeated: BTreeMap::new(),
        }
    }

    /// Reads what a run wrote.
    ///
    /// # Errors
    /// When there is no such file, or it is something else.
    pub fn read(path: &Path) -> Result<Self, CrashError> {
        let text = std::fs::read_to_string(path).map_err(CrashError::io("read", path))?;
        serde_json::from_str(&text).map_err(|error| CrashError::Results(error.to_string()))
    }

    /// Puts a campaign that was run again in the place of the one before.
    pub fn replace_section(&mut self, section: Section, repeated: Repeated) {
        self.repeated.insert(section.name.clone(), repeated);
        match self.sections.iter_mut().find(|s| s.name == section.name) {
            Some(before) => *before = section,
            None => self.sections.push(section),
        }
    }

    /// Puts a trial that was run again, or for the first time, in its place.
    pub fn replace_trial(&mut self, trial: Trial, repeated: Repeated) {
        self.repeated.insert(trial.name.clone(), repeated);
        match self.trials.iter_mut().find(|t| t.name == trial.name) {
            Some(before) => *before = trial,
            None => self.trials.push(trial),
        }
    }

    /// Whether nothing failed; what could not run does not count.
    pub fn is_passed(&self) -> bool {
        let is_failed = |section: &Section| section.status == Status::Failed;
        let is_broken = |trial: &Trial| trial.status == Status::Failed;
        self.judge.is_clean
            && !self.sections.iter().any(is_failed)
            && !self.trials.iter().any(is_broken)
    }
}

/// Writes anything as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CrashError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CrashError::Malformed(error.to_string()))?;
    std::fs::write(path, text + "\n").map_err(CrashError::io("write", path))
}
