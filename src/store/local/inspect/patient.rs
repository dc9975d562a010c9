//! A disk that goes on where the device does not give bytes: they read as zeros and are noted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::OnRead;
use crate::io::{Disk, DiskFile, DiskLock, IoError};
use crate::store::local::locked;

/// What is given up at once when a read fails.
const BLOCK: usize = 4096;

type Unreadable = (PathBuf, u64, u64);

/// See the module.
pub(super) struct PatientDisk {
    disk: Arc<dyn Disk>,
    on_read: OnRead,
    unreadable: Arc<Mutex<Vec<Unreadable>>>,
}

impl std::fmt::Debug for PatientDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PatientDisk").field(&self.disk).finish()
    }
}

impl PatientDisk {
    pub(super) fn new(disk: Arc<dyn Disk>, on_read: OnRead) -> Self {
        Self {
            disk,
            on_read,
            unreadable: Arc::default(),
        }
    }

    /// What was not given so far: path, position, bytes; each once, and never again.
    pub(super) fn take_unreadable(&self) -> Vec<Unreadable> {
        let mut taken = std::mem::take(&mut *locked(&self.unreadable));
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}

struct PatientFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    on_read: OnRead,
    unreadable: Arc<Mutex<Vec<Unreadable>>>,
}

impl std::fmt::Debug for PatientFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PatientFile").field(&self.file).finish()
    }
}

impl PatientFile {
    fn read_around(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let left = self.file.len_bytes()?.saturating_sub(position);
        let whole = usize::try_from(left).unwrap_or(usize::MAX);
        let bytes = buffer.len().min(whole);
        let mut at = position;
        for block in buffer
            .get_mut(..bytes)
            .unwrap_or_default()
            .chunks_mut(BLOCK)
        {
            if self.file.read_at(at, block).is_err() {
                block.fill(0);
                let noted = (self.path.clone(), at, block.len() as u64);
                locked(&self.unreadable).push(noted);
            }
            at += block.len() as u64;
        }
        Ok(bytes)
    }
}

impl DiskFile for PatientFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let read = match self.file.read_at(position, buffer) {
            Ok(read) => read,
            Err(_) => self.read_around(position, buffer)?,
        };
        (self.on_read)(read as u64);
        Ok(read)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.file.write_at(position, bytes)
    }

    fn reserve(&self, from: u64, end: u64) -> Result<(), IoError> {
        self.file.reserve(from, end)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.file.sync_data()
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        self.file.len_bytes()
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        self.file.set_len(bytes)
    }
}

impl Disk for PatientDisk {
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        Ok(Arc::new(PatientFile {
            file: self.disk.open(path)?,
            path: path.to_path_buf(),
            on_read: Arc::clone(&self.on_read),
            unreadable: Arc::clone(&self.unreadable),
        }))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        self.disk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, IoError> {
        self.disk.free_bytes(path)
    }

    fn is_read_only(&self, path: &Path) -> Result<bool, IoError> {
        self.disk.is_read_only(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>, IoError> {
        self.disk.lock(path)
    }
}
