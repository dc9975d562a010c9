//! What the demo says: what happened, how long it took, which checks passed.

use falcon::clock::Instant;
use serde::Serialize;

use super::log::Published;
use crate::cli::failure::{CliError, Exit};
use crate::cli::output::Output;

/// The story so far, on standard output; as JSON, only the figures at its end.
pub(super) struct Report {
    output: Output,
    is_json: bool,
    begun: Instant,
    step: Instant,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    passed: bool,
}

#[derive(Serialize)]
struct Figures<'a> {
    records: usize,
    bytes: usize,
    sha256: String,
    seconds: f64,
    checks: &'a [Check],
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            output: Output::new(),
            is_json,
            begun: Instant::now(),
            step: Instant::now(),
            checks: Vec::new(),
        }
    }

    /// A step is over: what happened since the one before.
    pub(super) fn tell(&mut self, text: &str) -> Result<(), CliError> {
        if !self.is_json {
            let millis = self.step.elapsed().as_secs_f64() * 1e3;
            self.output
                .line(format!("{millis:>8.1} ms  {text}").as_bytes())?;
            self.output.flush()?;
        }
        self.step = Instant::now();
        Ok(())
    }

    /// Something that must be so.
    pub(super) fn check(&mut self, check: &'static str, passed: bool) -> Result<(), CliError> {
        if !self.is_json {
            let mark = if passed { "ok" } else { "FAILED" };
            self.output
                .line(format!("{mark:>11}  {check}").as_bytes())?;
        }
        self.checks.push(Check { check, passed });
        Ok(())
    }

    /// The figures; fails when a check did.
    pub(super) fn finish(mut self, published: &Published) -> Result<(), CliError> {
        let failed = self.checks.iter().filter(|check| !check.passed);
        let failed: Vec<&str> = failed.map(|check| check.check).collect();
        let seconds = self.begun.elapsed().as_secs_f64();
        let sha256 = published.digest_of(published.copy());
        if self.is_json {
            self.output.json(&Figures {
                records: published.copy().records(),
                bytes: published.bytes(),
                sha256,
                seconds,
                checks: &self.checks,
            })?;
        } else {
            let passed = self.checks.len() - failed.len();
            let all = self.checks.len();
            let line = format!("\n{passed} of {all} checks passed in {seconds:.2} s");
            self.output.line(line.as_bytes())?;
            self.output.line(format!("SHA-256 {sha256}").as_bytes())?;
        }
        self.output.flush()?;
        if failed.is_empty() {
            return Ok(());
        }
        let why = format!("these checks failed: {}", failed.join(", "));
        let remedy = "run falcon demo --keep -vv and report it with the log";
        Err(CliError::new(Exit::Failed, "demo", why, remedy))
    }
}
