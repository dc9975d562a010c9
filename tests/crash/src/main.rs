//! `falcon-crash`: breaks brokers, judges what clients saw, writes down the figures.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{Args, Parser, Subcommand};
use falcon_crash::campaign::{Campaign, Section, Status, describe};
use falcon_crash::checker::{check, groups};
use falcon_crash::error::CrashError;
use falcon_crash::kill;
use falcon_crash::power::{self, FileSystem};
use falcon_crash::rebalances::BOUNDS;
use falcon_crash::rebalances::member::{self, MemberOptions};
use falcon_crash::report;
use falcon_crash::results::{Repeated, Results, write_json};
use falcon_crash::scale::{ScaleReport, measure};
use falcon_crash::trial::{FUZZ, KINDS, Kind, SOAK, Trial, TrialOptions};

/// Kills, cycles of power cuts for each file system, records of the judge's history. Of so many cycles
/// about 95 in 100 are cuts: some strike twice, some only kill.
const SHORT: (u32, u32, u32) = (60, 30, 1_000_000);
const LONG: (u32, u32, u32) = (1_000, 360, 100_000_000);
/// A control ends with the first round of so many cycles that lost something, or after so many in all.
const CONTROL_ROUND: u32 = 3;
const CONTROL_CYCLES: u32 = 15;

