//! Decoders under damaged inputs, a family at a time: the fuzz tests of broker and protocol.
//!
//! Owns how many inputs each decoder gets.

use crate::error::CrashError;
use crate::own_tests::{Tests, run_in};
use crate::trial::{Findings, TrialOptions};

/// Inputs of each decoder.
const INPUTS_SHORT: &str = "20000";
const INPUTS_LONG: &str = "100000000";

pub(crate) fn frames(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, PROTOCOL, "fuzz::frames::")
}

pub(crate) fn messages(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, PROTOCOL, "fuzz::messages::")
}

pub(crate) fn batches(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, PROTOCOL, "fuzz::batches::")
}

pub(crate) fn journal(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, BROKER, "store::local::tests::fuzz::journal::")
}

pub(crate) fn footers(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, BROKER, "store::local::tests::fuzz::footers::")
}

pub(crate) fn index(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, BROKER, "store::local::tests::fuzz::index::")
}

pub(crate) fn rows(options: &TrialOptions) -> Result<Findings, CrashError> {
    run(options, BROKER, "store::local::tests::fuzz::rows::")
}

/// A package and which of its targets holds the tests.
type Home = (&'static str, &'static [&'static str]);

const PROTOCOL: Home = ("falcon-protocol", &["--test", "it"]);
const BROKER: Home = ("falcon", &["--lib"]);

fn run(
    options: &TrialOptions,
    (package, target): Home,
    names: &str,
) -> Result<Findings, CrashError> {
    let tests = Tests {
        package,
        target,
        names,
    };
    let inputs = if options.is_long {
        INPUTS_LONG
    } else {
        INPUTS_SHORT
    };
    run_in(
        options,
        &tests,
        &[
            ("FALCON_FUZZ_INPUTS", inputs),
            ("FALCON_FUZZ_SEED", &options.seed.to_string()),
        ],
    )
}
