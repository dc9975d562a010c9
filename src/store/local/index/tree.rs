//! Extents of older segments, in sled.
//!
//! ```text
//! extents  topic, partition (u32), base offset (u64), big-endian
//!          -> segment, position (u64), bytes, records (u32), latest time, append time (i64), little-endian
//! times    topic, partition, highest record time so far (u64, sign flipped), big-endian
//!          -> base offset of the extent that raised it
//! meta     "token" -> u64 that the clean-stop marker repeats
//! ```
//! Values stay tiny: sled 0.34.7 moves large pages to files it never syncs. `flush` is no sync
//! either, so a checkpoint is a flush and a sync of the file `db`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use falcon_protocol::{Offset, PartitionId};

use super::Place;
use crate::io::{Disk, IoError, RealDisk};
use crate::store::Extent;
use crate::store::local::journal::state::Bounds;

const TOKEN: &[u8] = b"token";
const VALUE: usize = 40;
/// Rows per atomic batch: sled keeps readers out while it applies one.
const BULK_ROWS: usize = 256;

type Result<T> = std::result::Result<T, Arc<sled::Error>>;

/// The index in sled.
#[derive(Debug)]
pub(in crate::store::local) struct TreeIndex {
    pub(super) db: sled::Db,
    pub(super) dir: PathBuf,
    pub(super) extents: sled::Tree,
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

pub(in crate::store::local) fn encode_place(place: &Place) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE);
    value.put_u64_le(place.segment);
    value.put_u64_le(place.position);
    value.put_u32_le(place.extent.bytes);
    value.put_u32_le(place.extent.record_count);
    value.put_i64_le(place.extent.max_timestamp_ms);
    value.put_i64_le(place.extent.append_time_ms);
    value
}

pub(in crate::store::local) fn decode_place(
    partition: PartitionId,
    key: &[u8],
    mut value: &[u8],
) -> Option<Place> {
    let mut base = key.strip_prefix(&prefix(partition))?;
    if base.len() != 8 || value.len() != VALUE {
        return None;
    }
    let from = &mut value;
    let (segment, position) = (from.get_u64_le(), from.get_u64_le());
    let extent = Extent {
        base_offset: Offset(base.get_u64()),
        bytes: from.get_u32_le(),
        record_count: from.get_u32_le(),
        max_timestamp_ms: from.get_i64_le(),
        append_time_ms: from.get_i64_le(),
    };
    Some(Place {
        segment,
        position,
        extent,
        is_copy: false,
    })
}

/// The place in a row, if the row is of the partition. One that cannot be read says nothing: it must not pass
/// for records that are not there.
fn place_in(
    partition: PartitionId,
    row: Option<(sled::IVec, sled::IVec)>,
) -> Result<Option<Place>> {
    let Some((key, value)) = row.filter(|(key, _)| key.starts_with(&prefix(partition))) else {
        return Ok(None);
    };
    let unreadable = || sled::Error::ReportableBug("a row cannot be read".to_owned());
    let place = decode_place(partition, &key, &value).ok_or_else(unreadable)?;
    Ok(Some(place))
}

pub(in crate::store::local) fn decode_base(value: &[u8]) -> Option<Offset> {
    Some(Offset(u64::from_le_bytes(value.try_into().ok()?)))
}

impl TreeIndex {
    /// The extent that contains `from`, else the first one after it.
    pub(super) fn first_from(&self, partition: PartitionId, from: Offset) -> Result<Option<Place>> {
        let before = match from.0.checked_add(1) {
            Some(next) => self.extents.get_lt(key(partition, next))?,
            None => None,
        };
        let containing = place_in(partition, before)?.filter(|place| place.contains(from));
        if containing.is_some() {
            return Ok(containing);
        }
        let after = self.extents.get_gt(key(partition, from.0))?;
        place_in(partition, after)
    }

    /// Puts a row there that cannot be read.
    #[cfg(test)]
    pub(in crate::store::local) fn spoil(&self, partition: PartitionId) {
        let row = self.extents.insert(key(partition, 0), b"no place");
        row.expect("it can be written");
    }

    /// Base offset of the first extent that raised the highest time to `timestamp_ms` or more.
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

    /// Adds the extents of one segment, sorted by partition and offset.
    pub(in crate::store::local) fn insert(&self, extents: &[(PartitionId, Place)]) -> Result<()> {
        let mut highest = HashMap::new();
        for chunk in extents.chunks(BULK_ROWS) {
            let mut rows = sled::Batch::default();
            let mut times = sled::Batch::default();
            for (partition, place) in chunk {
                let base = place.extent.base_offset;
                rows.insert(&key(*partition, base.0), encode_place(place));
                let top = match highest.get(partition) {
                    Some(top) => *top,
                    None => *highest
                        .entry(*partition)
                        .or_insert(self.highest_time(*partition)?),
                };
                let time = time_number(place.extent.max_timestamp_ms);
                match top {
                    // A copied extent, which lies before the last row.
                    Some((_, at)) if base < at => {
                        self.times.apply_batch(std::mem::take(&mut times))?;
                        self.insert_time(*partition, time, base)?;
                        highest.remove(partition);
                    }
                    Some((top, _)) if time <= top => {}
                    Some(_) | None => {
                        times.insert(&key(*partition, time), &base.0.to_le_bytes());
                        highest.insert(*partition, Some((time, base)));
                    }
                }
            }
            self.extents.apply_batch(rows)?;
            self.times.apply_batch(times)?;
        }
        Ok(())
    }

    /// Adds a time in the middle: a row stands for the first extent that has its time or a later one.
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

    /// Removes the rows that point into a segment that is no more.
    pub(in crate::store::local) fn remove(&self, extents: &[(PartitionId, Place)]) -> Result<()> {
        for chunk in extents.chunks(BULK_ROWS) {
            let mut rows = sled::Batch::default();
            for (partition, place) in chunk {
                let key = key(*partition, place.extent.base_offset.0);
                let row = self.extents.get(key)?;
                let held = row.and_then(|value| decode_place(*partition, &key, &value));
                // A later copy of the extent has taken the row over.
                if held.is_some_and(|held| held.segment == place.segment) {
                    rows.remove(&key);
                }
            }
            self.extents.apply_batch(rows)?;
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
            // The highest time before the start stays: it answers for the extents after it that
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
    pub(in crate::store::local) fn places(
        &self,
    ) -> impl Iterator<Item = Result<(PartitionId, Option<Place>)>> {
        self.extents.iter().map(|row| {
            let (key, value) = row?;
            let mut from = key.as_ref();
            let topic = from.try_get_u32().unwrap_or(0);
            let partition = PartitionId::new(topic, from.try_get_u32().unwrap_or(0));
            Ok((partition, decode_place(partition, &key, &value)))
        })
    }

    /// The token of the last checkpoint.
    pub(in crate::store::local) fn token(&self) -> Option<u64> {
        let value = self.meta.get(TOKEN).ok()??;
        Some(u64::from_le_bytes(value.as_ref().try_into().ok()?))
    }
}
