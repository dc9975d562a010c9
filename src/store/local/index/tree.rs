//! Which page of which footer lists the extents of a partition, in sled.
//!
//! ```text
//! pages    topic, partition (u32), lowest offset (u64), big-endian
//!          -> segment, offset after the highest, number of the first row (u64), rows, crc of the rows (u32),
//!             latest record time (i64), little-endian
//! times    topic, partition, highest record time so far (u64, sign flipped), big-endian
//!          -> lowest offset of the page that raised it
//! meta     "token of format 2" -> u64 that the clean-stop marker repeats
//! ```
//! The ranges of pages never overlap. Of two segments that have an extent, the later one counts: the earlier one's
//! row is cut around it. Format 1 had a row for each extent and another name for its token, so that neither
//! format trusts the other.
//!
//! Values stay tiny: sled 0.34.7 moves large pages to files it never syncs. `flush` is no sync
//! either, so a checkpoint is a flush and a sync of the file `db`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use falcon_protocol::{Offset, PartitionId};

use super::pages::{PAGE_VALUE, Page};
use crate::io::{Disk, IoError, RealDisk};
use crate::store::local::journal::state::Bounds;
use crate::store::local::segments::Share;

const TOKEN: &[u8] = b"token of format 2";
const TOKEN_OF_FORMAT_1: &[u8] = b"token";
/// Rows per atomic batch: sled keeps readers out while it applies one.
const BULK_ROWS: usize = 256;

type Result<T> = std::result::Result<T, Arc<sled::Error>>;

/// The index in sled.
#[derive(Debug)]
pub(in crate::store::local) struct TreeIndex {
    pub(super) db: sled::Db,
    pub(super) dir: PathBuf,
    pub(super) pages: sled::Tree,
    pub(super) times: sled::Tree,
    pub(super) meta: sled::Tree,
}

fn prefix(partition: PartitionId) -> [u8; 8] {
    let mut key = [0; 8];
    let mut to = key.as_mut_slice();
    to.put_u32(partition.topic.0);
    to.put_u32(partition.partition.0);
    key
}

pub(in crate::store::local) fn key(partition: PartitionId, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let mut to = key.as_mut_slice();
    to.put_slice(&prefix(partition));
    to.put_u64(number);
    key
}

/// Orders times as unsigned numbers.
fn time_number(timestamp_ms: i64) -> u64 {
    timestamp_ms.cast_unsigned() ^ (1 << 63)
}

pub(in crate::store::local) fn decode_page(
    partition: PartitionId,
    key: &[u8],
    mut value: &[u8],
) -> Option<Page> {
    let mut base = key.strip_prefix(&prefix(partition))?;
    if base.len() != 8 || value.len() != PAGE_VALUE {
        return None;
    }
    let from = &mut value;
    Some(Page {
        base: Offset(base.get_u64()),
        segment: from.get_u64_le(),
        end: Offset(from.get_u64_le()),
        row: from.get_u64_le(),
        rows: from.get_u32_le(),
        rows_crc: from.get_u32_le(),
        max_timestamp_ms: from.get_i64_le(),
    })
}

/// The page in a row, if the row is of the partition. One that cannot be read says nothing: it must not pass
/// for records that are not there.
fn page_in(partition: PartitionId, row: Option<(sled::IVec, sled::IVec)>) -> Result<Option<Page>> {
    let Some((key, value)) = row.filter(|(key, _)| key.starts_with(&prefix(partition))) else {
        return Ok(None);
    };
    let unreadable = || sled::Error::ReportableBug("a row cannot be read".to_owned());
    let page = decode_page(partition, &key, &value).ok_or_else(unreadable)?;
    Ok(Some(page))
}

pub(in crate::store::local) fn decode_base(value: &[u8]) -> Option<Offset> {
    Some(Offset(u64::from_le_bytes(value.try_into().ok()?)))
}

impl TreeIndex {
    /// The page with `from` in its range, else the first one after it.
    pub(super) fn first_from(&self, partition: PartitionId, from: Offset) -> Result<Option<Page>> {
        let before = match from.0.checked_add(1) {
            Some(next) => self.pages.get_lt(key(partition, next))?,
            None => None,
        };
        let containing = page_in(partition, before)?.filter(|page| from < page.end);
        if containing.is_some() {
            return Ok(containing);
        }
        let after = self.pages.get_gt(key(partition, from.0))?;
        page_in(partition, after)
    }