/// Breaks Falcon as machines break, and judges what clients saw.
#[derive(Debug, Parser)]
#[command(name = "falcon-crash")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// SIGKILL at random moments under load.
    Kill {
        #[command(flatten)]
        common: Common,
        /// Kills.
        #[arg(long, default_value_t = 20)]
        cycles: u32,
        /// Removes the end of the journal before each start: losses must be found.
        #[arg(long)]
        control: bool,
    },
    /// Power cuts under load; needs root, FUSE and loop devices.
    Power {
        #[command(flatten)]
        common: Common,
        /// Cuts.
        #[arg(long, default_value_t = 10)]
        cycles: u32,
        /// The file system: ext4 or xfs.
        #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
        filesystem: FileSystem,
        /// Runs the broker without syncs: losses must be found.
        #[arg(long)]
        control: bool,
    },
    /// Everything, short enough for each change or as long as for a release.
    All {
        #[command(flatten)]
        common: Common,
        /// At least 1,000 kills, and 300 power cuts for each file system.
        #[arg(long)]
        long: bool,
        /// The sources, for the results.
        #[arg(long, default_value = "unknown")]
        commit: String,
    },
    /// Other trouble, by name; all kinds when none is named.
    Trial {
        #[command(flatten)]
        common: Common,
        /// As long as for a release.
        #[arg(long)]
        long: bool,
        /// Kinds of trouble.
        #[arg(value_parser = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>())]
        names: Vec<String>,
    },
    /// Runs campaigns or trials of a long run again, alone, and puts them into its results.
    Repeat {
        #[command(flatten)]
        common: Common,
        /// The sources, for the results.
        #[arg(long, default_value = "unknown")]
        commit: String,
        /// `kill`, `power-ext4`, `power-xfs`, or trials.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Judges a good history of so many records, and says what that took.
    Scale {
        /// Records.
        #[arg(long, default_value_t = 1_000_000)]
        records: u32,
    },
    /// Generates the page of promises and figures from a results file.
    Report {
        /// What was found, with the page's words beside it.
        #[arg(long, default_value = "docs/durability/results.json")]
        results: PathBuf,
        /// The page.
        #[arg(long, default_value = "docs/DURABILITY.md")]
        out: PathBuf,
    },
    /// Makes the last run of everything the published one; `report` then generates the page.
    Publish {
        /// Folder of `crash-results.json` and the plot of the soak.
        #[arg(long, default_value = "target")]
        from: PathBuf,
        /// Folder of the published results.
        #[arg(long, default_value = "docs/durability")]
        to: PathBuf,
    },
    /// A member of a group in the trial `rebalances`, which starts it.
    #[command(hide = true)]
    Member(MemberOptions),
    /// Judges histories.
    Check {
        /// Files of one run.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// Seed of the first round; each later round has the next. Even ones have retention.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker's program; by default `falcon` beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Folder for rounds; by default below the system's temporary folder.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Folder for files that are results, such as samples and charts; by default that of `--json`.
    #[arg(long, overrides_with = "kept")]
    kept: Option<PathBuf>,
    /// Length of the trials `soak`, whose slopes are then judged, and `rebalances`.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Writes the figures to this file too.
    #[arg(long, overrides_with = "json")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("falcon-crash: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Answers whether every promise was kept.
fn run(command: Command) -> Result<bool, CrashError> {
    match command {
        Command::Kill {
            common,
            cycles,
            control,
        } => {
            let section = common.kill(cycles, control)?;
            common.report(&[section])
        }
        Command::Power {
            common,
            cycles,
            filesystem,
            control,
        } => {
            let section = common.power(cycles, filesystem, control)?;
            common.report(&[section])
        }
        Command::All {
            common,
            long,
            commit,
        } => common.all(long, commit),
        Command::Trial {
            common,
            long,
            names,
        } => {
            let trials = common.trials(long, &names)?;
            for trial in &trials {
                trial.said.iter().for_each(|said| println!("  {said}"));
            }
            if let Some(path) = &common.json {
                write_json(path, &trials)?;
            }
            Ok(!trials.iter().any(|trial| trial.status == Status::Failed))
        }
        Command::Repeat {
            common,
            commit,
            names,
        } => common.repeat(&commit, &names),
        Command::Scale { records } => {
            let report = measure(records)?;
            println!("{report:?}");
            Ok(report.is_clean)
        }
        Command::Report { results, out } => report::report(&results, &out).map(|()| true),
        Command::Publish { from, to } => report::publish(&from, &to).map(|()| true),
        Command::Member(options) => member::run(&options).map(|()| true),
        Command::Check { files } => {
            let verdict = check(&files[..])?;
            println!("{verdict:#?}");
            let of_groups = groups::check(&files[..], BOUNDS)?;
            println!("{of_groups:#?}");
            Ok(verdict.is_clean() && of_groups.verdict.is_clean())
        }
    }
}

type Made = (Vec<Section>, Vec<Trial>, ScaleReport);

impl Common {
    fn campaign(&self, name: &str, cycles: u32, is_control: bool) -> Result<Campaign, CrashError> {
        let suffix = if is_control { "-control" } else { "" };
        Ok(Campaign {
            name: format!("{name}{suffix}"),
            program: self.program()?,
            work: self.folder(),
            seed: self.seed,
            cycles,
            cycles_per_round: if is_control { CONTROL_ROUND } else { 50 },
            work_ms_max: 400,
            environment: Vec::new(),
            is_control,
        })
    }

    /// All kinds, each with its control. A long run has three lanes beside each other: an hour of soak, what
    /// only computes, and everything else, which mostly waits.
    fn all(&self, is_long: bool, commit: String) -> Result<bool, CrashError> {
        let names = KINDS.iter().map(|kind| kind.name.to_owned());
        let (soaks, others): (Vec<_>, Vec<_>) = names.partition(|name| is_long && name == SOAK);
        let (fuzz, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|name| is_long && name.starts_with(FUZZ));
        let (made, beside) = thread::scope(|scope| {
            let lanes = [soaks, fuzz].map(|lane| {
                let run = move || match &lane[..] {
                    [] => Ok(Vec::new()),
                    lane => self.trials(is_long, lane),
                };
                thread::Builder::new().spawn_scoped(scope, run)
            });
            let made = self.one_by_one(is_long, &others);
            (
                made,
                lanes.map(|lane| lane.map(thread::ScopedJoinHandle::join)),
            )
        });
        let (sections, mut trials, judge) = made?;
        for lane in beside {
            match lane {
                Ok(Ok(made)) => trials.extend(made?),
                Ok(Err(_)) => return Err(CrashError::Program("a trial panicked".into())),
                Err(error) => return Err(CrashError::Program(format!("no thread: {error}"))),
            }
        }
        let length = if is_long { "long" } else { "short" };
        let results = Results::new(length, commit, sections, trials, judge);
        for section in &results.sections {
            println!("{}", section.summary());
            if !section.is_control {
                section.said.iter().for_each(|said| println!("  {said}"));
            }
        }
        for trial in &results.trials {
            println!("{}", trial.summary());
            trial.said.iter().for_each(|said| println!("  {said}"));
        }
        println!("judge: {:?}", results.judge);
        if let Some(path) = &self.json {
            write_json(path, &results)?;
            println!("results: {}", path.display());
        }
        Ok(results.is_passed())
    }

    /// Campaigns, these trials, and the judge on a large history.
    fn one_by_one(&self, is_long: bool, trials: &[String]) -> Result<Made, CrashError> {
        let (kills, cuts, records) = if is_long { LONG } else { SHORT };
        let mut sections = vec![self.kill(kills, false)?, self.kill(CONTROL_CYCLES, true)?];
        for filesystem in [FileSystem::Ext4, FileSystem::Xfs] {
            sections.push(self.power(cuts, filesystem, false)?);
            sections.push(self.power(CONTROL_CYCLES, filesystem, true)?);
        }
        let trials = self.trials(is_long, trials)?;
        Ok((sections, trials, measure(records)?))
    }

    /// Runs these again as a long run does; `--json` names its results.
    fn repeat(&self, commit: &str, names: &[String]) -> Result<bool, CrashError> {
        let path = self.json.as_deref();
        let path = path.ok_or_else(|| CrashError::Results("--json names no results".into()))?;
        let (kills, cuts, _) = LONG;
        for name in names {
            let section = match name.as_str() {
                "kill" => Some(self.kill(kills, false)?),
                "power-ext4" => Some(self.power(cuts, FileSystem::Ext4, false)?),
                "power-xfs" => Some(self.power(cuts, FileSystem::Xfs, false)?),
                name if KINDS.iter().any(|kind| kind.name == name) => None,
                name => return Err(CrashError::Results(format!("nothing is called {name}"))),
            };
            let trials = match section {
                Some(_) => Vec::new(),
                None => self.trials(true, std::slice::from_ref(name))?,
            };
            // Another may have been repeated meanwhile.
            let mut results = Results::read(path)?;
            let repeated = Repeated::now(commit.to_owned());
            for trial in trials {
                trial.said.iter().for_each(|said| println!("  {said}"));
                results.replace_trial(trial, repeated.clone());
            }
            if let Some(section) = section {
                println!("{}", section.summary());
                results.replace_section(section, repeated);
            }
            write_json(path, &results)?;
        }
        Ok(Results::read(path)?.is_passed())
    }

    /// The trials of these names, or all.
    fn trials(&self, is_long: bool, names: &[String]) -> Result<Vec<Trial>, CrashError> {
        let options = self.trial_options(is_long)?;
        let is_wanted = |kind: &&Kind| names.is_empty() || names.iter().any(|n| n == kind.name);
        let run = |kind: &Kind| {
            let trial = kind.trial(&options);
            eprintln!("{}", trial.summary());
            trial
        };
        let trials = KINDS.iter().filter(is_wanted).map(run).collect();
        // What trials that found something left stays in it.
        std::fs::remove_dir(&options.folder).ok();
        Ok(trials)
    }

    fn trial_options(&self, is_long: bool) -> Result<TrialOptions, CrashError> {
        let beside = || Some(self.json.as_ref()?.parent()?.to_path_buf());
        Ok(TrialOptions {
            program: self.program()?,
            folder: self.folder(),
            kept: self.kept.clone().or_else(beside).unwrap_or_default(),
            minutes: self.minutes,
            seed: self.seed,
            is_long,
        })
    }

    fn folder(&self) -> PathBuf {
        let work = self.work.clone().unwrap_or_else(std::env::temp_dir);
        work.join(format!("falcon-crash-{}", std::process::id()))
    }

    fn kill(&self, cycles: u32, is_control: bool) -> Result<Section, CrashError> {
        let campaign = self.campaign("kill", cycles, is_control)?;
        Ok(campaign.run(|options| kill::run(options, is_control)))
    }

    fn power(
        &self,
        cycles: u32,
        filesystem: FileSystem,
        is_control: bool,
    ) -> Result<Section, CrashError> {
        let name = format!("power-{}", filesystem.name());
        let campaign = self.campaign(&name, cycles, is_control)?;
        Ok(campaign.run(|options| power::run(options, filesystem, is_control)))
    }

    fn program(&self) -> Result<PathBuf, CrashError> {
        let beside = || {
            std::env::current_exe()
                .ok()?
                .parent()
                .map(|dir| dir.join("falcon"))
        };
        let path = self.program.clone().or_else(beside);
        let found = path.clone().filter(|path| path.is_file());
        found.ok_or_else(|| CrashError::Program(format!("{path:?} is not there; use --program")))
    }

    fn report(&self, sections: &[Section]) -> Result<bool, CrashError> {
        for section in sections {
            println!("{}", section.summary());
            section.said.iter().for_each(|said| println!("  {said}"));
        }
        if let Some(path) = &self.json {
            write_json(path, &sections)?;
        }
        let is_failed = |section: &Section| section.status == Status::Failed;
        Ok(!sections.iter().any(is_failed))
    }
}
