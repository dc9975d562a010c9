//! Trials: one kind of trouble each, and what came of it in figures.
//!
//! Owns the list of kinds ([`KINDS`]) and how one is run: a fresh folder, removed when nothing was found;
//! a machine that lacks what the trouble needs is a skip with its reason, never a pass. Kills and power
//! cuts, which are judged by histories, are campaigns instead.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::abuse;
use crate::campaign::{Status, describe, fresh_folder};
use crate::error::CrashError;
use crate::full;
use crate::fuzz;
use crate::history::now_ns;
use crate::own_tests;
use crate::payments;
use crate::power::eio;
use crate::read_only;
use crate::rebalances;
use crate::retried;
use crate::soak::soak;

/// Findings kept in words.
const SAID_MAX: usize = 40;

/// Takes an hour in a long run, which then runs it beside all others.
pub const SOAK: &str = "soak";

/// What the names of kinds begin with that only compute.
pub const FUZZ: &str = "fuzz-";

/// One kind of trouble.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As in the results and on the command line.
    pub name: &'static str,
    /// Makes the trouble.
    pub run: fn(&TrialOptions) -> Result<Findings, CrashError>,
}

/// All kinds, in the order in which they are run.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "crash-points",
        run: own_tests::crash_points,
    },
    Kind {
        name: "bit-flips",
        run: own_tests::bit_flips,
    },
    Kind {
        name: SOAK,
        run: soak,
    },
    Kind {
        name: "rebalances",
        run: rebalances::run,
    },
    Kind {
        name: "abuse",
        run: abuse::run,
    },
    Kind {
        name: "fuzz-frames",
        run: fuzz::frames,
    },
    Kind {
        name: "fuzz-messages",
        run: fuzz::messages,
    },
    Kind {
        name: "fuzz-batches",
        run: fuzz::batches,
    },
    Kind {
        name: "fuzz-journal",
        run: fuzz::journal,
    },
    Kind {
        name: "fuzz-footers",
        run: fuzz::footers,
    },
    Kind {
        name: "fuzz-index",
        run: fuzz::index,
    },
    Kind {
        name: "fuzz-rows",
        run: fuzz::rows,
    },
    Kind {
        name: "sync-failures",
        run: own_tests::sync_failures,
    },
    Kind {
        name: "misdirected",
        run: own_tests::misdirected,
    },
    Kind {
        name: "payments",
        run: payments::payments,
    },
    Kind {
        name: "eio-on-sync",
        run: eio::on_sync,
    },
    Kind {
        name: "retried-publishes",
        run: retried::publishes,
    },
    Kind {
        name: "disk-full",
        run: full::disk_full,
    },
    Kind {
        name: "read-only",
        run: read_only::read_only,
    },
];

/// What a trial is made with.
#[derive(Debug, Clone)]
pub struct TrialOptions {
    /// The broker's program.
    pub program: PathBuf,
    /// A folder of its own, empty; kept when something was found.
    pub folder: PathBuf,
    /// Decides what happens when.
    pub seed: u64,
    /// For files that are results: samples, charts.
    pub kept: PathBuf,
    /// Length of a trial that takes as long as one likes, instead of its own.
    pub minutes: Option<u64>,
    /// As long as for a release, else short enough for each change.
    pub is_long: bool,
}

/// What a trial found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// What was done and seen, by name; a name ends in its unit where it has one.
    pub figures: BTreeMap<String, u64>,
    /// Promises that were broken, in words; empty when all were kept.
    pub broken: Vec<String>,
}

impl Findings {
    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: u64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Notes a broken promise unless `is_kept`.
    pub fn expect(&mut self, is_kept: bool, broken: impl FnOnce() -> String) {
        if !is_kept {
            self.broken.push(broken());
        }
    }
}

/// A trial in the results file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// Its kind.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped or stopped.
    pub reason: Option<String>,
    /// What it began with.
    pub seed: u64,
    /// What was done and seen.
    pub figures: BTreeMap<String, u64>,
    /// Broken promises in words.
    pub said: Vec<String>,
    /// How long it took.
    pub seconds: u64,
}

impl Kind {
    /// Runs it in a folder of its own below `options.folder`.
    pub fn trial(&self, options: &TrialOptions) -> Trial {
        let begun = now_ns();
        let found = fresh_folder(&options.folder, self.name).and_then(|folder| {
            let options = TrialOptions {
                folder: folder.clone(),
                ..options.clone()
            };
            let findings = (self.run)(&options)?;
            if findings.broken.is_empty() {
                std::fs::remove_dir_all(&folder).map_err(CrashError::io("remove", &folder))?;
            } else {
                eprintln!("{} found something: see {}", self.name, folder.display());
            }
            Ok(findings)
        });
        let (status, reason, findings) = match found {
            Ok(findings) if findings.broken.is_empty() => (Status::Passed, None, findings),
            Ok(findings) => (Status::Failed, None, findings),
            Err(CrashError::Unavailable(what)) => {
                (Status::Skipped, Some(what), Findings::default())
            }
            Err(error) => (Status::Failed, Some(describe(&error)), Findings::default()),
        };
        Trial {
            name: self.name.to_owned(),
            status,
            reason,
            seed: options.seed,
            figures: findings.figures,
            said: findings.broken.into_iter().take(SAID_MAX).collect(),
            seconds: Duration::from_nanos(now_ns().saturating_sub(begun)).as_secs(),
        }
    }
}

impl Trial {
    /// One line for people.
    pub fn summary(&self) -> String {
        let figures = self.figures.iter();
        let figures: Vec<String> = figures.map(|(name, n)| format!("{name} {n}")).collect();
        let reason = self.reason.as_deref().unwrap_or_default();
        format!(
            "{} {:?}: seed {}, {} ({} s) {reason}",
            self.name,
            self.status,
            self.seed,
            figures.join(", "),
            self.seconds
        )
    }
}
