//! A broker at default settings, as a process of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::limits::Fallible;

/// A broker that serves `data`.
pub(crate) struct Broker {
    program: PathBuf,
    data: PathBuf,
    child: Child,
    pub(crate) address: String,
    admin: String,
}

/// The program, without settings from the environment.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FALCON_") {
            command.env_remove(name);
        }
    }
    command
}

fn spawn(path: &Path, data: &Path) -> Fallible<(Child, String, String)> {
    let mut child = program(path)
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn"])
        .args(["--set", "admin.listen=127.0.0.1:0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("standard output is piped")?;
    let mut lines = BufReader::new(output).lines();
    let mut after = |start: &str| -> Fallible<String> {
        let line = lines.next().ok_or("the broker did not start")??;
        let address = line.strip_prefix(start);
        Ok(address
            .ok_or_else(|| format!("unexpected: {line}"))?
            .to_owned())
    };
    let found = after("falcon ready on ").and_then(|at| Ok((at, after("falcon admin on ")?)));
    match found {
        Ok((address, admin)) => Ok((child, address, admin)),
        Err(error) => {
            child.kill().ok();
            child.wait()?;
            Err(error)
        }
    }
}

impl Broker {
    /// Starts one; returns when it accepts connections.
    pub(crate) fn start(program: &Path, data: &Path) -> Fallible<Self> {
        let (child, address, admin) = spawn(program, data)?;
        Ok(Self {
            program: program.to_path_buf(),
            data: data.to_path_buf(),
            child,
            address,
            admin,
        })
    }

    /// After [`stop`](Self::stop) or [`kill`](Self::kill): on the same folder.
    pub(crate) fn start_again(&mut self) -> Fallible<()> {
        (self.child, self.address, self.admin) = spawn(&self.program, &self.data)?;
        Ok(())
    }

    /// An orderly stop.
    pub(crate) fn stop(&mut self) -> Fallible<()> {
        let pid = i32::try_from(self.child.id())?;
        kill_process(Pid::from_raw(pid).ok_or("no process")?, Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the broker ended with {status}").into())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Fallible<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Segments that have been written; not those that were prepared ahead.
    pub(crate) fn segments(&self) -> Fallible<Vec<PathBuf>> {
        let mut paths = crate::limits::read::files(&self.data.join("journal"))?;
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".seg") && !name.starts_with("spare-")
        };
        paths.retain(is_segment);
        Ok(paths)
    }

    /// What `/metrics` says; of those with labels the last.
    pub(crate) fn metrics(&self) -> Fallible<HashMap<String, f64>> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: falcon\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let metric = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.split('{').next()?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(metric).collect())
    }

    /// One of them; 0 when there is none.
    pub(crate) fn metric(&self, name: &str) -> Fallible<f64> {
        Ok(self.metrics()?.get(name).copied().unwrap_or_default())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended already in most cases.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