    /// Puts a row there that cannot be read.
    #[cfg(test)]
    pub(in crate::store::local) fn spoil(&self, partition: PartitionId) {
        let row = self.pages.insert(key(partition, 0), b"no page");
        row.expect("it can be written");
    }

    /// Lowest offset of the first page that raised the highest time to `timestamp_ms` or more.
    pub(super) fn time_floor(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>> {
        let from = key(partition, time_number(timestamp_ms));
        let Some(row) = self.times.range(from..).next() else {
            return Ok(None);
        };
        let (key, value) = row?;
        let is_ours = key.starts_with(&prefix(partition));
        Ok(is_ours.then(|| decode_base(&value)).flatten())
    }

    /// Adds the pages of one segment, sorted by partition and offset.
    pub(in crate::store::local) fn insert(&self, pages: &[(PartitionId, Page)]) -> Result<()> {
        for chunk in pages.chunks(BULK_ROWS) {
            let mut rows = sled::Batch::default();
            for (partition, page) in chunk {
                let others = self.overlapping(*partition, page)?;
                if others.is_empty() {
                    rows.insert(&key(*partition, page.base.0), page.encode());
                } else {
                    // ORDER: what was added before is there when this one looks again.
                    self.pages.apply_batch(std::mem::take(&mut rows))?;
                    self.insert_between(*partition, page)?;
                }
            }
            self.pages.apply_batch(rows)?;
        }
        self.insert_times(pages)
    }

    /// The pages that have offsets of `page`, the last one first.
    fn overlapping(&self, partition: PartitionId, page: &Page) -> Result<Vec<Page>> {
        let mut found = Vec::new();
        let before = key(partition, 0)..key(partition, page.end.0);
        for row in self.pages.range(before).rev() {
            let Some(other) = page_in(partition, Some(row?))? else {
                break;
            };
            if other.end <= page.base {
                break;
            }
            found.push(other);
        }
        Ok(found)
    }

    /// Adds a page of which others have offsets: the one in the later segment keeps them.
    fn insert_between(&self, partition: PartitionId, page: &Page) -> Result<()> {
        let mut rows = sled::Batch::default();
        let mut kept = Vec::new();
        let mut end = page.end;
        for other in self.overlapping(partition, page)? {
            if other.segment > page.segment {
                kept.push(Page {
                    base: other.end.max(page.base),
                    end,
                    ..*page
                });
                end = other.base;
                continue;
            }
            rows.remove(&key(partition, other.base.0));
            kept.push(Page {
                end: page.base,
                ..other
            });
            kept.push(Page {
                base: page.end,
                ..other
            });
        }
        kept.push(Page { end, ..*page });
        for piece in kept.iter().filter(|piece| piece.base < piece.end) {
            rows.insert(&key(partition, piece.base.0), piece.encode());
        }
        self.pages.apply_batch(rows)?;
        Ok(())
    }

    fn insert_times(&self, pages: &[(PartitionId, Page)]) -> Result<()> {
        let mut highest = HashMap::new();
        for chunk in pages.chunks(BULK_ROWS) {
            let mut times = sled::Batch::default();
            for (partition, page) in chunk {
                let top = match highest.get(partition) {
                    Some(top) => *top,
                    None => *highest
                        .entry(*partition)
                        .or_insert(self.highest_time(*partition)?),
                };
                let time = time_number(page.max_timestamp_ms);
                match top {
                    // A copy, which lies before the last row.
                    Some((_, at)) if page.base < at => {
                        self.times.apply_batch(std::mem::take(&mut times))?;
                        self.insert_time(*partition, time, page.base)?;
                        highest.remove(partition);
                    }
                    Some((top, _)) if time <= top => {}
                    Some(_) | None => {
                        times.insert(&key(*partition, time), &page.base.0.to_le_bytes());
                        highest.insert(*partition, Some((time, page.base)));
                    }
                }
            }
            self.times.apply_batch(times)?;
        }
        Ok(())
    }

    /// Adds a time in the middle: a row stands for the first page that has its time or a later one.
    fn insert_time(&self, partition: PartitionId, time: u64, base: Offset) -> Result<()> {
        let at_or_after = self.times.range(key(partition, time)..).next();
        if let Some(row) = at_or_after {
            let (key, value) = row?;
            let is_ours = key.starts_with(&prefix(partition));
            if is_ours && decode_base(&value).is_some_and(|before| before <= base) {
                return Ok(());
            }
        }
        let mut rows = sled::Batch::default();
        let earlier = key(partition, 0)..=key(partition, time);
        for row in self.times.range(earlier).rev() {
            let (key, value) = row?;
            if decode_base(&value).is_some_and(|other| other <= base) {
                break;
            }
            rows.remove(key);
        }
        rows.insert(&key(partition, time), &base.0.to_le_bytes());
        self.times.apply_batch(rows)?;
        Ok(())
    }

    fn highest_time(&self, partition: PartitionId) -> Result<Option<(u64, Offset)>> {
        let Some(row) = self.times.scan_prefix(prefix(partition)).next_back() else {
            return Ok(None);
        };
        let (key, value) = row?;
        let time = key.get(8..).and_then(|mut time| time.try_get_u64().ok());
        Ok(time.zip(decode_base(&value)))
    }

    /// Removes the rows that point into a segment which has these shares.
    pub(in crate::store::local) fn remove(
        &self,
        segment: u64,
        shares: &[(PartitionId, Share)],
    ) -> Result<()> {
        for chunk in shares.chunks(BULK_ROWS) {
            let mut rows = sled::Batch::default();
            for (partition, share) in chunk {
                let held = key(*partition, share.base.0)..key(*partition, share.end.0);
                for row in self.pages.range(held) {
                    let (key, value) = row?;
                    let page = decode_page(*partition, &key, &value);
                    if page.is_some_and(|page| page.segment == segment) {
                        rows.remove(key);
                    }
                }
            }
            self.pages.apply_batch(rows)?;
        }
        Ok(())
    }

    /// Removes time rows of a partition that no lookup at or after its start can need; all when the
    /// partition is gone.
    pub(in crate::store::local) fn trim_times(
        &self,
        partition: PartitionId,
        bounds: Option<Bounds>,
    ) -> Result<()> {
        let mut rows = sled::Batch::default();
        let mut previous: Option<sled::IVec> = None;
        for row in self.times.scan_prefix(prefix(partition)) {
            let (key, value) = row?;
            let Some(bounds) = bounds else {
                rows.remove(key);
                continue;
            };
            // The highest time before the start stays: it answers for the pages after it that
            // did not rise above it and so have no row.
            if decode_base(&value).is_some_and(|base| base > bounds.start) {
                break;
            }
            if let Some(previous) = previous.replace(key) {
                rows.remove(previous);
            }
        }
        self.times.apply_batch(rows)?;
        Ok(())
    }

    /// Bytes on the device up to now survive power loss; the index is the one that `token` names.
    pub(in crate::store::local) fn checkpoint(&self, token: u64) -> Result<()> {
        self.meta.insert(TOKEN, &token.to_le_bytes())?;
        self.db.flush()?;
        if let Err(error) = self.sync() {
            return Err(Arc::new(sled::Error::Io(error.source)));
        }
        let blobs = RealDisk.list(&self.dir.join("blobs")).unwrap_or_default();
        if !blobs.is_empty() {
            tracing::warn!(
                count = blobs.len(),
                "the index spilled into files that are not synced"
            );
        }
        Ok(())
    }

    fn sync(&self) -> std::result::Result<(), IoError> {
        let file = RealDisk.open(&self.dir.join("db"))?;
        file.sync_data()
    }

    /// Whether a sync of what sled has written works.
    pub(super) fn can_sync(&self) -> bool {
        self.sync().is_ok()
    }

    /// Every row, in order of partition and offset; `None` when its value cannot be one.
    pub(in crate::store::local) fn pages(
        &self,
    ) -> impl Iterator<Item = Result<(PartitionId, Option<Page>)>> {
        self.pages.iter().map(|row| {
            let (key, value) = row?;
            let mut from = key.as_ref();
            let topic = from.try_get_u32().unwrap_or(0);
            let partition = PartitionId::new(topic, from.try_get_u32().unwrap_or(0));
            Ok((partition, decode_page(partition, &key, &value)))
        })
    }

    /// Whether a broker left it that had other rows.
    pub(in crate::store::local) fn is_of_format_1(&self) -> bool {
        self.token().is_none() && self.meta.contains_key(TOKEN_OF_FORMAT_1).unwrap_or(false)
    }

    /// The token of the last checkpoint.
    pub(in crate::store::local) fn token(&self) -> Option<u64> {
        let value = self.meta.get(TOKEN).ok()??;
        Some(u64::from_le_bytes(value.as_ref().try_into().ok()?))
    }
}
