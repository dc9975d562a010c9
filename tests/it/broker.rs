//! A `falcon serve` process under test, and commands run against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};

/// No step of a test may take longer. Generous, because tests run in parallel on small machines.
const DEADLINE: Duration = Duration::from_mins(2);

const ANY_PORT: &str = "127.0.0.1:0";

/// A command of the binary under test, without the settings of whoever runs the tests.
pub(crate) fn falcon(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_falcon"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FALCON_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// A broker process and its data folder.
pub(crate) struct Broker {
    process: Option<Served>,
    listen: String,
    folder: TempDir,
    flags: Vec<String>,
    settings: Vec<(String, String)>,
}

struct Served {
    child: Child,
    address: String,
    /// Lines of standard output; ends when the process does.
    lines: mpsc::Receiver<String>,
    log: NamedTempFile,
}

/// How a broker ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// What it printed on standard output after the ready line.
    pub(crate) lines: Vec<String>,
    pub(crate) log: String,
}

impl Broker {
    /// Starts one on a fresh folder.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        Self::start_as(flags, &[])
    }

    /// Starts one with settings in its environment.
    pub(crate) fn start_set(settings: &[(&str, &str)]) -> Self {
        Self::start_as(&[], settings)
    }

    /// One that is not started yet, on the folder `data` in `folder`.
    pub(crate) fn on(folder: TempDir) -> Self {
        Self {
            process: None,
            listen: ANY_PORT.to_owned(),
            folder,
            flags: Vec::new(),
            settings: Vec::new(),
        }
    }

    fn start_as(flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let settings = settings
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let mut broker = Self {
            process: None,
            listen: ANY_PORT.to_owned(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            flags: flags.iter().map(ToString::to_string).collect(),
            settings: settings.collect(),
        };
        broker.serve();
        broker
    }

    /// Starts the process on the folder.
    pub(crate) fn serve(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let log = NamedTempFile::new().expect("a temporary file");
        let mut child = falcon(&["serve", "--listen", &self.listen, "--data-dir"])
            .arg(self.data_dir())
            .args(&self.flags)
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("the file is there"))
            .spawn()
            .expect("the binary starts");
        let lines = lines_of(child.stdout.take().expect("it is piped"));
        let ready = lines.recv_timeout(DEADLINE).unwrap_or_default();
        let Some(address) = ready.strip_prefix("falcon ready on ") else {
            let log = std::fs::read_to_string(log.path()).unwrap_or_default();
            panic!("no ready line but {ready:?}; the log:\n{log}");
        };
        self.process = Some(Served {
            child,
            address: address.to_owned(),
            lines,
            log,
        });
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn served(&self) -> &Served {
        self.process.as_ref().expect("it is running")
    }

    /// `IP:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.served().address
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address().parse().expect("an address")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.served().log.path()).expect("the log is text")
    }

    /// `IP:PORT` of its admin port.
    pub(crate) fn admin_address(&self) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("serving /metrics"));
        let address = line.and_then(|line| line.rsplit_once("address="));
        let (_, address) = address.unwrap_or_else(|| panic!("no admin port:\n{log}"));
        address.to_owned()
    }

    /// Memory that the process holds now.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// Memory it holds that is no page of a file.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        self.memory_bytes("RssAnon:")
    }

    /// The most memory it has held so far.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.served().child.id());
        let status = std::fs::read_to_string(path).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.expect("the kernel says how much") * 1024
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.served().child.id()).expect("a process id");
        let pid = Pid::from_raw(pid).expect("not zero");
        kill_process(pid, signal).expect("it is running");
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> Ended {
        let mut served = self.process.take().expect("it is running");
        let mut lines = Vec::new();
        loop {
            match served.lines.recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    served.child.kill().expect("it is running");
                    panic!("the broker did not end");
                }
            }
        }
        let status = served.child.wait().expect("it is ours");
        Ended {
            code: status.code(),
            lines,
            log: std::fs::read_to_string(served.log.path()).expect("the log is text"),
        }
    }

    /// Ends it without warning and starts it again.
    pub(crate) fn crash_and_restart(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
        self.serve();
    }

    /// Ends it without warning and starts it again where its clients look for it.
    pub(crate) fn crash_and_come_back(&mut self) {
        self.listen = self.address().to_owned();
        self.crash_and_restart();
        ANY_PORT.clone_into(&mut self.listen);
    }

    /// Runs a command against it, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// The same with an input.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let ran = self.try_run_with(args, input);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
        ran
    }

    /// Runs a command that may fail.
    pub(crate) fn try_run(&self, args: &[&str]) -> Ran {
        self.try_run_with(args, b"")
    }

    pub(crate) fn try_run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        Running::start(&mut self.command(args)).finish(input)
    }

    /// A command against it that is not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = falcon(args);
        command.env("FALCON_SERVER", format!("falcon://{}", self.address()));
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(mut served) = self.process.take() else {
            return;
        };
        // It may have ended by itself.
        let _ = served.child.kill();
        let _ = served.child.wait();
        if thread::panicking() {
            let log = std::fs::read_to_string(served.log.path()).unwrap_or_default();
            eprintln!("the broker's log:\n{log}");
        }
    }
}

