//! The live segments: what is known of each, and open handles.
//!
//! Promises that a handle is opened once and shared, that at most [`HANDLES_MAX`] stay open, and none of a segment
//! that is gone.
//! Must not know: groups, batches, sled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use falcon_protocol::{Offset, PartitionId};

use super::index::Place;
use super::journal::segment::Seal;
use super::journal::state::Bounds;
use crate::io::{Disk, DiskFile, IoError};
use crate::store::Damage;

/// Segment files kept open for reading.
const HANDLES_MAX: usize = 256;

/// LIMIT: segments in their first reading at a time; each has two files open.
const FIRST_HANDLES_MAX: usize = 64;

/// LIMIT: segments that are remembered as removed. Each is gone from the disk soon after, and no handle is
/// opened then.
const GONE_MAX: usize = 64;

/// Reads that fetch less at once use the page cache.
const FIRST_READ_BYTES: usize = 128 << 10;

/// What a segment holds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    /// Lowest offset.
    pub(super) base: Offset,
    /// After the highest.
    pub(super) end: Offset,
    /// After the highest that was appended here first; zero when everything is a copy.
    pub(super) original_end: Offset,
    /// Bytes of the batches.
    pub(super) bytes: u64,
}

impl Share {
    /// What `places` amount to, which are sorted and of one partition.
    pub(super) fn of(places: &[Place]) -> Self {
        let ends = |place: &Place| place.extent.end_offset();
        let originals = places.iter().filter(|place| !place.is_copy);
        Self {
            base: places
                .first()
                .map_or(Offset::ZERO, |place| place.extent.base_offset),
            end: places.last().map_or(Offset::ZERO, ends),
            original_end: originals.map(ends).max().unwrap_or(Offset::ZERO),
            bytes: places
                .iter()
                .map(|place| u64::from(place.extent.bytes))
                .sum(),
        }
    }

    /// About how many bytes are live in a partition with these bounds; 0 when none are.
    pub(super) fn live_bytes(&self, bounds: Option<&Bounds>) -> u64 {
        let Some(start) = bounds
            .map(|bounds| bounds.start)
            .filter(|start| *start < self.end)
        else {
            return 0;
        };
        let offsets = self.end.0.saturating_sub(self.base.0).max(1);
        let live = self.end.0 - start.max(self.base).0;
        let bytes = u128::from(self.bytes) * u128::from(live) / u128::from(offsets);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

/// One live segment.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentInfo {
    pub(super) nonce: u32,
    pub(super) file_bytes: u64,
    pub(super) groups_end: u64,
    pub(super) first_seq: u64,
    pub(super) end_seq: u64,
    /// What it holds of each partition; filled when the segment stops being active.
    pub(super) shares: Vec<(PartitionId, Share)>,
    pub(super) damage: Vec<Damage>,
    pub(super) seal: Option<Seal>,
    /// Groups are still appended.
    pub(super) is_active: bool,
    /// Its extents are looked up in its footer, which was found whole; `shares` is sorted.
    pub(super) is_by_footer: bool,
    /// Its extents are in sled.
    pub(super) is_indexed: bool,
    /// Every live extent is in a later segment too.
    pub(super) is_moved: bool,
    /// Its header is damaged, so it can neither be sealed nor appended to.
    pub(super) is_header_damaged: bool,
}

/// A file past the page cache, and the bytes that are to be read from it.
type FirstReading = (Arc<dyn DiskFile>, u64);

/// How often a segment has been read.
enum Reading {
    First(Arc<dyn DiskFile>),
    Later,
    Unknown,
}

#[derive(Debug, Default)]
struct Handles {
    uses: u64,
    /// The segment that is appended to, with the handle that does it.
    active: Option<(u64, Arc<dyn DiskFile>)>,
    open: HashMap<u64, (Arc<dyn DiskFile>, u64)>,
    /// Segments in their first reading, with the bytes that it may still take; `None` once it is over.
    first: HashMap<u64, Option<FirstReading>>,
    /// Removed lately, or about to be: a handle that stayed here would keep their space.
    gone: VecDeque<u64>,
}

impl Handles {
    /// Keeps a handle for whoever comes next; the one used longest ago goes for it.
    fn keep(&mut self, segment: u64, file: &Arc<dyn DiskFile>) {
        if self.gone.contains(&segment) {
            return;
        }
        if self.open.len() >= HANDLES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(segment, _)| *segment) {
                self.open.remove(&oldest);
            }
        }
        self.open.insert(segment, (Arc::clone(file), self.uses));
    }

    fn forget(&mut self, segment: u64) {
        self.open.remove(&segment);
        self.first.remove(&segment);
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(segment);
    }
}

