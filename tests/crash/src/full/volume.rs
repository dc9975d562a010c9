//! A small file system of its own, and a stranger who takes all its free space.
#![expect(
    clippy::disallowed_methods,
    reason = "the image and the stranger's file are the test's, outside the broker and its io door"
)]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::error::CrashError;
use crate::power::system::{self, Mounted};

/// Between two looks of the stranger for space that came back.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// An ext4 file system in a sparse file, of which nothing is kept for root.
#[derive(Debug)]
pub(crate) struct Volume {
    mounted: Option<Mounted>,
    image: PathBuf,
    at: PathBuf,
}

impl Volume {
    /// Makes and mounts one of `bytes` below `folder`, that goes read-only when it finds itself broken.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Result<Self, CrashError> {
        system::check("ext4")?;
        let image = folder.join("image");
        let at = folder.join("mounted");
        std::fs::create_dir(&at).map_err(CrashError::io("create", &at))?;
        let file = File::create_new(&image).map_err(CrashError::io("create", &image))?;
        let sized = file.set_len(bytes);
        sized.map_err(CrashError::io("resize", &image))?;
        let path = image.to_string_lossy();
        let options = [
            "-q",
            "-F",
            "-m",
            "0",
            "-e",
            "remount-ro",
            "-J",
            "size=4",
            "-E",
            "nodiscard",
        ];
        system::run("mkfs.ext4", &[&options[..], &[&path]].concat())?;
        let mut volume = Self {
            mounted: None,
            image,
            at,
        };
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it again, checked, as after a repair.
    pub(crate) fn remount(&mut self) -> Result<(), CrashError> {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount()?;
        }
        let image = self.image.to_string_lossy();
        // Code 1: it corrected something, which is what it is for.
        let checked = system::run("fsck.ext4", &["-p", "-f", &image]);
        if let Err(error) = checked {
            system::run("fsck.ext4", &["-y", "-f", &image]).map_err(|_| error)?;
        }
        self.mount()
    }

    fn mount(&mut self) -> Result<(), CrashError> {
        self.mounted = Some(Mounted::mount("ext4", &self.image, &self.at)?);
        Ok(())
    }

    /// Bytes that anybody may still use.
    pub(crate) fn free_bytes(&self) -> Result<u64, CrashError> {
        free_bytes(&self.at)
    }

    /// Lets a stranger take all free space, at once and whenever some comes back.
    pub(crate) fn fill(&self) -> Result<Stranger, CrashError> {
        let path = self.at.join("foreign");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(CrashError::io("create", &path))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, at) = (Arc::clone(&is_over), self.at.clone());
        let mut length = 0;
        take_all(&file, &mut length, &at);
        let thread = thread::Builder::new().name("stranger".into());
        let thread = thread.spawn(move || {
            while !over.load(Ordering::Acquire) {
                take_all(&file, &mut length, &at);
                thread::sleep(LOOK_EVERY);
            }
        });
        let thread = thread.map_err(CrashError::io("start a thread for", &path))?;
        Ok(Stranger {
            path,
            is_over,
            thread: Some(thread),
        })
    }
}

fn free_bytes(at: &Path) -> Result<u64, CrashError> {
    let stat = statvfs(at).map_err(|error| CrashError::io("measure", at)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Large pieces first, then what is left.
fn take_all(file: &File, length: &mut u64, at: &Path) {
    let mut piece = free_bytes(at).unwrap_or(0).next_power_of_two();
    while piece >= 4096 {
        match fallocate(file, FallocateFlags::empty(), *length, piece) {
            Ok(()) => *length += piece,
            Err(_) => piece /= 2,
        }
    }
}

/// Who holds all free space; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        std::fs::remove_file(&self.path).ok();
    }
}
