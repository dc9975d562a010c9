//! A file system in memory that loses power on demand.
//!
//! Bytes written and not yet synced are kept apart, per sector of 512 bytes, with every version a
//! sector had since its last sync: [`SimDisk::crash`] picks one of them, or the synced one, for each
//! sector by itself. Names created, changed or removed since the last `sync_dir` survive up to a
//! random point in their order, as in a journaling file system.

mod content;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::content::Content;
use self::record::Step;
use super::{Disk, DiskFile, DiskLock, IoError};
pub use record::{Moment, Recording};

const ERRNO_IO: i32 = 5;
const ERRNO_FULL: i32 = 28;

/// How an operation fails on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// The device reports an error (`EIO`).
    Device,
    /// The device is full (`ENOSPC`).
    Full,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    names_synced: BTreeMap<PathBuf, u64>,
    /// In order, each with its folder.
    names_unsynced: Vec<(PathBuf, NameChange)>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    free_bytes: Option<u64>,
    /// What all files together may have.
    capacity_bytes: Option<u64>,
    is_read_only: bool,
    writes: u64,
    syncs: u64,
    fail_write: Option<(u64, SimFault)>,
    fail_sync: Option<(u64, SimFault)>,
    unreadable: Vec<(u64, Range<u64>)>,
    recorded: Option<Vec<Step>>,
}

/// A file system in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Put(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

impl State {
    /// Any of the states that a power cut may leave.
    fn crash(&self, random: &mut fastrand::Rng) -> Self {
        let mut names = self.names_synced.clone();
        let survivors = random.usize(0..=self.names_unsynced.len());
        for (_, change) in self.names_unsynced.iter().take(survivors) {
            apply(&mut names, change);
        }
        let content = |id: &u64| Some((*id, self.contents.get(id)?.crash(random)));
        Self {
            contents: names.values().filter_map(content).collect(),
            names_synced: names.clone(),
            names,
            dirs: self.dirs.clone(),
            free_bytes: self.free_bytes,
            ..Self::default()
        }
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        let lengths = self.names.values();
        let lengths = lengths.filter_map(|id| Some(self.contents.get(id)?.now.len() as u64));
        lengths.sum()
    }

    /// How far a file may reach that is to reach to `end`.
    fn reachable(&self, id: u64, end: u64) -> u64 {
        let bytes = self.contents.get(&id).map_or(0, |file| file.now.len());
        let Some(capacity) = self.capacity_bytes else {
            return end;
        };
        let left = capacity.saturating_sub(self.used_bytes());
        end.min((bytes as u64).saturating_add(left))
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it may be found after a power cut now; this one is not changed.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        self.state().crash(&mut random).into()
    }

    /// Makes the `n`-th write from now (1 is the next) fail, after half of it was taken.
    pub fn fail_write(&self, n: u64, fault: SimFault) {
        let mut state = self.state();
        state.fail_write = Some((state.writes + n, fault));
    }

    /// Makes the `n`-th `sync_data` from now (1 is the next) fail.
    pub fn fail_sync(&self, n: u64, fault: SimFault) {
        let mut state = self.state();
        state.fail_sync = Some((state.syncs + n, fault));
    }

    /// What [`Disk::free_bytes`] answers from now on.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// Files grow no further once all of them together have so many bytes. The space that is said to
    /// be free does not change: as when somebody else fills the device between two looks at it.
    pub fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// From now on the device takes writes and syncs, and keeps nothing of them.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    /// Makes reads of these bytes fail with `EIO`; answers whether there is such a file.
    pub fn make_unreadable(&self, path: &Path, range: Range<u64>) -> bool {
        let mut state = self.state();
        let id = state.names.get(path).copied();
        state.unreadable.extend(id.map(|id| (id, range)));
        id.is_some()
    }

    /// Makes everything readable again.
    pub fn make_readable(&self) {
        self.state().unreadable.clear();
    }

    /// Flips one bit; answers whether there is such a byte.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(id) = state.names.get(path).copied() else {
            return false;
        };
        let (Some(content), Ok(position)) =
            (state.contents.get_mut(&id), usize::try_from(position))
        else {
            return false;
        };
        for bytes in [&mut content.synced, &mut content.now] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << (bit & 7);
            }
        }
        position < content.now.len()
    }

    /// Paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// How many times `sync_data` was asked for.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn change_name(&self, path: &Path, change: NameChange) {
        let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.state().take(Step::Name(dir, change));
    }

    fn file(&self, path: &Path, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            id,
        })
    }
}

