//! The process of a server, and what it costs.
//!
//! Owns the child process and everything it started. Promises: ended when dropped, and by the kernel when this
//! program is killed; stands still while others are measured. Must not know: which server it is.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{self, Usage};

const START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// The end of a server's output that is shown when it does not start.
const OUTPUT_BYTES: usize = 600;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    /// Ended after it.
    owned: Vec<Server>,
}

/// A port that was free just now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    /// A command that starts it; it does not outlive this program.
    pub(crate) fn command(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(
        command: Command,
        folder: &Path,
        data: &Path,
        port: u16,
    ) -> Result<Self> {
        Self::start_within(command, folder, data, port, START_MAX).await
    }

    /// Starts it and waits so long until it listens.
    pub(crate) async fn start_within(
        mut command: Command,
        folder: &Path,
        data: &Path,
        port: u16,
        limit: Duration,
    ) -> Result<Self> {
        let output = folder.join(format!("output-{port}"));
        let file = std::fs::File::create(&output)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        command.current_dir(folder).process_group(0);
        let child = command.spawn().context("starting a server")?;
        let data = data.to_owned();
        let mut server = Self {
            child,
            data,
            owned: Vec::new(),
        };
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect(address).is_err() {
            if server.child.try_wait()?.is_some() || begun.elapsed() > limit {
                let said = std::fs::read_to_string(&output).unwrap_or_default();
                let at = said.len().saturating_sub(OUTPUT_BYTES);
                bail!(
                    "a server does not listen: {}",
                    said.get(at..).unwrap_or_default()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(server)
    }

    /// Ends that one too.
    pub(crate) fn owns(&mut self, other: Self) {
        self.owned.push(other);
    }

    fn processes(&self) -> Vec<u32> {
        machine::processes_below(self.child.id())
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            let process = i32::try_from(process).ok().and_then(Pid::from_raw);
            // One that ended meanwhile needs no signal.
            process.map(|process| kill_process(process, signal).ok());
        }
    }

    /// Lets it stand still.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// What it has cost so far, and has on disk.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            disk_bytes: machine::disk_bytes(&self.data),
            ..Usage::default()
        };
        for process in self.processes() {
            usage.add_process(process);
        }
        usage
    }

    /// From now on, peak memory is counted anew.
    pub(crate) fn forget_peak(&self) {
        for process in self.processes() {
            // Where this is not allowed the peak is that since the start.
            std::fs::write(format!("/proc/{process}/clear_refs"), "5").ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
