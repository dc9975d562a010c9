//! The data folder: whose it is, and who holds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::identity::Identity;
use super::{LocalConfig, OpenError, Segments, Shared, check_heads};
use crate::io::{Disk, DiskLock, IoError};
use crate::store::CommitError;

pub(in crate::store::local) const LOCK: &str = "LOCK";
pub(in crate::store::local) const IDENTITY: &str = "IDENTITY";
const CLEAN: &str = "CLEAN";
const SYNCED: &str = "SYNCED";
const DAMAGED: &str = "DAMAGED";
pub(in crate::store::local) const JOURNAL: &str = "journal";
/// What a folder may hold besides IDENTITY and still count as empty: a first start that was
/// interrupted, and what file systems put there themselves.
const HARMLESS: [&str; 6] = [
    LOCK,
    JOURNAL,
    "index",
    "IDENTITY.tmp",
    "CLEAN.tmp",
    "lost+found",
];

/// A locked data folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) lock: Box<dyn DiskLock>,
    /// Its epoch is the new one; on the device it is once [`take_over`](Self::take_over) returned.
    pub(super) identity: Identity,
    pub(super) is_new: bool,
    pub(super) journal_dir: PathBuf,
    pub(super) clean_path: PathBuf,
    identity_path: PathBuf,
    /// Numbers of the segments, sorted.
    pub(super) segments: Vec<u64>,
    spares: Vec<String>,
}

pub(in crate::store::local) fn clean_path(config: &LocalConfig) -> PathBuf {
    config.data_dir.join(CLEAN)
}

pub(in crate::store::local) fn synced_path(config: &LocalConfig) -> PathBuf {
    config.data_dir.join(SYNCED)
}

pub(in crate::store::local) fn damaged_path(config: &LocalConfig) -> PathBuf {
    config.data_dir.join(DAMAGED)
}

impl Folder {
    pub(super) fn open(config: &LocalConfig, disk: &dyn Disk) -> Result<Self, OpenError> {
        let dir = &config.data_dir;
        disk.create_dir_all(dir)?;
        let identity_path = dir.join(IDENTITY);
        let names = disk.list(dir)?;
        if is_foreign(&names) {
            return Err(OpenError::NotFalcon { path: dir.clone() });
        }
        let lock = disk.lock(&dir.join(LOCK))?;
        let lock = lock.ok_or_else(|| OpenError::Locked { path: dir.clone() })?;
        let journal_dir = dir.join(JOURNAL);
        disk.create_dir_all(&journal_dir)?;
        let (segments, spares) = list_journal(disk, &journal_dir)?;
        // A name seen now may not be durable yet, when the process died and the machine did not.
        disk.sync_dir(&journal_dir)?;
        let known = Identity::read(disk, &identity_path)?;
        let identity = match known {
            Some(known) => Identity {
                epoch: known.epoch.saturating_add(1),
                ..known
            },
            None if segments.is_empty() => Identity {
                journal_id: fastrand::u128(1..),
                epoch: 1,
            },
            None => {
                let path = identity_path;
                return Err(OpenError::IdentityMissing { path });
            }
        };
        if known.is_none() {
            disk.sync_dir(dir)?;
            if let Some(parent) = dir.parent().filter(|parent| *parent != Path::new("")) {
                // A parent that may not be read was there before, and its names are durable.
                drop(disk.sync_dir(parent));
            }
            identity.create(disk, &identity_path)?;
        }
        Ok(Self {
            lock,
            identity,
            is_new: known.is_none(),
            journal_dir,
            clean_path: clean_path(config),
            identity_path,
            segments,
            spares,
        })
    }

    /// Makes this owner's epoch durable and removes the clean-stop marker.
    pub(super) fn take_over(&self, disk: &dyn Disk) -> Result<(), IoError> {
        if !self.is_new {
            self.identity.update(disk, &self.identity_path)?;
        }
        match disk.remove(&self.clean_path) {
            Err(error) if !error.is_not_found() => return Err(error),
            Err(_) | Ok(()) => {}
        }
        disk.sync_dir(self.clean_path.parent().unwrap_or(Path::new(".")))
    }

    /// Keeps prepared segments that are whole and of the right size, removes others.
    pub(super) fn take_spares(&self, shared: &Arc<Shared>) {
        let mut kept = 0;
        for name in &self.spares {
            let path = self.journal_dir.join(name);
            let bytes = shared.disk.open(&path).and_then(|file| file.len_bytes());
            let is_fit = bytes.is_ok_and(|bytes| bytes == shared.config.segment_bytes);
            if is_fit && kept < shared.config.spare_segments {
                kept += 1;
                shared.signal.add_spare(path);
            } else if let Err(error) = shared.disk.remove(&path) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a prepared segment that is not needed could not be removed"
                );
            }
        }
    }
}

/// Whether somebody else's things are in it, and nothing of Falcon's.
fn is_foreign(names: &[String]) -> bool {
    let has_identity = names.iter().any(|name| name == IDENTITY);
    let is_harmless = |name: &String| HARMLESS.contains(&name.as_str());
    !has_identity && !names.iter().all(is_harmless)
}

/// Looks for what a start would refuse the folder for before it reads the journal. Changes nothing.
pub(super) fn check(config: &LocalConfig, disk: &Arc<dyn Disk>) -> Result<(), OpenError> {
    let dir = &config.data_dir;
    if is_foreign(&disk.list(dir)?) {
        return Err(OpenError::NotFalcon { path: dir.clone() });
    }
    let journal_dir = dir.join(JOURNAL);
    let segments = match list_journal(disk.as_ref(), &journal_dir) {
        Ok((segments, _)) => segments,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let path = dir.join(IDENTITY);
    match Identity::read(disk.as_ref(), &path)? {
        None if segments.is_empty() => Ok(()),
        None => Err(OpenError::IdentityMissing { path }),
        Some(identity) => {
            let files = Segments::new(Arc::clone(disk), &journal_dir, false);
            check_heads(&files, identity.journal_id, &segments)
        }
    }
}

/// Numbers of the segments in a folder, sorted, and names of the spares.
pub(in crate::store::local) fn list_journal(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(Vec<u64>, Vec<String>), IoError> {
    let mut segments = Vec::new();
    let mut spares = Vec::new();
    for name in disk.list(dir)? {
        if let Some(number) = Segments::number_in(&name) {
            segments.push(number);
        } else if name.starts_with("spare-") {
            spares.push(name);
        }
    }
    segments.sort_unstable();
    Ok((segments, spares))
}

/// Why the first segment could not be written.
pub(super) fn unwritable(shared: &Shared, error: &CommitError) -> OpenError {
    let source = match error {
        CommitError::Failed(error) => std::io::Error::new(error.source.kind(), error.to_string()),
        CommitError::Full { .. } => std::io::ErrorKind::StorageFull.into(),
        CommitError::TooLarge { .. } | CommitError::Stopped | CommitError::Fenced => {
            std::io::ErrorKind::Other.into()
        }
    };
    let dir = shared.segments.dir();
    OpenError::Io(IoError::new("write the first segment", dir, source))
}
