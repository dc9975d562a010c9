//! Pages: stretches of a segment's footer that hold extents of one partition, which follow each other without a gap.
//!
//! A row of sled names a page, so sled has one row where a footer has up to [`ROWS_MAX`]. Owns how a footer is
//! divided, and the pages looked at lately. Promises: the rows of a page come back only when they have the
//! checksum that they had when the page was made. Must not know: sled.

use std::sync::{Arc, Mutex};

use bytes::BufMut;
use falcon_protocol::{Offset, PartitionId};

use super::Place;
use crate::store::local::journal::footer::put_row;
use crate::store::local::locked;

/// LIMIT: rows of a page, about 4 KiB of them.
pub(super) const ROWS_MAX: u32 = 85;
/// LIMIT: pages held, about 400 KiB of them. A page serves one reader at a time.
const HELD_MAX: usize = 64;

/// Where extents of one partition are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) struct Page {
    pub(in crate::store::local) segment: u64,
    /// Lowest offset. Where another segment has a later copy, a page speaks of fewer offsets than its rows.
    pub(in crate::store::local) base: Offset,
    /// After the highest.
    pub(in crate::store::local) end: Offset,
    /// Number of the first row in the footer.
    pub(in crate::store::local) row: u64,
    pub(in crate::store::local) rows: u32,
    pub(in crate::store::local) rows_crc: u32,
    pub(in crate::store::local) max_timestamp_ms: i64,
}

/// Divides a footer, whose rows come in order.
#[derive(Debug, Default)]
pub(in crate::store::local) struct Paging {
    row: u64,
    crc: crc32fast::Hasher,
    scratch: Vec<u8>,
    pages: Vec<(PartitionId, Page)>,
}

impl Paging {
    pub(in crate::store::local) fn add(&mut self, partition: PartitionId, place: &Place) {
        let (base, end) = (place.extent.base_offset, place.extent.end_offset());
        let last = self.pages.last();
        let previous_end = last.filter(|(of, _)| *of == partition);
        let previous_end = previous_end.map(|(_, page)| page.end);
        let is_next = previous_end.is_some_and(|end| base <= end);
        let has_room = last.is_some_and(|(_, page)| page.rows < ROWS_MAX);
        if !(is_next && has_room) {
            self.crc = crc32fast::Hasher::new();
            // Extents that overlap, as rot may leave them, are in two pages; the ranges of pages never overlap.
            let base = previous_end.map_or(base, |end| base.max(end));
            let page = Page {
                segment: place.segment,
                base,
                end: base,
                row: self.row,
                rows: 0,
                rows_crc: 0,
                max_timestamp_ms: i64::MIN,
            };
            self.pages.push((partition, page));
        }
        self.scratch.clear();
        put_row(&mut self.scratch, partition, place);
        self.crc.update(&self.scratch);
        self.row += 1;
        if let Some((_, page)) = self.pages.last_mut() {
            page.end = page.end.max(end);
            page.rows += 1;
            page.rows_crc = self.crc.clone().finalize();
            page.max_timestamp_ms = page.max_timestamp_ms.max(place.extent.max_timestamp_ms);
        }
    }

    /// All pages, sorted by partition and offset.
    pub(in crate::store::local) fn finish(mut self) -> Vec<(PartitionId, Page)> {
        self.pages.retain(|(_, page)| page.base < page.end);
        self.pages
    }
}

pub(super) const PAGE_VALUE: usize = 40;

impl Page {
    /// The row's value; base and partition are its key.
    pub(in crate::store::local) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(PAGE_VALUE);
        value.put_u64_le(self.segment);
        value.put_u64_le(self.end.0);
        value.put_u64_le(self.row);
        value.put_u32_le(self.rows);
        value.put_u32_le(self.rows_crc);
        value.put_i64_le(self.max_timestamp_ms);
        value
    }
}

type Held = (Page, u64, Arc<[Place]>);

/// Pages that were read lately.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    held: Mutex<(u64, Vec<Held>)>,
}

fn is_same(a: &Page, b: &Page) -> bool {
    (a.segment, a.row, a.rows, a.rows_crc) == (b.segment, b.row, b.rows, b.rows_crc)
}

impl PageCache {
    pub(super) fn find(&self, page: &Page) -> Option<Arc<[Place]>> {
        let mut held = locked(&self.held);
        let (uses, pages) = &mut *held;
        *uses += 1;
        let found = pages.iter_mut().find(|(held, ..)| is_same(held, page))?;
        found.1 = *uses;
        Some(Arc::clone(&found.2))
    }

    pub(super) fn add(&self, page: &Page, places: Arc<[Place]>) {
        let mut held = locked(&self.held);
        let (uses, pages) = &mut *held;
        *uses += 1;
        let new = (*page, *uses, places);
        if pages.len() < HELD_MAX {
            pages.push(new);
        } else if let Some(oldest) = pages.iter_mut().min_by_key(|(_, used, _)| *used) {
            *oldest = new;
        }
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        locked(&self.held).1.clear();
    }
}