/// All live segments.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Whether reads may go past the page cache.
    is_direct: bool,
    infos: RwLock<BTreeMap<u64, SegmentInfo>>,
    handles: Mutex<Handles>,
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, is_direct: bool) -> Self {
        Self {
            is_direct,
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
        if let Some((active, file)) = &handles.active
            && *active == segment
        {
            return Ok(Arc::clone(file));
        }
        handles.uses += 1;
        let now = handles.uses;
        if let Some((file, used)) = handles.open.get_mut(&segment) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.path(segment))?;
        handles.keep(segment, &file);
        Ok(file)
    }

    /// The file of a segment for a read that fetches so many bytes at once and takes so many. Who reads a segment through for
    /// the first time does it past the page cache: most segments are never read again, and filling the
    /// cache costs more than the device. Small reads, and whoever comes later, use the cache.
    pub(super) fn reader(
        &self,
        segment: u64,
        (fetched, taken): (usize, u32),
    ) -> Result<Arc<dyn DiskFile>, IoError> {
        if !self.is_direct || fetched < FIRST_READ_BYTES {
            return self.handle(segment);
        }
        match self.go_on_reading(segment, taken) {
            Reading::First(file) => Ok(file),
            Reading::Later => self.handle(segment),
            Reading::Unknown => {
                self.begin_reading(segment)?;
                match self.go_on_reading(segment, taken) {
                    Reading::First(file) => Ok(file),
                    Reading::Later | Reading::Unknown => self.handle(segment),
                }
            }
        }
    }

    fn go_on_reading(&self, segment: u64, taken: u32) -> Reading {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if handles
            .active
            .as_ref()
            .is_some_and(|active| active.0 == segment)
        {
            return Reading::Later;
        }
        let Some(reading) = handles.first.get_mut(&segment) else {
            return Reading::Unknown;
        };
        let Some((file, left)) = reading else {
            return Reading::Later;
        };
        let file = Arc::clone(file);
        *left = left.saturating_sub(u64::from(taken));
        if *left == 0 {
            *reading = None;
        }
        Reading::First(file)
    }

    /// Opens a segment for its first reading. ORDER: what it holds is looked up before the handles are
    /// locked, since others look for handles while they hold that.
    fn begin_reading(&self, segment: u64) -> Result<(), IoError> {
        let bytes = |(_, share): &(PartitionId, Share)| share.bytes;
        let left: Option<u64> = {
            let infos = self.infos();
            let info = infos.get(&segment);
            info.map(|info| info.shares.iter().map(bytes).sum())
        };
        let Some(left) = left.filter(|left| *left > 0) else {
            return Ok(());
        };
        let file = self.disk.open_direct(&self.path(segment))?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        // It went meanwhile.
        if handles.gone.contains(&segment) {
            return Ok(());
        }
        let open = handles.first.values().flatten().count();
        if open >= FIRST_HANDLES_MAX {
            // The oldest is read on, or again, through the page cache.
            let mut begun = handles
                .first
                .iter_mut()
                .filter(|(_, first)| first.is_some());
            if let Some((_, oldest)) = begun.by_ref().min_by_key(|(segment, _)| **segment) {
                *oldest = None;
            }
        }
        handles.first.insert(segment, Some((file, left)));
        Ok(())
    }

    /// Readers of the segment that is appended to share the handle that does it: it may be past the page
    /// cache. Those of the one before open their own, now that nothing is appended to it.
    pub(super) fn set_active(&self, segment: u64, file: &Arc<dyn DiskFile>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.open.remove(&segment);
        handles.active = Some((segment, Arc::clone(file)));
    }

    /// Forgets a segment that is about to be removed.
    pub(super) fn forget(&self, segment: u64) {
        self.infos_mut().remove(&segment);
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.forget(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SimDisk;

    #[test]
    fn no_handle_stays_of_a_segment_that_is_about_to_be_removed() {
        let (disk, dir) = (SimDisk::new(), Path::new("/journal"));
        disk.create_dir_all(dir).expect("a folder");
        let segments = Segments::new(Arc::new(disk.clone()), dir, true);
        drop(disk.create(&segments.path(1)).expect("a file"));
        let info = SegmentInfo {
            shares: vec![(
                PartitionId::new(0, 0),
                Share {
                    bytes: 1 << 20,
                    ..Share::default()
                },
            )],
            ..SegmentInfo::default()
        };
        segments.infos_mut().insert(1, info.clone());
        segments.forget(1);
        // A reader that looked before, and asks for the file before it is removed.
        let small = segments.handle(1).expect("still there");
        segments.infos_mut().insert(1, info);
        let large = segments
            .reader(1, (FIRST_READ_BYTES, 1))
            .expect("still there");
        let held = (Arc::strong_count(&small), Arc::strong_count(&large));
        assert_eq!(held, (1, 1), "somebody else keeps it");
        let handles = segments.handles.lock().expect("no panic");
        assert!(handles.open.is_empty() && handles.first.is_empty());
    }
}
