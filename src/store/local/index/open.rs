//! Opening sled without trusting it: on a thread of its own, with a deadline, panics caught.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use super::TreeIndex;
use crate::io::{IoError, RealDisk};

/// Memory that sled may use for its pages.
const CACHE_BYTES: u64 = 8 << 20;

/// LIMIT: attempts to open it, two seconds in all.
const ATTEMPTS_MAX: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What became of an attempt to open sled.
#[derive(Debug)]
pub(in crate::store::local) enum Opened {
    Ready(TreeIndex),
    /// It reported an error or panicked: what is there may be thrown away.
    Broken(String),
    /// It did not answer. Its thread still holds the folder, which must be left alone.
    Hangs,
}

/// Opens or creates the index in `dir`.
pub(in crate::store::local) fn open(dir: &Path, timeout: Duration) -> Opened {
    let (answer, answered) = mpsc::sync_channel(1);
    let path = dir.to_path_buf();
    let attempt = std::thread::Builder::new()
        .name("falcon-index-open".to_owned())
        .spawn(move || {
            let opened = catch_unwind(|| open_patiently(&path)).unwrap_or_else(|_| {
                Err(Arc::new(sled::Error::Unsupported("it panicked".to_owned())))
            });
            // Nobody listens any more after the deadline; the database is closed again then.
            drop(answer.send(opened));
        });
    let thread = match attempt {
        Ok(thread) => thread,
        Err(error) => return Opened::Broken(error.to_string()),
    };
    match answered.recv_timeout(timeout) {
        Ok(opened) => {
            // A thread that has answered is about to end.
            drop(thread.join());
            match opened {
                Ok(tree) => Opened::Ready(tree),
                Err(error) => Opened::Broken(error.to_string()),
            }
        }
        Err(_) => Opened::Hangs,
    }
}

/// Opens it, again for a while when the system refuses: sled's own threads may outlive a database
/// that was dropped in this process, and hold its file lock until they notice.
fn open_patiently(dir: &Path) -> Result<TreeIndex, Arc<sled::Error>> {
    for _ in 0..ATTEMPTS_MAX {
        match open_here(dir.to_path_buf()) {
            Err(error) if matches!(*error, sled::Error::Io(_)) => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    open_here(dir.to_path_buf())
}

fn open_here(dir: PathBuf) -> Result<TreeIndex, Arc<sled::Error>> {
    // `flush_every_ms` stays on: sled collects its garbage on that thread.
    let db = sled::Config::new()
        .path(&dir)
        .cache_capacity(CACHE_BYTES)
        .open()?;
    Ok(TreeIndex {
        extents: db.open_tree("extents")?,
        times: db.open_tree("times")?,
        meta: db.open_tree("meta")?,
        db,
        dir,
    })
}

/// Throws the index away.
pub(in crate::store::local) fn discard(dir: &Path) -> Result<(), IoError> {
    RealDisk.remove_tree(dir)
}
