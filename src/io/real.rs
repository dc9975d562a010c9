//! The operating system's file system.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the io door that the ban on direct file calls points to"
)]

mod direct;
mod scratch;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{Disk, DiskFile, DiskLock, IoError};

/// Zeros written at once.
const FILL_BYTES: usize = 1 << 20;

/// False only in tests of tests: a rig that cuts power must see records lost when nothing is synced.
static IS_SYNCED: LazyLock<bool> = LazyLock::new(|| {
    let is_off = std::env::var_os("FALCON_TEST_UNSAFE_NO_SYNC").is_some_and(|value| value == "1");
    if is_off {
        tracing::error!("FALCON_TEST_UNSAFE_NO_SYNC: nothing is synced, records will be lost");
    }
    !is_off
});

/// Above zero only in tests of tests: what is written and not yet synced stays so for longer, and a
/// rig that kills and cuts at that moment hits it more often.
static SYNC_DELAY: LazyLock<Duration> = LazyLock::new(|| {
    let value = std::env::var("FALCON_TEST_SYNC_DELAY_MS").unwrap_or_default();
    Duration::from_millis(value.parse().unwrap_or_default())
});

/// Whether to sync, after the delay that tests ask for.
fn is_synced() -> bool {
    if !SYNC_DELAY.is_zero() {
        std::thread::sleep(*SYNC_DELAY);
    }
    *IS_SYNCED
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// Removes a folder with all that is in it; none is fine too.
    pub fn remove_tree(&self, path: &Path) -> Result<(), IoError> {
        let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        let removed = if is_file {
            fs::remove_file(path)
        } else {
            fs::remove_dir_all(path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(IoError::new("remove folder", path, error))
            }
            _ => Ok(()),
        }
    }

    /// Copies a folder with all that is in it to a place that does not exist yet. The copy is not
    /// synced.
    pub fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        copy_tree(from, to)
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), IoError> {
    fs::create_dir(to).map_err(at("create folder", to))?;
    for entry in fs::read_dir(from).map_err(at("list", from))? {
        let entry = entry.map_err(at("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(at("look at", &source))?.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(at("copy", &source))?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealFile {
    fn error(&self, operation: &'static str) -> impl FnOnce(std::io::Error) -> IoError {
        let path = self.path.clone();
        move |source| IoError {
            operation,
            path,
            source,
        }
    }
}

impl RealFile {
    /// Zeros from the end of the file on, where the file system cannot set space aside.
    fn fill(&self, from: u64, end: u64) -> Result<(), IoError> {
        let zeros = vec![0; FILL_BYTES];
        // What is before `from` is somebody's, who may write it just now.
        let mut position = self.len_bytes()?.max(from);
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(FILL_BYTES);
            let chunk = zeros.get(..left).unwrap_or(&zeros);
            self.write_at(position, chunk)?;
            position += chunk.len() as u64;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("read")(error)),
            }
        }
        Ok(done)
    }

    fn fetch(&self, position: u64, bytes: usize) -> Result<Bytes, IoError> {
        // Memory that is not zeroed first: large reads would write it twice.
        let mut memory = Vec::with_capacity(bytes);
        while memory.len() < bytes {
            let at = position + memory.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut memory), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.error("read")(error.into())),
            }
        }
        memory.truncate(bytes);
        Ok(Bytes::from(memory))
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.file
            .write_all_at(bytes, position)
            .map_err(self.error("write"))
    }

    fn reserve(&self, from: u64, end: u64) -> Result<(), IoError> {
        let bytes = end.saturating_sub(from);
        if bytes == 0 {
            return Ok(());
        }
        loop {
            return match fallocate(&self.file, FallocateFlags::empty(), from, bytes) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(from, end),
                Err(error) => Err(self.error("reserve space in")(error.into())),
            };
        }
    }

    fn sync_data(&self) -> Result<(), IoError> {
        if !is_synced() {
            return Ok(());
        }
        self.file.sync_data().map_err(self.error("sync"))
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        let metadata = self.file.metadata().map_err(self.error("look at"))?;
        Ok(metadata.len())
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        self.file.set_len(bytes).map_err(self.error("resize"))
    }
}

#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IoError {
    move |source| IoError::new(operation, path, source)
}

fn open(path: &Path) -> Result<RealFile, IoError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(at("open", path))?;
    let path = path.to_path_buf();
    Ok(RealFile { file, path })
}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        fs::create_dir_all(path).map_err(at("create folder", path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(at("list", dir))? {
            let entry = entry.map_err(at("list", dir))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        Ok(Arc::new(open(path)?))
    }

    fn open_direct(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        let plain = open(path)?;
        Ok(match direct::open(path, plain) {
            Ok(direct) => Arc::new(direct),
            Err(plain) => Arc::new(plain),
        })
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(at("create", path))?;
        let path = path.to_path_buf();
        Ok(Arc::new(RealFile { file, path }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        fs::rename(from, to).map_err(at("rename", from))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        fs::remove_file(path).map_err(at("remove", path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        if !is_synced() {
            return Ok(());
        }
        let folder = File::open(dir).map_err(at("open", dir))?;
        folder.sync_all().map_err(at("sync", dir))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, IoError> {
        let stat = statvfs(path)
            .map_err(std::io::Error::from)
            .map_err(at("measure", path))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn is_read_only(&self, path: &Path) -> Result<bool, IoError> {
        let stat = statvfs(path)
            .map_err(std::io::Error::from)
            .map_err(at("measure", path))?;
        Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>, IoError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(at("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
        }
    }
}
