//! What Linux counts about a process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use crate::limits::Fallible;

/// `USER_HZ`, which is 100 on every architecture (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, in the program and in the kernel.
pub(crate) fn cpu_seconds(pid: u32) -> Fallible<f64> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?, 14)
}

/// As [`cpu_seconds`], of every child that was waited for.
pub(crate) fn children_cpu_seconds() -> Fallible<f64> {
    ticks(&fs::read_to_string("/proc/self/stat")?, 16)
}

/// As [`cpu_seconds`], by names of threads.
pub(crate) fn threads(pid: u32) -> Fallible<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'));
        let name = name.map(|(name, _)| name.to_owned()).unwrap_or_default();
        *threads.entry(name).or_default() += ticks(&stat, 14)?;
    }
    Ok(threads)
}

/// Seconds of all cores together that nobody had.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spare {
    /// Nothing was to do, or what was to do waited for the device.
    pub(crate) idle: f64,
    /// The host had given the core to somebody else.
    pub(crate) stolen: f64,
}

impl Spare {
    pub(crate) fn now() -> Fallible<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let fields: Vec<&str> = stat.split_whitespace().take(9).collect();
        let seconds = |at: usize| Ok(number(fields.get(at))? / TICKS_PER_SECOND);
        let field: &dyn Fn(usize) -> Fallible<f64> = &seconds;
        Ok(Self {
            idle: field(4)? + field(5)?,
            stolen: field(8)?,
        })
    }
}

/// Field `first` of a stat line and the one behind it, together in seconds.
fn ticks(stat: &str, first: usize) -> Fallible<f64> {
    // A name may contain spaces; fields are counted from 3 behind it.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let user = number(fields.get(first - 3))?;
    let system = number(fields.get(first - 2))?;
    Ok((user + system) / TICKS_PER_SECOND)
}

fn number(field: Option<&&str>) -> Fallible<f64> {
    Ok(field.ok_or("a field of proc is missing")?.parse()?)
}

/// Bytes that the process caused to be written to devices.
pub(crate) fn written_bytes(pid: u32) -> Fallible<f64> {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

/// As [`written_bytes`], by the threads with this name.
pub(crate) fn written_by_thread(pid: u32, name: &str) -> Fallible<f64> {
    let mut bytes = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // A thread may end meanwhile.
        let Ok(found) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if found.trim_end() == name {
            bytes += field(&path.join("io").to_string_lossy(), "write_bytes:")?;
        }
    }
    Ok(bytes)
}

/// Bytes that the device below a folder was told to write by anybody, if it counts them.
pub(crate) fn device_written_bytes(folder: &Path) -> Fallible<Option<f64>> {
    const SECTOR_BYTES: f64 = 512.0;
    let device = fs::metadata(folder)?.dev();
    let (major, minor) = (major(device), minor(device));
    // Some file systems have devices that exist nowhere else.
    let Ok(stat) = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else {
        return Ok(None);
    };
    let sectors = number(stat.split_whitespace().nth(6).as_ref())?;
    Ok(Some(sectors * SECTOR_BYTES))
}

/// Resident memory in bytes: now, and at most so far.
pub(crate) fn resident_bytes(pid: u32) -> Fallible<(f64, f64)> {
    let path = format!("/proc/{pid}/status");
    Ok((
        field(&path, "VmRSS:")? * 1024.0,
        field(&path, "VmHWM:")? * 1024.0,
    ))
}

fn field(path: &str, name: &str) -> Fallible<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.ok_or_else(|| format!("{path} has no {name}"))?;
    number(value.split_whitespace().next().as_ref())
}
