//! Emptying the page cache.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::Fallible;

/// How cold it became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cold {
    /// The whole page cache was dropped.
    All,
    /// Without root only what belongs to the folder's files was given up.
    Files,
}

/// Writes everything back, and drops what can be dropped.
pub(crate) fn drop_caches(folder: &Path) -> Fallible<Cold> {
    rustix::fs::sync();
    give_up(folder)?;
    Ok(match fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => Cold::All,
        Err(_) => Cold::Files,
    })
}

/// The pages of every file below.
fn give_up(folder: &Path) -> Fallible<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_up(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            fadvise(File::open(entry.path())?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
