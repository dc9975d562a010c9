//! A `falcon serve` process.
//!
//! Owns the process: it ends when this is dropped. Promises: the same port at every start, nothing
//! of the caller's `FALCON_` variables inside, every wait with a deadline.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::CrashError;
use crate::history::now_ns;

/// Longest a start or an orderly stop may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Outside the range from which systems give out ports of outgoing connections: a client that dials
/// a port nobody listens on could otherwise be given that very port, and connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How brokers of a run are started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) data_dir: PathBuf,
    /// Its standard error is appended here.
    pub(crate) log: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) port: u16,
}

impl Program {
    /// The log so far.
    pub(crate) fn read_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sets a variable of brokers started from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn address(&self) -> String {
        format!("falcon://127.0.0.1:{}", self.port)
    }

    /// Lets the broker's own inspection look at the data folder, which no broker uses; answers what it
    /// found wrong, in its words.
    pub(crate) fn inspect(&self) -> Result<Option<String>, CrashError> {
        let output = Command::new(&self.path)
            .arg("verify")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .output()
            .map_err(CrashError::io("start", &self.path))?;
        if output.status.success() {
            return Ok(None);
        }
        let said = [output.stdout, output.stderr].concat();
        Ok(Some(String::from_utf8_lossy(&said).into_owned()))
    }

    /// Starts it, and does not wait.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is a file of the test, outside the broker and its io door"
    )]
    pub(crate) fn start(&self) -> Result<Broker, CrashError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(CrashError::io("open", &self.log))?;
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FALCON_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            // Its port could be one that another run is about to use.
            .args(["--set", "admin.listen=off"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let mut child = child.map_err(CrashError::io("start", &self.path))?;
        let lines = child.stdout.take().map(lines_of).transpose()?;
        Ok(Broker { child, lines })
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16, CrashError> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Not from the run's seed: runs beside each other must not meet.
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(100);
    let free = candidates.find(is_free);
    free.ok_or_else(|| CrashError::Unavailable("no free port".into()))
}

/// The process.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    lines: Option<Receiver<String>>,
}

impl Broker {
    /// Waits for the ready line; answers how long that took, or `None` when the process ended, or
    /// took too long.
    pub(crate) fn wait_ready(&self) -> Option<Duration> {
        let begun = now_ns();
        let line = self.lines.as_ref()?.recv_timeout(DEADLINE).ok()?;
        let took = Duration::from_nanos(now_ns().saturating_sub(begun));
        line.starts_with("falcon ready on ").then_some(took)
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Most memory it has had resident so far; 0 where the system does not say.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.unwrap_or_default() * 1024
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; whoever waits for it finds out.
            kill_process(pid, signal).ok();
        }
    }

    /// Sends SIGKILL, and does not wait.
    pub(crate) fn send_kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn send_terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it without warning.
    pub(crate) fn kill(mut self) {
        self.send_kill();
        self.child.wait().ok();
    }

    /// Asks it to stop; answers whether it did so, with exit code 0.
    pub(crate) fn stop(mut self) -> bool {
        self.send_terminate();
        let is_over = |lines: &Receiver<String>| loop {
            match lines.recv_timeout(DEADLINE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        };
        // Standard output ends with the process.
        if !self.lines.as_ref().is_some_and(is_over) {
            return false;
        }
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lines of a standard output, read by a thread that ends with the process.
pub(crate) fn lines_of(stdout: ChildStdout) -> Result<Receiver<String>, CrashError> {
    let (to, lines) = sync_channel(64);
    let read = move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("broker-stdout".into());
    match thread.spawn(read) {
        Ok(_) => Ok(lines),
        Err(source) => Err(CrashError::Program(format!("no thread: {source}"))),
    }
}
