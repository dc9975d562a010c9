//! What the machine tells: processes, disk, versions.
//!
//! Owns the reading of `/proc`. Promises: what cannot be read counts as nothing, never as an error. Must not
//! know: servers.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// Bytes of a block in `st_blocks`, whatever the file system's own.
const BLOCK_BYTES: u64 = 512;
/// Ticks of a second in `/proc/PID/stat`: fixed on Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What a server has cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu_seconds: f64,
    /// Peak resident memory.
    pub(crate) peak_bytes: u64,
    /// Handed to the file system or the device.
    pub(crate) written_bytes: u64,
    /// Allocated in the data folder.
    pub(crate) disk_bytes: u64,
}

impl Usage {
    /// Adds one process.
    pub(crate) fn add_process(&mut self, process: u32) {
        let fields = stat(process);
        let ticks = |field: usize| {
            fields
                .get(field)
                .and_then(|ticks| ticks.parse::<f64>().ok())
        };
        // Fields 14 and 15 of proc(5), counted from the third.
        self.cpu_seconds += (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS;
        let peak = line(&format!("/proc/{process}/status"), "VmHWM:");
        self.peak_bytes += peak.unwrap_or(0) * 1024;
        let written = line(&format!("/proc/{process}/io"), "write_bytes:");
        self.written_bytes += written.unwrap_or(0);
    }
}

/// The number behind `name` in a file of `/proc`.
fn line(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/PID/stat` behind the name, which may have spaces.
fn stat(process: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

/// A process and all that descend from it.
pub(crate) fn processes_below(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let parent = stat(process).get(1).and_then(|parent| parent.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(process) = found.get(at) {
        found.extend(children.remove(process).unwrap_or_default());
        at += 1;
    }
    found
}

/// Bytes allocated below a folder.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => bytes += disk_bytes(&entry.path()),
            Ok(found) => bytes += found.blocks() * BLOCK_BYTES,
            // Deleted meanwhile.
            Err(_) => {}
        }
    }
    bytes
}

/// The first line that a program prints.
pub(crate) fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

/// The version of an installed package.
pub(crate) fn package(name: &str) -> Option<String> {
    output(Path::new("dpkg-query"), &["-W", "-f=${Version}", name])
}

/// The type of the file system that a folder is on.
fn file_system(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|mount| {
        let mut fields = mount.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let mounts = mounts.filter(|(at, _)| folder.starts_with(at));
    let (_, kind) = mounts.max_by_key(|(at, _)| at.len())?;
    Some(kind.to_owned())
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory_gib: u64,
    kernel: String,
    file_system: String,
    date: String,
    command: String,
}

impl Machine {
    /// This one; data is in that folder.
    pub(crate) fn this(folder: &Path) -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model
            .unwrap_or_default()
            .trim_start_matches([' ', '\t', ':']);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = line("/proc/meminfo", "MemTotal:").unwrap_or(0);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: model.to_owned(),
            memory_gib: memory.div_ceil(1 << 20),
            kernel: kernel.trim().to_owned(),
            file_system: file_system(folder).unwrap_or_default(),
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            command: format!("benches/peers/run {}", arguments.join(" "))
                .trim()
                .to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, `{}`: {} cores shared by clients and servers ({}), {} GiB, Linux {}, {}",
            self.date,
            self.command,
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.file_system,
        )
    }
}
