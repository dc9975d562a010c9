//! A file system in memory that loses power on demand.
//!
//! Bytes written and not yet synced are kept apart, per sector of 512 bytes, with every version a
//! sector had since its last sync: [`SimDisk::crash`] picks one of them, or the synced one, for each
//! sector by itself. Names created, changed or removed since the last `sync_dir` survive up to a
//! random point in their order, as in a journaling file system.
//!
//! A sync that fails, or lies, leaves bytes adrift: they are read as before, a power cut may take
//! them, and no later sync keeps them unless they are written again. So do page caches that drop
//! what they could not write.

mod content;
mod demand;
mod faults;
mod file;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use self::content::Content;
use self::faults::Faults;
use self::file::SimFile;
use self::record::Step;
use super::{Disk, DiskFile, DiskLock, IoError};
pub use faults::{SimAstray, SimFailure, SimFault, SimOperation, SimTimes};
pub use record::{Moment, Recording};

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
    faults: Faults,
    /// What all files together may have.
    capacity_bytes: Option<u64>,
    is_read_only: bool,
    unreadable: Vec<(u64, Range<u64>)>,
    recorded: Option<Vec<Step>>,
}

/// A file system in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Whether syncs wait.
    gate: Arc<(Mutex<bool>, Condvar)>,
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

    /// The disk as it is found after the process was killed: the kernel loses nothing of it.
    #[must_use]
    pub fn killed(&self) -> Self {
        let state = self.state();
        State {
            contents: state.contents.clone(),
            names: state.names.clone(),
            names_synced: state.names_synced.clone(),
            names_unsynced: state.names_unsynced.clone(),
            dirs: state.dirs.clone(),
            free_bytes: state.free_bytes,
            ..State::default()
        }
        .into()
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

    /// Paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Fails as planned.
    fn strike(
        &self,
        operation: SimOperation,
        name: &'static str,
        path: &Path,
    ) -> Result<(), IoError> {
        let struck = self.state().faults.strike(operation, path);
        match struck {
            Some(fault) => Err(IoError::new(name, path, fault.error())),
            None => Ok(()),
        }
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

fn not_found(operation: &'static str, path: &Path) -> IoError {
    IoError::new(operation, path, io::ErrorKind::NotFound.into())
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
        self.strike(SimOperation::Create, "create", path)?;
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
        self.strike(SimOperation::Rename, "rename", from)?;
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
        self.strike(SimOperation::SyncDir, "sync", dir)?;
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
