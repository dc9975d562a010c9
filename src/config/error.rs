//! What can be wrong with a configuration: each error names the key, the value, where it came from
//! and what is allowed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The program that embeds the broker.
    Program,
    /// A configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Program => f.write_str("the program"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} line {line} is not TOML: {message}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said, in one line.
        message: String,
    },
    /// A key that does not exist.
    #[error("{key} (from {origin}) is not a setting{}", did_you_mean(*similar))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// Where.
        origin: Origin,
        /// A key that may have been meant.
        similar: Option<&'static str>,
    },
    /// A value that is not of the kind, or out of range.
    #[error("{key} = {value} (from {origin}) is not allowed; use {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// Where.
        origin: Origin,
        /// What is allowed.
        allowed: String,
    },
    /// A value that contradicts another.
    #[error("{key} = {value} (from {origin}) {rule}")]
    Contradiction {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where it came from.
        origin: Origin,
        /// What it breaks and what to do.
        rule: String,
    },
}

fn did_you_mean(similar: Option<&str>) -> String {
    match similar {
        Some(key) => format!("; did you mean {key}?"),
        None => "; `falcon config` lists them all".into(),
    }
}
