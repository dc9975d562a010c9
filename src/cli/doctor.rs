//! `falcon doctor`: whether this machine is fit for a broker, and what to do where it is not.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use falcon::clock::now_unix_ms;
use falcon::config::Config;
use falcon::io::{Disk, ReadOnlyDisk, RealDisk, environment};
use falcon::store::local::{LocalConfig, LocalStore};
use jiff::Timestamp;
use serde::Serialize;

use super::config::{self, ConfigFlags};
use super::failure::{CliError, Exit, chain};
use super::output::Output;

mod sync;

/// Arguments of `falcon doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    what: String,
    /// What to do; empty when it is fine.
    remedy: &'static str,
}

impl Check {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, what, "")
    }

    fn new(
        name: &'static str,
        verdict: Verdict,
        what: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self {
            name,
            verdict,
            what: what.into(),
            remedy,
        }
    }
}

/// Threads that a broker may start: workers, readers, writer, keeper, index.
const THREADS: u64 = 600;
/// Files that a broker opens besides connections: segments, index, log.
const FILES: u64 = 320;
/// 1 January 2025, Unix milliseconds: no clock that is set shows less.
const EARLIEST_MS: i64 = 1_735_689_600_000;
const CLOCK_SLACK_MS: i64 = 60_000;

/// Prints one line per check.
pub(crate) fn run(args: &DoctorArgs, is_json: bool) -> Result<(), CliError> {
    let config = config::load(&args.flags)?.config;
    let folder = environment::nearest_folder(&config.data_dir);
    let checks = [
        check_folder(&config, &folder),
        check_file_system(&folder),
        sync::check(&folder),
        check_space(&config, &folder),
        check_files(&config),
        check_threads(),
        check_clock(&folder),
        check_kernel(),
    ];
    let mut output = Output::new();
    for check in &checks {
        if is_json {
            output.json(check)?;
            continue;
        }
        let verdict = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let separator = if check.remedy.is_empty() { "" } else { "; " };
        let (name, what, remedy) = (check.name, &check.what, check.remedy);
        output.line(format!("{verdict}  {name:<12} {what}{separator}{remedy}").as_bytes())?;
    }
    output.flush()?;
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .map(|check| check.name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let why = format!("failed: {}", failed.join(", "));
    Err(CliError::new(
        Exit::Failed,
        "doctor",
        why,
        "see the lines above",
    ))
}

fn check_folder(config: &Config, folder: &Path) -> Check {
    const NAME: &str = "folder";
    let wanted = config.data_dir.display();
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        let what = format!("{wanted} is no folder");
        return Check::new(NAME, Verdict::Fail, what, "name a folder with --data-dir");
    }
    if !config.data_dir.is_dir() {
        let what = format!("{wanted} will be created below {}", folder.display());
        return Check::ok(NAME, what);
    }
    let mode = environment::permissions(folder).unwrap_or(0);
    if mode & 0o022 != 0 {
        let what = format!("{wanted} may be written by others (mode {mode:03o})");
        return Check::new(NAME, Verdict::Warn, what, "run chmod go-w on it");
    }
    match ReadOnlyDisk.lock(&config.data_dir.join("LOCK")) {
        Ok(Some(_lock)) => {
            let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
            match LocalStore::check_folder(&LocalConfig::new(config.data_dir.clone()), &disk) {
                Ok(()) => Check::ok(NAME, format!("{wanted}, no broker runs on it")),
                Err(error) => {
                    let what = format!("a broker does not start: {}", chain(&error));
                    Check::new(NAME, Verdict::Fail, what, "")
                }
            }
        }
        Ok(None) => Check::ok(NAME, format!("{wanted}, a broker runs on it")),
        Err(error) => {
            let what = format!("{error}: {}", error.source);
            Check::new(NAME, Verdict::Fail, what, "give it to the broker's user")
        }
    }
}

