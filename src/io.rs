//! The only door to the file system.
//!
//! Owns every call that touches a device: [`Disk`] for names, [`DiskFile`] for bytes. Promises that
//! reads and writes are positioned and whole, that an error names its operation and path, and that
//! nothing is durable before [`DiskFile::sync_data`] (bytes, length) or [`Disk::sync_dir`] (names)
//! returned. [`RealDisk`] is the operating system, [`ReadOnlyDisk`] the same for looking only;
//! [`SimDisk`] is memory that loses power on demand.
//!
//! Must not know: what the bytes mean, tokio, sockets.

mod block;
pub mod environment;
mod read_only;
mod real;
mod sim;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

pub use block::{BLOCK_BYTES, BlockBuffer, skip_to_phase};
pub use read_only::ReadOnlyDisk;
pub use real::RealDisk;
pub use sim::{
    Moment, Recording, SimAstray, SimDisk, SimFailure, SimFault, SimOperation, SimTimes,
};

/// An operation of the file system that did not work.
#[derive(Debug, Error)]
#[error("{operation} {}", .path.display())]
pub struct IoError {
    /// What was tried, a verb.
    pub operation: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl IoError {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the device or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// An open file. Positions and lengths are bytes.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `position`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError>;

    /// Reads `bytes` bytes from `position`; fewer only at the end of the file.
    fn fetch(&self, position: u64, bytes: usize) -> Result<Bytes, IoError> {
        let mut buffer = vec![0; bytes];
        let read = self.read_at(position, &mut buffer)?;
        buffer.truncate(read);
        Ok(Bytes::from(buffer))
    }

    /// Writes all of `bytes` at `position`; the file grows where needed.
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError>;

    /// Writes all of `bytes` at `position`, behind which nothing is of value: up to the end of its last
    /// block ([`BLOCK_BYTES`]) the file may read as zeros afterwards. Bytes before `position` stay.
    fn append_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.write_at(position, bytes)
    }

    /// Sets space aside up to `end`, so that no write below meets a full device any more; what is new in
    /// the file is zero. Bytes that are there stay. After an error the file may be longer.
    fn reserve(&self, from: u64, end: u64) -> Result<(), IoError>;

    /// Blocks until bytes and length survive power loss. After an error nothing is known about
    /// anything written since the last success: never call it again for the same bytes.
    fn sync_data(&self) -> Result<(), IoError>;

    /// Length of the file.
    fn len_bytes(&self) -> Result<u64, IoError>;

    /// Cuts or extends (with zeros) to `bytes`.
    fn set_len(&self, bytes: u64) -> Result<(), IoError>;
}

/// An exclusive lock, released when dropped or when the process ends.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A file system.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates a folder and those above it.
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError>;

    /// Names in a folder, sorted. A name that is not UTF-8 is made readable.
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError>;

    /// The same past the page cache where the file system can do that: for a file that is appended to
    /// by [`DiskFile::append_at`] through this handle alone.
    fn open_direct(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        self.open(path)
    }

    /// Creates a file, or empties an existing one.
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError>;

    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<(), IoError>;

    /// Blocks until the names in a folder survive power loss.
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError>;

    /// Bytes that this process may still use on the device that holds `path`.
    fn free_bytes(&self, path: &Path) -> Result<u64, IoError>;

    /// Whether the device that holds `path` takes no writes. Then a sync may report success without
    /// having done anything.
    fn is_read_only(&self, path: &Path) -> Result<bool, IoError>;

    /// Locks a file, creating it where needed; `None` while another process holds it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>, IoError>;
}

/// Reads a small file whole; `None` when there is none, at most `bytes_max` of it.
pub fn read_small(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, IoError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = usize::try_from(file.len_bytes()?).unwrap_or(usize::MAX);
    let mut buffer = vec![0; bytes.min(bytes_max)];
    let read = file.read_at(0, &mut buffer)?;
    buffer.truncate(read);
    Ok(Some(buffer))
}

/// Replaces a small file as a whole: afterwards it has either the old or the new content, and the
/// new one once this returned.
pub fn replace_small(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    let draft = path.with_extension("tmp");
    let file = disk.create(&draft)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&draft, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
