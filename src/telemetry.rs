//! The log: structured, on standard error, for people or as JSON.
//!
//! Owns the subscriber of the process. Promises: standard output stays free for results; nothing
//! is logged before [`start`]. Must not know: what is logged.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Why the log could not be started.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error("log.level = {level:?} is not a log filter")]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a subscriber already.
    #[error("the process has another log subscriber already")]
    Taken(#[source] TryInitError),
}

/// Starts the log of this process, once.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| TelemetryError::Level {
        level: log.level.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Told on standard error, the same file: that panics when the log is on a full device.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init(),
        LogFormat::Human => builder.with_ansi(false).finish().try_init(),
        LogFormat::Auto => builder.with_ansi(wants_colour()).finish().try_init(),
    };
    started.map_err(TelemetryError::Taken)
}

/// Colour is for terminals, and for people who did not ask for none (<https://no-color.org>).
fn wants_colour() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_refused
}
