//! Segments without live records become spares, or free space.

use std::sync::atomic::Ordering;

use super::Keeper;
use super::spare::new_spare_path;
use crate::io::IoError;
use crate::store::local::locked;
use crate::store::local::recovery::read_footer;
use crate::store::local::segments::SegmentInfo;

impl Keeper<'_> {
    /// Reclaims every segment in which all records are dead or were copied forward.
    pub(super) fn reclaim(&mut self) {
        // Until then sled may have rows of a segment that it could not be told to forget.
        if self.shared.index.report().is_none() {
            return;
        }
        let newest_snapshot = self.shared.snapshot_segment.load(Ordering::Acquire);
        let dead: Vec<(u64, SegmentInfo)> = {
            let bounds = locked(&self.shared.bounds);
            let is_dead = |info: &SegmentInfo| {
                let mut shares = info.shares.iter();
                info.is_moved
                    || shares.all(|(partition, share)| share.live_bytes(bounds.get(partition)) == 0)
            };
            let infos = self.shared.segments.infos();
            infos
                .range(..newest_snapshot)
                .filter(|(_, info)| !info.is_active && is_dead(info))
                .map(|(segment, info)| (*segment, info.clone()))
                .collect()
        };
        for (segment, info) in dead {
            if let Err(error) = self.reclaim_one(segment, &info) {
                tracing::warn!(
                    segment,
                    error = &error as &dyn std::error::Error,
                    "a dead segment could not be reclaimed, the next start tries again"
                );
            }
        }
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
        let segment_bytes = self.shared.config.segment_bytes;
        let wants_spare = self.shared.signal.spares() < self.shared.config.spare_segments;
        if wants_spare && info.file_bytes >= segment_bytes {
            let spare = new_spare_path(self);
            disk.rename(&path, &spare)?;
            disk.sync_dir(self.shared.segments.dir())?;
            // ORDER: a segment is never cut under its own name, or the next start finds it damaged.
            if info.file_bytes > segment_bytes {
                file?.set_len(segment_bytes)?;
            }
            self.shared.signal.add_spare(spare);
        } else {
            disk.remove(&path)?;
            disk.sync_dir(self.shared.segments.dir())?;
        }
        self.shared.config.metrics.reads.segments_reclaimed.add(1);
        tracing::debug!(
            segment,
            "reclaimed a segment whose records were all trimmed or copied forward"
        );
        Ok(())
    }

    /// Removes from sled what points into the segment.
    fn forget_rows(&mut self, segment: u64, info: &SegmentInfo) {
        let Some(seal) = info.seal else {
            return;
        };
        let footer = self
            .shared
            .segments
            .handle(segment)
            .and_then(|file| read_footer(file.as_ref(), &seal));
        // Otherwise rows stay that point to nothing: whoever follows one finds out.
        let Ok(Some((_, extents))) = footer else {
            return;
        };
        let shared = self.shared;
        shared.index.note_removal();
        self.on_tree(|tree| {
            tree.remove(&extents)?;
            for (partition, _) in &info.shares {
                tree.trim_times(*partition, shared.bounds_of(*partition))?;
            }
            Ok(())
        });
    }
}
