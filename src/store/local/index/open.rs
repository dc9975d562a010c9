//! Opening sled without trusting it: on a thread of its own, with a deadline, panics caught.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::TreeIndex;
use crate::clock::Instant;
use crate::io::{IoError, RealDisk};

/// Memory that sled may use for its pages.
const CACHE_BYTES: u64 = 8 << 20;

/// How often whoever waits looks whether he shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a stop waits for it: most of the time it opens at once, and the next start can use it then.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// LIMIT: attempts to open it, two seconds in all.
const ATTEMPTS_MAX: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What became of an attempt to open sled.
#[derive(Debug)]
pub(in crate::store::local) enum Opened {
    Ready(TreeIndex),
    /// It reported an error or panicked: what is there may be thrown away.
    Broken(String),
    /// It did not answer in time, or nobody waits any more. Its thread still holds the folder, which must be left
    /// alone.
    Hangs,
}

/// Opens or creates the index in `dir`, which may take as long as `timeout`; much less once `is_stopping`.
pub(in crate::store::local) fn open(
    dir: &Path,
    timeout: Duration,
    is_stopping: &dyn Fn() -> bool,
) -> Opened {
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
    let begun = Instant::now();
    let mut stopping: Option<Instant> = None;
    let answer = loop {
        if is_stopping() {
            stopping.get_or_insert_with(Instant::now);
        }
        let is_over = begun.elapsed() >= timeout
            || stopping.is_some_and(|since| since.elapsed() >= STOP_WAIT);
        match answered.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) if !is_over => {}
            answer => break answer,
        }
    };
    match answer {
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
        pages: db.open_tree("pages")?,
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
