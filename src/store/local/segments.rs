//! The live segments: what is known of each, and open handles.
//!
//! Promises that a handle is opened once and shared, and that at most [`HANDLES_MAX`] stay open.
//! Must not know: groups, batches, sled.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use falcon_protocol::{Offset, PartitionId};

use super::journal::segment::Seal;
use crate::io::{Disk, DiskFile, IoError};
use crate::store::Damage;

/// Segment files kept open for reading.
const HANDLES_MAX: usize = 256;

/// One live segment.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentInfo {
    pub(super) nonce: u32,
    pub(super) file_bytes: u64,
    pub(super) groups_end: u64,
    pub(super) first_seq: u64,
    pub(super) end_seq: u64,
    /// End of each partition here; filled when the segment stops being active.
    pub(super) ends: Vec<(PartitionId, Offset)>,
    pub(super) damage: Vec<Damage>,
    pub(super) seal: Option<Seal>,
    /// Groups are still appended.
    pub(super) is_active: bool,
    /// Its extents are in sled.
    pub(super) is_indexed: bool,
    /// Its header is damaged, so it can neither be sealed nor appended to.
    pub(super) is_header_damaged: bool,
}

#[derive(Debug, Default)]
struct Handles {
    uses: u64,
    open: HashMap<u64, (Arc<dyn DiskFile>, u64)>,
}

/// All live segments.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    infos: RwLock<BTreeMap<u64, SegmentInfo>>,
    handles: Mutex<Handles>,
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_path_buf(),
            infos: RwLock::default(),
            handles: Mutex::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:016x}.seg"))
    }

    pub(super) fn spare_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("spare-{number:016x}.seg"))
    }

    /// The number in a segment's file name.
    pub(super) fn number_in(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".seg")?;
        let is_number = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_number.then(|| u64::from_str_radix(digits, 16).ok())?
    }

    pub(super) fn infos(&self) -> RwLockReadGuard<'_, BTreeMap<u64, SegmentInfo>> {
        self.infos.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn infos_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, SegmentInfo>> {
        self.infos.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a segment; an error that [is not found](IoError::is_not_found) when it is gone.
    pub(super) fn handle(&self, segment: u64) -> Result<Arc<dyn DiskFile>, IoError> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.uses += 1;
        let now = handles.uses;
        if let Some((file, used)) = handles.open.get_mut(&segment) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.path(segment))?;
        if handles.open.len() >= HANDLES_MAX {
            let oldest = handles.open.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(segment, _)| *segment) {
                handles.open.remove(&oldest);
            }
        }
        handles.open.insert(segment, (Arc::clone(&file), now));
        Ok(file)
    }

    /// Forgets a segment that is about to be removed.
    pub(super) fn forget(&self, segment: u64) {
        self.infos_mut().remove(&segment);
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.open.remove(&segment);
    }
}