fn check_file_system(folder: &Path) -> Check {
    const NAME: &str = "file system";
    let Some(name) = environment::file_system(folder) else {
        return Check::ok(NAME, "the system does not say which");
    };
    let is_any = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let (what, remedy) = if is_any(&["tmpfs", "ramfs", "devtmpfs"]) {
        ("is memory, a restart loses it", "put data_dir on a device")
    } else if is_any(&["overlay", "aufs"]) {
        (
            "is a container's layer, it goes with the container",
            "mount a volume at data_dir",
        )
    } else if is_any(&[
        "nfs", "cifs", "smb", "9p", "ceph", "lustre", "gluster", "afs",
    ]) {
        (
            "is on the network, where locks and syncs may promise less",
            "put data_dir on a local device",
        )
    } else if is_any(&["fuse", "virtiofs", "vboxsf"]) {
        (
            "is a layer that may not pass syncs on",
            "put data_dir on ext4 or xfs on a local device",
        )
    } else {
        return Check::ok(NAME, name);
    };
    Check::new(NAME, Verdict::Warn, format!("{name} {what}"), remedy)
}

fn check_space(config: &Config, folder: &Path) -> Check {
    const NAME: &str = "space";
    let free = match RealDisk.free_bytes(folder) {
        Ok(free) => free,
        Err(error) => {
            let what = format!("{error}: {}", error.source);
            return Check::new(NAME, Verdict::Fail, what, "check the device");
        }
    };
    let storage = &config.storage;
    let floor = storage.free_floor_bytes;
    let spares = u64::from(storage.spare_segments).saturating_add(1);
    let ahead = floor.saturating_add(storage.segment_bytes.saturating_mul(spares));
    let mib = |bytes: u64| bytes >> 20;
    let what = format!("{} MiB free, {} MiB stay reserved", mib(free), mib(floor));
    if free < floor {
        let remedy = "free space, or lower storage.free_floor_bytes: publishes are refused";
        Check::new(NAME, Verdict::Fail, what, remedy)
    } else if free < ahead {
        let remedy = "free space: it does not last for the next segments";
        Check::new(NAME, Verdict::Warn, what, remedy)
    } else {
        Check::ok(NAME, what)
    }
}

fn check_files(config: &Config) -> Check {
    const NAME: &str = "open files";
    let connections = u64::from(config.limits.connections_max);
    let need = connections + FILES;
    let Some(max) = environment::open_files_max().filter(|max| *max < need) else {
        return Check::ok(NAME, format!("enough for {connections} connections"));
    };
    let what = format!("{max} allowed, {need} needed for {connections} connections");
    let remedy = "raise it (ulimit -n, LimitNOFILE=) or lower limits.connections_max";
    let verdict = if max <= FILES {
        Verdict::Fail
    } else {
        Verdict::Warn
    };
    Check::new(NAME, verdict, what, remedy)
}

fn check_threads() -> Check {
    const NAME: &str = "threads";
    match environment::threads_max().filter(|max| *max < THREADS) {
        None => Check::ok(NAME, "enough"),
        Some(max) => {
            let what = format!("{max} allowed for this user, a broker may need {THREADS}");
            Check::new(NAME, Verdict::Warn, what, "raise it (ulimit -u, TasksMax=)")
        }
    }
}

fn check_clock(folder: &Path) -> Check {
    const NAME: &str = "clock";
    let now = now_unix_ms();
    let shown =
        |ms| Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.to_string());
    if now < EARLIEST_MS {
        let remedy = "set the clock: append times and retention by age depend on it";
        return Check::new(NAME, Verdict::Fail, shown(now), remedy);
    }
    let newest = environment::newest_change_ms(folder);
    if let Some(newest) = newest.filter(|newest| *newest > now + CLOCK_SLACK_MS) {
        let what = format!(
            "{} is before the newest file, {}",
            shown(now),
            shown(newest)
        );
        let remedy = "set the clock: append times stand still until it catches up";
        return Check::new(NAME, Verdict::Warn, what, remedy);
    }
    Check::ok(NAME, shown(now))
}

fn check_kernel() -> Check {
    const NAME: &str = "kernel";
    let Some(release) = environment::kernel_release() else {
        return Check::ok(NAME, "the system does not say which");
    };
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // Before 4.13 an error of write-back could be reported to nobody.
    if version < (4, 13) {
        let remedy = "use 4.13 or later: older ones can hide that a write failed";
        return Check::new(NAME, Verdict::Warn, release, remedy);
    }
    Check::ok(NAME, release)
}
