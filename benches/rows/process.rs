//! What Linux counts about a process.

use std::collections::BTreeMap;
use std::fs;

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

/// Seconds in which no core had anything to do, of all cores together.
pub(crate) fn idle_seconds() -> Fallible<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<&str> = stat.split_whitespace().take(6).collect();
    let idle: f64 = number(fields.get(4))? + number(fields.get(5))?;
    Ok(idle / TICKS_PER_SECOND)
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
