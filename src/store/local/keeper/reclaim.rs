//! Segments without live records become spares, or free space.
//!
//! Promises: space that is short is freed at once; where it is not, the writer does not notice that records are
//! trimmed. Must not know: why they are.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::Keeper;
use super::spare::new_spare_path;
use crate::clock::Instant;
use crate::io::{DiskFile, IoError};
use crate::store::local::locked;
use crate::store::local::segments::SegmentInfo;

/// A segment becomes a spare when at least one byte in so many of a spare was written.
const USED_SHARE: u64 = 4;

impl Keeper<'_> {
    /// Reclaims segments in which all records are dead or were copied forward, the oldest first, as many as may go now.
    pub(super) fn reclaim(&mut self) {
        // Until then sled may have rows of a segment that it could not be told to forget.
        if self.shared.index.report().is_none() {
            return;
        }
        let last = {
            let infos = self.shared.segments.infos();
            let last = infos.iter().next_back();
            last.map_or((None, 0), |(segment, info)| (Some(*segment), info.end_seq))
        };
        self.pace.note(last, Instant::now());
        let mut first = 0;
        self.is_pacing = false;
        while let Some((segment, info)) = self.next_dead(first) {
            first = segment + 1;
            if !self.wants_spare(segment, &info) && !self.may_remove(segment, &info) {
                self.is_pacing = true;
                return;
            }
            if let Err(error) = self.reclaim_one(segment, &info) {
                tracing::warn!(
                    segment,
                    error = &error as &dyn std::error::Error,
                    "a dead segment could not be reclaimed, the next start tries again"
                );
            }
        }
    }

    /// The oldest segment from `first` on that can go.
    fn next_dead(&self, first: u64) -> Option<(u64, SegmentInfo)> {
        self.dead(first, |dead| {
            dead.next().map(|(segment, info)| (segment, info.clone()))
        })
    }

    /// Looks at the segments from `first` on that can go, the oldest first.
    fn dead<T>(
        &self,
        first: u64,
        look: impl FnOnce(&mut dyn Iterator<Item = (u64, &SegmentInfo)>) -> T,
    ) -> T {
        let newest_snapshot = self.shared.snapshot_segment.load(Ordering::Acquire);
        let bounds = locked(&self.shared.bounds);
        let is_dead = |info: &SegmentInfo| {
            let mut shares = info.shares.iter();
            info.is_moved
                || shares.all(|(partition, share)| share.live_bytes(bounds.get(partition)) == 0)
        };
        let infos = self.shared.segments.infos();
        let old = infos.range(first..newest_snapshot.max(first));
        let old = old.map(|(segment, info)| (*segment, info));
        look(&mut old.filter(|(_, info)| !info.is_active && is_dead(info)))
    }

    /// Whether the segment shall become a spare.
    fn wants_spare(&self, segment: u64, info: &SegmentInfo) -> bool {
        self.shared.signal.spares() < self.shared.config.spare_segments && self.suits(segment, info)
    }

    /// Whether enough of the segment was written for a spare, and the device never failed it: what a failed sync
    /// left behind is nothing to write acknowledged records over.
    fn suits(&self, segment: u64, info: &SegmentInfo) -> bool {
        info.groups_end >= self.shared.config.segment_bytes / USED_SHARE
            && !self.given_up.contains(&segment)
    }

    /// Whether a segment may be removed now. The file system's transactions for it are in the way of the writer's
    /// syncs, and space that was freed is slower to write than a segment that is overwritten.
    fn may_remove(&self, segment: u64, info: &SegmentInfo) -> bool {
        if self.shared.is_space_short() {
            return true;
        }
        let is_reserve = self.suits(segment, info) && self.is_reserve(segment);
        !is_reserve && self.removals.is_empty()
    }

    /// Whether the dead segments from `segment` on are no more than segments to come are likely to need.
    fn is_reserve(&self, segment: u64) -> bool {
        let reserve = self.pace.reserve();
        let makes_spares = self.shared.config.spare_segments > 0;
        makes_spares && reserve > 0 && self.dead(segment, |dead| dead.nth(reserve).is_none())
    }

    fn reclaim_one(&mut self, segment: u64, info: &SegmentInfo) -> Result<(), IoError> {
        if info.is_indexed {
            self.forget_rows(segment, info);
        }
        self.shared.index.remove_from_memory(segment);
        let path = self.shared.segments.path(segment);
        let disk = &self.shared.disk;
        // ORDER: out of the table first. A reader that still finds the segment's bytes checks every
        // batch, and looks again when they are not what it expects.
        let file = self.shared.segments.handle(segment);
        self.shared.segments.forget(segment);
        // Who looked it up by its footer meanwhile looks again.
        self.shared.index.note_removal();
        self.shared.index.recount_footers();
        self.shared.index.trust(segment);
        if self.wants_spare(segment, info) {
            let spare = new_spare_path(self);
            disk.rename(&path, &spare)?;
            disk.sync_dir(self.shared.segments.dir())?;
            self.make_spare(&spare, file?.as_ref(), info.file_bytes)?;
        } else if let Ok(file) = file
            && !self.given_up.contains(&segment)
            && !self.shared.is_space_short()
        {
            // As a file without meaning: a segment is never cut under its own name.
            let doomed = new_spare_path(self);
            disk.rename(&path, &doomed)?;
            if let Err(error) = disk.sync_dir(self.shared.segments.dir()) {
                // Whole: under its own name it may be there again after a power cut.
                disk.remove(&doomed)?;
                return Err(error);
            }
            self.remove(doomed, file, info.file_bytes);
        } else {
            disk.remove(&path)?;
            disk.sync_dir(self.shared.segments.dir())?;
        }
        self.given_up.remove(&segment);
        self.waiting.remove(&segment);
        self.shared.config.metrics.reads.segments_reclaimed.add(1);
        tracing::debug!(
            segment,
            "reclaimed a segment whose records were all trimmed or copied forward"
        );
        Ok(())
    }

    /// ORDER: once it has a spare's name. A segment is never cut under its own, or the next start finds it damaged.
    fn make_spare(&self, path: &Path, file: &dyn DiskFile, file_bytes: u64) -> Result<(), IoError> {
        let segment_bytes = self.shared.config.segment_bytes;
        let made = if file_bytes > segment_bytes {
            file.set_len(segment_bytes)
        } else {
            // One that was cut is likely to be followed by others that need no more of it.
            file.reserve(file_bytes, segment_bytes)
        };
        if let Err(error) = made {
            drop(self.shared.disk.remove(path));
            return Err(error);
        }
        self.shared.signal.add_spare(path.to_path_buf());
        Ok(())
    }

    /// Removes from sled what points into the segment.
    pub(super) fn forget_rows(&mut self, segment: u64, info: &SegmentInfo) {
        let shared = self.shared;
        shared.index.note_removal();
        // Where it fails, rows stay that point to nothing: whoever follows one finds out.
        self.on_tree(|tree| {
            tree.remove(segment, &info.shares)?;
            for (partition, _) in &info.shares {
                tree.trim_times(*partition, shared.bounds_of(*partition))?;
            }
            Ok(())
        });
    }
}
