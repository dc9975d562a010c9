//! Extents of sealed segments, looked up in the segments' footers.
//!
//! sled says which page of a footer to look at. What sled does not have yet is searched: a footer is sorted by
//! partition and base offset, so a few small reads answer. Nothing is held in memory but the pages read lately, and
//! what each segment holds of each partition, which the table of segments knows anyway. Footers that a lookup could
//! not use are remembered, until the keeper has mended them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use falcon_protocol::{Offset, PartitionId};

use super::Place;
use super::pages::{Page, PageCache};
use crate::io::{DiskFile, IoError};
use crate::store::local::journal::footer::{EXTENT_BYTES, decode_rows};
use crate::store::local::journal::segment::Seal;
use crate::store::local::locked;
use crate::store::local::segments::{SegmentInfo, Segments, Share};

/// Extents read at once: about a page of them.
const ROWS: u64 = 85;

/// The footers of the segments that are looked up by footer.
#[derive(Debug)]
pub(super) struct Footers {
    segments: Arc<Segments>,
    /// How many segments there are. Most of the time none, which costs a lookup nothing.
    count: AtomicUsize,
    pages: PageCache,
    /// Segments whose footer could not be read, or is not what it was.
    doubted: Mutex<BTreeSet<u64>>,
}

/// A footer, and what its segment holds of the partition looked for.
struct Held {
    seal: Seal,
    share: Share,
}

/// An open footer.
struct Rows {
    file: Arc<dyn DiskFile>,
    segment: u64,
    position: u64,
    count: u64,
}

impl Footers {
    pub(super) fn new(segments: Arc<Segments>) -> Self {
        Self {
            segments,
            count: AtomicUsize::new(0),
            pages: PageCache::default(),
            doubted: Mutex::default(),
        }
    }

    /// Segments with a footer that a lookup could not use.
    pub(super) fn doubted(&self) -> BTreeSet<u64> {
        locked(&self.doubted).clone()
    }

    pub(super) fn is_doubted(&self) -> bool {
        !locked(&self.doubted).is_empty()
    }

    pub(super) fn doubt(&self, segment: u64) {
        locked(&self.doubted).insert(segment);
    }

    pub(super) fn trust(&self, segment: u64) {
        locked(&self.doubted).remove(&segment);
    }

    #[cfg(test)]
    pub(super) fn forget_pages(&self) {
        self.pages.forget();
    }

    /// The seal of the page's segment, while it is live and has one.
    fn seal_of(&self, page: &Page) -> Option<Seal> {
        let infos = self.segments.infos();
        infos.get(&page.segment).and_then(|info| info.seal)
    }

    /// The extent in a page that contains `from`, else the first one after it; nothing when the page's segment is
    /// no more.
    pub(super) fn in_page(
        &self,
        (partition, page): (PartitionId, &Page),
        from: Offset,
    ) -> Result<Option<Place>, IoError> {
        let Some(seal) = self.seal_of(page) else {
            return Ok(None);
        };
        let places = if let Some(places) = self.pages.find(page) {
            places
        } else {
            let places = self.rows(&seal)?.page(partition, page)?;
            self.pages.add(page, Arc::clone(&places));
            places
        };
        let from = from.max(page.base);
        let at = places.partition_point(|place| place.extent.end_offset() <= from);
        let found = places.get(at).copied();
        found.map(Some).ok_or_else(|| damaged(page.segment))
    }

    /// ORDER: after extents moved into sled and their segments say so, since who finds no segment here looks
    /// there alone.
    pub(super) fn recount(&self) {
        let infos = self.segments.infos();
        let count = infos.values().filter(|info| info.is_by_footer).count();
        // The table stays locked, so that an older count never replaces a newer one.
        self.count.store(count, Ordering::SeqCst);
    }

