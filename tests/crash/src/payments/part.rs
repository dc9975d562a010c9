//! One process of the pipeline.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::CrashError;
use crate::history::now_ns;

const PAUSE: Duration = Duration::from_millis(20);

/// How its processes are started.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) path: PathBuf,
    pub(super) address: String,
    pub(super) log: PathBuf,
}

impl Pipeline {
    /// The example with its broker's address.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(["--address", &self.address])
            .stdin(Stdio::null());
        command
    }

    /// The intake and two workers of each kind; one of them has no name of its own, so that others take
    /// over from it when it is killed.
    pub(super) fn start_all(&self, file: &Path) -> Result<Vec<Part>, CrashError> {
        let intake = vec!["intake".into(), file.display().to_string()];
        let named = |part: &str, name: &str| {
            let words = ["--instance", name, part];
            words.map(str::to_owned).to_vec()
        };
        let all = [
            intake,
            named("charge", "charge-1"),
            named("charge", "charge-2"),
            named("book", "book-1"),
            vec!["book".into()],
        ];
        let mut parts = Vec::new();
        for arguments in all {
            let mut part = Part {
                arguments,
                child: None,
            };
            part.start(self)?;
            parts.push(part);
        }
        Ok(parts)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the log is a file of the test, outside the broker and its io door"
    )]
    fn log(&self) -> Result<File, CrashError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        log.map_err(CrashError::io("open", &self.log))
    }
}

/// A process; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Part {
    pub(super) fn name(&self) -> String {
        self.arguments.join(" ")
    }

    pub(super) fn start(&mut self, pipeline: &Pipeline) -> Result<(), CrashError> {
        let mut command = pipeline.command();
        command
            .args(&self.arguments)
            .stdout(pipeline.log()?)
            .stderr(pipeline.log()?);
        let child = command.spawn();
        self.child = Some(child.map_err(CrashError::io("start", &pipeline.path))?);
        Ok(())
    }

    /// Its name, if it ended with an error.
    pub(super) fn has_failed(&mut self) -> Option<String> {
        let ended = self.child.as_mut()?.try_wait().ok()??;
        (!ended.success()).then(|| self.name())
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail when it has ended, which is what is wanted.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Asks it to end; answers whether it did so in time, with exit code 0.
    pub(super) fn stop(&mut self, patience: Duration) -> bool {
        let Some(child) = self.child.as_mut() else {
            return false;
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // The intake has ended by itself.
            kill_process(pid, Signal::INT).ok();
        }
        let begun = now_ns();
        while Duration::from_nanos(now_ns().saturating_sub(begun)) < patience {
            match child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) => std::thread::sleep(PAUSE),
                Err(_) => return false,
            }
        }
        false
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}
