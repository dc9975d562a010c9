//! The operating system's file system, for looking only.
#![expect(
    clippy::disallowed_methods,
    reason = "this is part of the io door that the ban on direct file calls points to"
)]

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock, IoError, RealDisk};

/// The file system of the operating system. Files are opened for reading; whatever would change a
/// byte or a name is refused before the system is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnlyDisk;

#[derive(Debug)]
struct ReadOnlyFile {
    file: File,
    path: PathBuf,
}

#[derive(Debug)]
struct ReadOnlyLock {
    /// `None`: there is no lock file, so nobody holds it.
    _file: Option<File>,
}

impl DiskLock for ReadOnlyLock {}

fn refused<T>(operation: &'static str, path: &Path) -> Result<T, IoError> {
    let source = io::ErrorKind::ReadOnlyFilesystem.into();
    Err(IoError::new(operation, path, source))
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(IoError::new("read", &self.path, error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, _position: u64, _bytes: &[u8]) -> Result<(), IoError> {
        refused("write", &self.path)
    }

    fn reserve(&self, _from: u64, _end: u64) -> Result<(), IoError> {
        refused("reserve space in", &self.path)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        refused("sync", &self.path)
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|error| IoError::new("look at", &self.path, error))?;
        Ok(metadata.len())
    }

    fn set_len(&self, _bytes: u64) -> Result<(), IoError> {
        refused("resize", &self.path)
    }
}

impl Disk for ReadOnlyDisk {
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        refused("create folder", path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        RealDisk.list(dir)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        let file = File::open(path).map_err(|error| IoError::new("open", path, error))?;
        let path = path.to_path_buf();
        Ok(Arc::new(ReadOnlyFile { file, path }))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        refused("create", path)
    }

    fn rename(&self, from: &Path, _to: &Path) -> Result<(), IoError> {
        refused("rename", from)
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        refused("remove", path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        refused("sync", dir)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, IoError> {
        RealDisk.free_bytes(path)
    }

    fn is_read_only(&self, _path: &Path) -> Result<bool, IoError> {
        Ok(true)
    }

    /// Locks an existing file; where there is none, nobody can hold it, and none is created.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>, IoError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Box::new(ReadOnlyLock { _file: None })));
            }
            Err(error) => return Err(IoError::new("open", path, error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(ReadOnlyLock { _file: Some(file) }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(IoError::new("lock", path, error)),
        }
    }
}