    /// Oldest segment first.
    fn held(&self, partition: PartitionId) -> Vec<Held> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let held = |info: &SegmentInfo| {
            let seal = info.seal.filter(|_| info.is_by_footer)?;
            let at = info.shares.binary_search_by_key(&partition, |(id, _)| *id);
            let (_, share) = info.shares.get(at.ok()?)?;
            Some(Held {
                seal,
                share: *share,
            })
        };
        self.segments.infos().values().filter_map(held).collect()
    }

    /// The extent that contains `from`, else the first one after it. Of two that contain it the one in the later
    /// segment counts. A footer that cannot be read is an error only where no other one has the extent.
    pub(super) fn first_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Place>, IoError> {
        let held = self.held(partition);
        let mut after: Option<Place> = None;
        let mut nearer = |place: Place| {
            let rank = |place: &Place| (place.extent.base_offset, Reverse(place.segment));
            if after.is_none_or(|nearest| rank(&place) < rank(&nearest)) {
                after = Some(place);
            }
        };
        let spans = |held: &&Held| held.share.base <= from && from < held.share.end;
        let mut refused = None;
        for held in held.iter().rev().filter(spans) {
            let rows = self.rows(&held.seal);
            match rows.and_then(|rows| rows.first_from(partition, from)) {
                Ok(Some(place)) if place.contains(from) => return Ok(Some(place)),
                Ok(Some(place)) => nearer(place),
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        let later = held.iter().rev().filter(|held| from < held.share.base);
        if let Some(held) = later.min_by_key(|held| held.share.base)
            && let Some(place) = self.rows(&held.seal)?.first_from(partition, from)?
        {
            nearer(place);
        }
        Ok(after)
    }

    /// The end of the extents that follow `place` in its footer without a gap, as far as one look shows.
    pub(super) fn dense_end(
        &self,
        partition: PartitionId,
        place: &Place,
    ) -> Result<Offset, IoError> {
        let mut end = place.extent.end_offset();
        let (seal, file_bytes) = {
            let infos = self.segments.infos();
            let info = infos.get(&place.segment).filter(|info| info.is_by_footer);
            let Some((seal, info)) = info.and_then(|info| Some((info.seal?, info))) else {
                return Ok(end);
            };
            (seal, info.file_bytes)
        };
        let rows = self.rows(&seal)?;
        let at = rows.first_after(partition, place.extent.base_offset)?;
        for (of, next) in rows.read(at, at + ROWS)? {
            let is_there = next.position.saturating_add(next.extent.bytes.into()) <= file_bytes;
            if of != partition || next.extent.base_offset != end || !is_there {
                break;
            }
            end = next.extent.end_offset();
        }
        Ok(end)
    }

    /// Base offset of the first extent with a record time of `timestamp_ms` or later.
    pub(super) fn time_floor(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, IoError> {
        let mut held = self.held(partition);
        held.sort_unstable_by_key(|held| held.share.base);
        let mut floor: Option<Offset> = None;
        for held in held {
            if floor.is_some_and(|floor| floor <= held.share.base) {
                break;
            }
            let found =
                self.rows(&held.seal)?
                    .first_at(partition, held.share.base, timestamp_ms)?;
            floor = match (floor, found) {
                (Some(floor), Some(found)) => Some(floor.min(found)),
                (floor, found) => floor.or(found),
            };
        }
        Ok(floor)
    }

    fn rows(&self, seal: &Seal) -> Result<Rows, IoError> {
        let summary_bytes = u64::from(seal.summary_bytes);
        Ok(Rows {
            file: self.segments.handle(seal.segment)?,
            segment: seal.segment,
            position: seal.footer_position.saturating_add(summary_bytes),
            count: seal.footer_bytes.saturating_sub(summary_bytes) / EXTENT_BYTES,
        })
    }
}

fn damaged(segment: u64) -> IoError {
    let path = format!("{segment:016x}.seg");
    let damaged = io::Error::other("the footer is damaged");
    IoError::new("read the footer", path.as_ref(), damaged)
}

impl Rows {
    /// Rows `from..to`, as far as there are.
    fn read(&self, from: u64, to: u64) -> Result<Vec<(PartitionId, Place)>, IoError> {
        let bytes = self.bytes(from, to)?;
        Ok(decode_rows(self.segment, &bytes).collect())
    }

    fn bytes(&self, from: u64, to: u64) -> Result<Vec<u8>, IoError> {
        let to = to.min(self.count);
        let bytes = to.saturating_sub(from).saturating_mul(EXTENT_BYTES);
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let position = self
            .position
            .saturating_add(from.saturating_mul(EXTENT_BYTES));
        if self.file.read_at(position, &mut buffer)? < buffer.len() {
            let path = format!("{:016x}.seg", self.segment);
            let short = io::ErrorKind::UnexpectedEof.into();
            return Err(IoError::new("read the footer", path.as_ref(), short));
        }
        Ok(buffer)
    }

    /// The rows of a page.
    fn page(&self, partition: PartitionId, page: &Page) -> Result<Arc<[Place]>, IoError> {
        let bytes = self.bytes(page.row, page.row.saturating_add(page.rows.into()))?;
        if crc32fast::hash(&bytes) != page.rows_crc {
            return Err(damaged(self.segment));
        }
        let rows = decode_rows(self.segment, &bytes);
        Ok(rows
            .filter(|(of, _)| *of == partition)
            .map(|(_, place)| place)
            .collect())
    }

    /// Between which rows the first one after the extent at `from` is, a page of them at most.
    fn near(&self, partition: PartitionId, from: Offset) -> Result<(u64, u64), IoError> {
        let (mut low, mut high) = (0, self.count);
        while high - low > ROWS - 2 {
            let middle = low + (high - low) / 2;
            let row = self.read(middle, middle + 1)?;
            let is_after = row
                .first()
                .is_none_or(|(id, place)| (*id, place.extent.base_offset) > (partition, from));
            if is_after {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok((low, high))
    }

    /// Number of the first row after the extent at `from`.
    fn first_after(&self, partition: PartitionId, from: Offset) -> Result<u64, IoError> {
        let (low, high) = self.near(partition, from)?;
        let rows = self.read(low, high)?;
        let before = rows
            .partition_point(|(id, place)| (*id, place.extent.base_offset) <= (partition, from));
        Ok(low + before as u64)
    }

    fn first_from(&self, partition: PartitionId, from: Offset) -> Result<Option<Place>, IoError> {
        let (low, high) = self.near(partition, from)?;
        let rows = self.read(low.saturating_sub(1), high + 1)?;
        let ours = rows.iter().filter(|(id, _)| *id == partition);
        let mut places = ours.map(|(_, place)| *place);
        Ok(places.find(|place| from < place.extent.end_offset()))
    }

    /// Base offset of the partition's first extent that reaches the time; `base` is that of its first of all.
    fn first_at(
        &self,
        partition: PartitionId,
        base: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, IoError> {
        const AT_ONCE: u64 = 1024;
        let mut at = self.first_after(partition, base)?.saturating_sub(1);
        loop {
            let rows = self.read(at, at + AT_ONCE)?;
            for (id, place) in &rows {
                if *id != partition {
                    return Ok(None);
                }
                if place.extent.max_timestamp_ms >= timestamp_ms {
                    return Ok(Some(place.extent.base_offset));
                }
            }
            if rows.is_empty() {
                return Ok(None);
            }
            at += rows.len() as u64;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
