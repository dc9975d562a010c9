//! What keeps a run from being a test.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a run could not be made or finished. What the broker did wrong is never one of these.
#[derive(Debug, Error)]
pub enum CrashError {
    /// A file operation of the rig itself.
    #[error("{operation} {}", .path.display())]
    Io {
        /// What was tried, a verb.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A history is not one.
    #[error("the history cannot be judged: {0}")]
    Malformed(String),
    /// Results that cannot be published.
    #[error("the results cannot be published: {0}")]
    Results(String),
    /// A program of the system did not do its work.
    #[error("{command}: {said}")]
    Command {
        /// As typed.
        command: String,
        /// Its standard error, or why it did not start.
        said: String,
    },
    /// The machine lacks something that the run needs; not a failure.
    #[error("not possible here: {0}")]
    Unavailable(String),
    /// The broker's program cannot be started or found.
    #[error("the broker cannot be run: {0}")]
    Program(String),
}

impl CrashError {
    /// An error of `operation` on `path`.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