/// Tries until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let (_keep, never) = mpsc::channel::<()>();
    for _ in 0..DEADLINE.as_millis() / 10 {
        if is_so() {
            return;
        }
        // Waits without a sleep: nothing is ever sent.
        let _ = never.recv_timeout(Duration::from_millis(10));
    }
    panic!("it never came true that {what}");
}

fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (to, lines) = mpsc::sync_channel(1024);
    background(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Work that ends when the process it serves does.
pub(crate) fn background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::Builder::new().spawn(work).expect("a thread")
}

/// A command that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Self { child }
    }

    /// Gives it the input and waits for its end.
    pub(crate) fn finish(mut self, input: &[u8]) -> Ran {
        let mut stdin = self.child.stdin.take();
        let mut stdout = self.child.stdout.take().expect("it is piped");
        let mut stderr = self.child.stderr.take().expect("it is piped");
        let input = input.to_vec();
        let writer = background(move || {
            if let Some(stdin) = &mut stdin {
                // A command may end before it has read everything.
                let _ = stdin.write_all(&input);
            }
        });
        let errors = background(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("messages are text");
            text
        });
        let (to, output) = mpsc::channel();
        background(move || {
            let mut bytes = Vec::new();
            let read = stdout.read_to_end(&mut bytes).map(|_| bytes);
            // Nobody listens any more when the deadline has passed.
            let _ = to.send(read);
        });
        let Ok(stdout) = output.recv_timeout(DEADLINE) else {
            self.child.kill().expect("it is running");
            let errors = errors.join().unwrap_or_default();
            panic!("the command did not end: {errors}");
        };
        let status = self.child.wait().expect("it is ours");
        writer.join().expect("it ends with the command");
        Ran {
            code: status.code(),
            stdout: stdout.expect("a pipe can be read"),
            stderr: errors.join().expect("it ends with the command"),
        }
    }
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is text")
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text().lines().collect()
    }

    /// The JSON values on standard output.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).expect("each line is JSON");
        self.text().lines().map(parse).collect()
    }

    /// Checks that it failed with this code and one line that contains these words.
    #[track_caller]
    pub(crate) fn expect_failure(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        // `publish` says last what is durable.
        let is_summary = |line: &&str| line.starts_with("published ");
        let lines: Vec<&str> = self.stderr.lines().filter(|l| !is_summary(l)).collect();
        assert_eq!(lines.len(), 1, "{}", self.stderr);
        assert!(lines[0].starts_with("falcon: "), "{}", self.stderr);
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// The day of flights that is shipped with the sources: its path and its bytes.
pub(crate) fn small_flights() -> (String, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights-2013-01-01.jsonl");
    let bytes = std::fs::read(&path).expect("the file is part of the sources");
    (path.display().to_string(), bytes)
}

/// The bytes after the first `count` lines.
pub(crate) fn skip_lines(bytes: &[u8], count: usize) -> &[u8] {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let skipped: usize = lines.take(count).map(<[u8]>::len).sum();
    &bytes[skipped..]
}
