//! `falcon-crash`: breaks brokers, judges what clients saw, writes down the figures.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use falcon_crash::campaign::{Campaign, Section, Status, describe};
use falcon_crash::checker::check;
use falcon_crash::error::CrashError;
use falcon_crash::kill;
use falcon_crash::power::{self, FileSystem};

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
    /// Judges histories.
    Check {
        /// Files of one run.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// Seed of the first round; each later round has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker's program; by default `falcon` beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Folder for rounds; by default below the system's temporary folder.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Writes the figures to this file too.
    #[arg(long)]
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
            let campaign = common.campaign("kill", cycles, control)?;
            let section = campaign.run(|options| kill::run(options, control));
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
        Command::Check { files } => {
            let verdict = check(&files[..])?;
            println!("{verdict:#?}");
            Ok(verdict.is_clean())
        }
    }
}

impl Common {
    fn campaign(&self, name: &str, cycles: u32, is_control: bool) -> Result<Campaign, CrashError> {
        let suffix = if is_control { "-control" } else { "" };
        let work = self.work.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Campaign {
            name: format!("{name}{suffix}"),
            program: self.program()?,
            work: work.join(format!("falcon-crash-{}", std::process::id())),
            seed: self.seed,
            cycles,
            cycles_per_round: 50,
            work_ms_max: 400,
            environment: Vec::new(),
            is_control,
        })
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
            let text = serde_json::to_string_pretty(sections)
                .map_err(|error| CrashError::Program(error.to_string()))?;
            std::fs::write(path, text + "\n").map_err(CrashError::io("write", path))?;
        }
        let is_failed = |section: &Section| section.status == Status::Failed;
        Ok(!sections.iter().any(is_failed))
    }
}