impl SimFault {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Device => ERRNO_IO,
            Self::Full => ERRNO_FULL,
        })
    }
}

fn not_found(operation: &'static str, path: &Path) -> IoError {
    IoError::new(operation, path, io::ErrorKind::NotFound.into())
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    id: u64,
}

impl SimFile {
    fn position(position: u64) -> usize {
        usize::try_from(position).unwrap_or(usize::MAX)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let state = self.disk.state();
        let end = position.saturating_add(buffer.len() as u64);
        let refuses = |(id, range): &(u64, Range<u64>)| {
            *id == self.id && range.start < end && position < range.end
        };
        if state.unreadable.iter().any(refuses) {
            let source = SimFault::Device.error();
            return Err(IoError::new("read", &self.path, source));
        }
        let bytes = state
            .contents
            .get(&self.id)
            .and_then(|content| content.now.get(Self::position(position)..))
            .unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(read)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut state = self.disk.state();
        state.writes += 1;
        let fault = state.fail_write.filter(|(at, _)| *at == state.writes);
        let mut fault = fault.map(|(_, fault)| fault);
        let mut taken = match fault {
            Some(_) => bytes.get(..bytes.len() / 2).unwrap_or_default(),
            None => bytes,
        };
        let end = position.saturating_add(taken.len() as u64);
        let fits = state.reachable(self.id, end).saturating_sub(position);
        if let Some(fitting) = taken
            .get(..Self::position(fits))
            .filter(|_| end > position + fits)
        {
            taken = fitting;
            fault = Some(SimFault::Full);
        }
        state.take(Step::Write(
            self.id,
            Self::position(position),
            taken.to_vec(),
        ));
        match fault {
            Some(fault) => Err(IoError::new("write", &self.path, fault.error())),
            None => Ok(()),
        }
    }

    fn reserve(&self, _from: u64, end: u64) -> Result<(), IoError> {
        let mut state = self.disk.state();
        let reached = state.reachable(self.id, end);
        let length = state.contents.get(&self.id);
        let length = length.map_or(0, |content| content.now.len());
        if Self::position(reached) > length {
            state.take(Step::Resize(self.id, Self::position(reached)));
        }
        if reached < end {
            let source = SimFault::Full.error();
            return Err(IoError::new("reserve space in", &self.path, source));
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), IoError> {
        let mut state = self.disk.state();
        state.syncs += 1;
        if let Some((_, fault)) = state.fail_sync.filter(|(at, _)| *at == state.syncs) {
            return Err(IoError::new("sync", &self.path, fault.error()));
        }
        if !state.is_read_only {
            state.take(Step::Sync(self.id));
        }
        Ok(())
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        let state = self.disk.state();
        Ok(state
            .contents
            .get(&self.id)
            .map_or(0, |content| content.now.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        let resized = Step::Resize(self.id, Self::position(bytes));
        self.disk.state().take(resized);
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        self.state().take(Step::Folder(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(not_found("list", dir));
        }
        let name = |path: &PathBuf| {
            (path.parent() == Some(dir))
                .then(|| path.file_name().map(|n| n.to_string_lossy().into_owned()))
                .flatten()
        };
        let mut names: Vec<String> = state.names.keys().filter_map(name).collect();
        names.extend(state.dirs.iter().filter_map(name));
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        let id = self.state().names.get(path).copied();
        let id = id.ok_or_else(|| not_found("open", path))?;
        Ok(self.file(path, id))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, IoError> {
        let id = {
            let mut state = self.state();
            let id = state.contents.keys().next_back().map_or(1, |last| last + 1);
            state.take(Step::File(id));
            id
        };
        self.change_name(path, NameChange::Put(path.to_path_buf(), id));
        Ok(self.file(path, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        if !self.state().names.contains_key(from) {
            return Err(not_found("rename", from));
        }
        self.change_name(to, NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        if !self.state().names.contains_key(path) {
            return Err(not_found("remove", path));
        }
        self.change_name(path, NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.state().take(Step::SyncNames(dir.to_path_buf()));
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> Result<u64, IoError> {
        Ok(self.state().free_bytes.unwrap_or(1 << 40))
    }

    fn is_read_only(&self, _path: &Path) -> Result<bool, IoError> {
        Ok(self.state().is_read_only)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>, IoError> {
        if !self.state().names.contains_key(path) {
            self.create(path)?;
        }
        if !self.state().locked.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        })))
    }
}
