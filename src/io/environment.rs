//! What the machine says about a folder and about this process. Only told, never relied on; and one wish.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::process::{Resource, getrlimit, setpriority_process};

/// What [`hurry_this_thread`] asks for; 0 is what everybody has, -20 the most.
const NICE: i32 = -5;

/// Lets this thread run before others, where the process may say so: as root, with `CAP_SYS_NICE`, or with a limit
/// (`RLIMIT_NICE`) that allows it.
pub fn hurry_this_thread() -> std::io::Result<()> {
    // On Linux no process named means this thread alone.
    Ok(setpriority_process(None, NICE)?)
}

/// The folder itself, or the nearest one above it that exists.
pub fn nearest_folder(path: &Path) -> PathBuf {
    let mut path = fs::canonicalize(path).unwrap_or_else(|_| {
        let here = std::env::current_dir().unwrap_or_default();
        here.join(path)
    });
    while !path.is_dir() && path.pop() {}
    path
}

/// Name of the file system that holds a path, as the kernel calls it; `None` where it does not say.
pub fn file_system(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    file_system_in(&mounts, path)
}

/// The last mount over the longest prefix of the path counts.
pub(super) fn file_system_in(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let point = PathBuf::from(line.split(' ').nth(4)?.replace("\\040", " "));
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(&point)
            .then(|| (point.components().count(), kind.to_owned()))
    };
    let mounts = mounts.lines().filter_map(mount);
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// Files this process may open; `None`: any number.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Threads and processes this user may have; `None`: any number.
pub fn threads_max() -> Option<u64> {
    getrlimit(Resource::Nproc).current
}

/// Release of the kernel, such as `6.8.0-31-generic`.
pub fn kernel_release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

/// Permission bits of a file or folder.
pub fn permissions(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

/// When the newest file in a folder was changed, Unix milliseconds.
pub fn newest_change_ms(dir: &Path) -> Option<i64> {
    let changed = |entry: std::io::Result<fs::DirEntry>| {
        let changed = entry.ok()?.metadata().ok()?.modified().ok()?;
        let since = changed.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    };
    fs::read_dir(dir).ok()?.filter_map(changed).max()
}
