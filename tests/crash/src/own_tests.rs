//! The broker's own fault tests, run with more operations than a build waits for.
//!
//! Some faults need the inside of the broker: a simulated disk, one decoder alone. Those are unit tests;
//! variables set their size, and each prints a line `figures: NAME=NUMBER …` that becomes the figures of
//! a trial. A test that fails is a broken promise, in the words of its panic.

use std::process::Command;

use crate::error::CrashError;
use crate::trial::{Findings, TrialOptions};

/// What the lines with figures begin with.
const FIGURES: &str = "figures: ";

/// A power cut after every step of a recorded trace.
pub(crate) fn crash_points(options: &TrialOptions) -> Result<Findings, CrashError> {
    let operations = if options.is_long { "6000" } else { "300" };
    run(
        options,
        "falcon",
        "store::local::tests::points::",
        &[
            ("FALCON_CRASH_POINTS", operations),
            ("FALCON_CRASH_SEED", &options.seed.to_string()),
        ],
    )
}

/// One flipped bit at a time, anywhere in a data folder.
pub(crate) fn bit_flips(options: &TrialOptions) -> Result<Findings, CrashError> {
    let flips = if options.is_long { "10000" } else { "240" };
    run(
        options,
        "falcon",
        "store::local::tests::flip::",
        &[
            ("FALCON_BIT_FLIPS", flips),
            ("FALCON_FLIP_SEED", &options.seed.to_string()),
        ],
    )
}

/// Each sync fails once, and from then on.
pub(crate) fn sync_failures(options: &TrialOptions) -> Result<Findings, CrashError> {
    let points = if options.is_long { "500" } else { "32" };
    run(
        options,
        "falcon",
        "writer::tests::sync_failures::",
        &[
            ("FALCON_SYNC_POINTS", points),
            ("FALCON_SYNC_SEED", &options.seed.to_string()),
        ],
    )
}

/// Writes and reads that go to the wrong place, and syncs that keep nothing.
pub(crate) fn misdirected(options: &TrialOptions) -> Result<Findings, CrashError> {
    let devices = if options.is_long { "5000" } else { "80" };
    run(
        options,
        "falcon",
        "store::local::tests::untrue::",
        &[
            ("FALCON_MISDIRECTED", devices),
            ("FALCON_MISDIRECTED_SEED", &options.seed.to_string()),
        ],
    )
}

/// Some tests of a package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tests<'a> {
    pub(crate) package: &'a str,
    /// The target that holds them, as cargo is told.
    pub(crate) target: &'a [&'a str],
    /// What their names begin with.
    pub(crate) names: &'a str,
}

/// Runs the tests of `package`'s library whose names begin with `names`; a long run optimizes.
pub(crate) fn run(
    options: &TrialOptions,
    package: &str,
    names: &str,
    variables: &[(&str, &str)],
) -> Result<Findings, CrashError> {
    let tests = Tests {
        package,
        target: &["--lib"],
        names,
    };
    run_in(options, &tests, variables)
}

/// Runs `tests`; a long run optimizes, and keeps the checks for arithmetic overflow.
pub(crate) fn run_in(
    options: &TrialOptions,
    tests: &Tests<'_>,
    variables: &[(&str, &str)],
) -> Result<Findings, CrashError> {
    let Tests {
        package,
        target,
        names,
    } = *tests;
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(["test", "--quiet", "--locked", "--package", package]);
    command.args(target);
    if options.is_long {
        command.arg("--release");
        // The checks that a build for speed leaves out.
        for member in ["falcon", "falcon-protocol"] {
            let checked = format!("profile.release.package.{member}.overflow-checks=true");
            command.args(["--config", &checked]);
        }
    }
    command.args(["--", "--nocapture", names]);
    command.envs(variables.iter().copied());
    let output = command.output().map_err(|error| CrashError::Command {
        command: "cargo test".to_owned(),
        said: error.to_string(),
    })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let mut findings = Findings::default();
    // With several tests, a line may begin with the dots that stand for those that ended.
    let lines = said.lines().filter_map(|line| line.split_once(FIGURES));
    for (_, figures) in lines {
        for figure in figures.split_whitespace() {
            let (name, value) = figure.split_once('=').unwrap_or((figure, ""));
            let value = value.parse::<u64>().map_err(|_| {
                CrashError::Malformed(format!("{names} printed {figure}, want NAME=NUMBER"))
            })?;
            *findings.figures.entry(name.to_owned()).or_default() += value;
        }
    }
    if !output.status.success() {
        let last: Vec<&str> = said.lines().rev().take(30).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        findings.broken.push(last.join("\n"));
    } else if findings.figures.is_empty() {
        let nothing = format!("no test of {package} begins with {names}, or none said what it did");
        return Err(CrashError::Malformed(nothing));
    }
    Ok(findings)
}
