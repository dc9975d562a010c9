//! How a command ends: exit codes, and one line that says what happened and what to do.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use falcon_client::{Error as ClientError, PublishError, SubscribeError};
use falcon_protocol::ErrorCode;
use serde::Serialize;

use super::wording::Words;

/// Exit codes. They are stable; scripts may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// The operation failed: the broker refused it, or data did not match.
    Failed,
    /// Wrong usage or configuration; nothing was attempted.
    Usage,
    /// The broker cannot be reached.
    Unreachable,
    /// Nothing happened for too long.
    TimedOut,
    /// Ctrl-C, or a second signal to `falcon serve`.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Something to report.
    Failure(Box<Failure>),
    /// Whoever read standard output has closed it: no reason to complain.
    OutputClosed,
    /// Ctrl-C.
    Interrupted,
}

/// What happened and what to do, for one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What was attempted.
    pub(crate) what: String,
    /// Why it did not work.
    pub(crate) why: String,
    /// What to do about it; empty when there is nothing to say.
    pub(crate) remedy: String,
    /// The broker's code, where it gave one.
    pub(crate) code: Option<ErrorCode>,
}

#[derive(Serialize)]
struct JsonError<'a> {
    error: JsonFailure<'a>,
}

#[derive(Serialize)]
struct JsonFailure<'a> {
    what: &'a str,
    why: &'a str,
    remedy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    exit_code: u8,
}

impl CliError {
    /// A failure of this kind.
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Failure(Box::new(Failure {
            exit,
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
            code: None,
        }))
    }

    /// The operation failed because of `error`, whose own text says what to do when `remedy` is
    /// empty.
    pub(crate) fn failed(
        what: impl Into<String>,
        error: &dyn StdError,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy: String = remedy.into();
        if remedy.is_empty() {
            return Self::coded(Exit::Failed, what, Words::of(error, None), None);
        }
        Self::new(Exit::Failed, what, chain(error), remedy)
    }

    /// An error of the client library.
    pub(crate) fn from_client(what: impl Into<String>, error: &ClientError) -> Self {
        use ClientError as E;
        let exit = if matches!(error, E::Connect { .. } | E::Lost(_)) {
            Exit::Unreachable
        } else if matches!(error, E::Timeout { .. }) {
            Exit::TimedOut
        } else if matches!(
            error,
            E::Address { .. } | E::InvalidName { .. } | E::InvalidOption { .. }
        ) {
            Exit::Usage
        } else {
            Exit::Failed
        };
        let what = what.into();
        let is_for_records = what.starts_with("publish") || what.starts_with("subscribe");
        let words = Words::of_client(error, is_for_records);
        Self::coded(exit, what, words, error.code())
    }

    /// A record that was not published.
    pub(crate) fn from_publish(what: impl Into<String>, error: &PublishError) -> Self {
        use PublishError as E;
        if let E::Client(error) = error {
            return Self::from_client(what, error);
        }
        let exit = if matches!(error, E::Lost(_)) {
            Exit::Unreachable
        } else if matches!(error, E::WindowFull { .. } | E::DeliveryTimeout { .. }) {
            Exit::TimedOut
        } else {
            Exit::Failed
        };
        Self::coded(exit, what, Words::of_publish(error), error.code())
    }

    /// A subscription that could not be opened or went wrong.
    pub(crate) fn from_subscribe(what: impl Into<String>, error: &SubscribeError) -> Self {
        if let SubscribeError::Client(error) = error {
            return Self::from_client(what, error);
        }
        let words = Words::of_subscribe(error);
        Self::coded(Exit::Failed, what, words, error.code())
    }

    fn coded(exit: Exit, what: impl Into<String>, words: Words, code: Option<ErrorCode>) -> Self {
        Self::Failure(Box::new(Failure {
            exit,
            what: what.into(),
            why: words.why,
            remedy: words.remedy,
            code,
        }))
    }

    /// Wrong usage.
    pub(crate) fn usage(
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Usage, what, why, remedy)
    }

    /// The parser's message in one line.
    pub(crate) fn from_clap(error: &clap::Error) -> Self {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let problem: Vec<&str> = lines
            .iter()
            .copied()
            .take_while(|line| !line.is_empty())
            .collect();
        let problem = problem.join(" ");
        let tip = lines.iter().find_map(|line| line.strip_prefix("tip: "));
        let usage = lines.iter().find_map(|line| line.strip_prefix("Usage: "));
        let is_conflict = error.kind() == ErrorKind::ArgumentConflict;
        let remedy = match (tip, usage) {
            // How it is used otherwise is no help.
            _ if is_conflict => "leave one of them out".into(),
            (Some(tip), _) => tip.into(),
            (None, Some(usage)) => format!("usage: {usage}"),
            (None, None) => "see falcon --help".into(),
        };
        let why = problem.strip_prefix("error: ").unwrap_or(&problem);
        Self::usage("usage", why, remedy)
    }

    /// Prints the one line and answers with the exit code.
    pub(crate) fn report(&self, is_json: bool) -> Exit {
        match self {
            Self::Failure(failure) => {
                // There is nobody left to tell when standard error is closed.
                let _ = writeln!(io::stderr(), "{}", failure.line(is_json));
                failure.exit
            }
            Self::OutputClosed => Exit::Ok,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl Failure {
    fn line(&self, is_json: bool) -> String {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (what, why) = (one_line(&self.what), one_line(&self.why));
        let remedy = one_line(&self.remedy);
        if !is_json {
            let separator = if remedy.is_empty() { "" } else { "; " };
            return format!("falcon: {what}: {why}{separator}{remedy}");
        }
        let error = JsonFailure {
            what: &what,
            why: &why,
            remedy: &remedy,
            code: self.code.map(ErrorCode::name),
            exit_code: self.exit.code(),
        };
        serde_json::to_string(&JsonError { error }).unwrap_or_default()
    }
}

/// An error and its sources in one line. A source that its error's text repeats is left out.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

/// A failure to write results: a closed pipe ends quietly, anything else is reported.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::failed(
            "write to standard output",
            &error,
            "check where the output goes",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: CliError) -> Failure {
        match error {
            CliError::Failure(failure) => *failure,
            CliError::OutputClosed | CliError::Interrupted => panic!("no failure"),
        }
    }

    #[test]
    fn a_failure_is_one_line_with_what_why_and_remedy() {
        let failure = failure(CliError::new(Exit::Failed, "publish", "a\n b", "do c"));
        assert_eq!(failure.line(false), "falcon: publish: a b; do c");
        assert_eq!(
            failure.line(true),
            r#"{"error":{"what":"publish","why":"a b","remedy":"do c","exit_code":1}}"#
        );
    }

    #[test]
    fn wrong_arguments_are_one_line_too() {
        let command = clap::Command::new("falcon").arg(clap::arg!(--file <F>).required(true));
        for words in [vec!["falcon", "--fil", "x"], vec!["falcon"]] {
            let error = command.clone().try_get_matches_from(words).unwrap_err();
            let failure = failure(CliError::from_clap(&error));
            let line = failure.line(false);
            assert!(line.contains("--file"), "{line}");
            assert_eq!(line.lines().count(), 1);
            assert_eq!(failure.exit, Exit::Usage);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.report(false), Exit::Ok);
    }
}
