//! What is still whole inside damaged bytes.
//!
//! A batch proves itself (body checksum, stamp bound to partition and offset), and so do rows, trims
//! and the state. So one flipped bit in a commit group costs the batch or row it hit, no more.

use bytes::{Buf, Bytes};
use falcon_protocol::batch::BATCH_HEADER_BYTES;
use falcon_protocol::{Batch, BatchHeader, PartitionId};

use super::ALIGN;
use super::group::{EXTENT_HEADER, Entry, GROUP_HEADER_BYTES, GroupHeader};
use super::state::StoreState;

/// A batch whose stamp is right.
#[derive(Debug, Clone)]
pub(in crate::store::local) struct FoundBatch {
    /// Position in the bytes searched.
    pub(in crate::store::local) at: usize,
    pub(in crate::store::local) header: BatchHeader,
    /// The bytes; `None` when the body is damaged.
    pub(in crate::store::local) bytes: Option<Bytes>,
}

/// Something that was found in a damaged region.
#[derive(Debug)]
pub(in crate::store::local) enum Piece {
    Batch {
        partition: PartitionId,
        batch: FoundBatch,
        is_copy: bool,
    },
    /// A batch whose stamp is damaged, at a place where one must be: it took the next offsets of its
    /// partition, as many as its header says.
    Unstamped {
        partition: PartitionId,
        header: BatchHeader,
    },
    Row {
        table: u8,
        key: Bytes,
        value: Option<Bytes>,
    },
    Trim(Entry),
    State(StoreState),
}

/// Finds the batches of `partition` in bytes that should hold nothing else, skipping damage.
pub(in crate::store::local) fn find_batches(
    partition: PartitionId,
    bytes: &Bytes,
) -> Vec<FoundBatch> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = stamped_header(partition, bytes, at).or_else(|| {
        at = search(partition, bytes, at + 1)?;
        stamped_header(partition, bytes, at)
    }) {
        let batch = whole_batch(partition, bytes, at);
        let next = at + super::length(header.batch_bytes);
        let is_next = batch.is_some()
            || next == bytes.len()
            || stamped_header(partition, bytes, next).is_some();
        found.push(FoundBatch {
            at,
            header,
            bytes: batch,
        });
        at = if is_next {
            next
        } else {
            at + BATCH_HEADER_BYTES
        };
    }
    found
}

fn stamped_header(partition: PartitionId, bytes: &Bytes, at: usize) -> Option<BatchHeader> {
    let header = BatchHeader::decode(bytes.get(at..)?).ok()?;
    header.verify_stamp(partition).ok()?;
    Some(header)
}

fn whole_batch(partition: PartitionId, bytes: &Bytes, at: usize) -> Option<Bytes> {
    bytes.get(at..)?;
    let batch = Batch::split_from(&mut bytes.slice(at..)).ok()?;
    batch.verify_in(partition).ok()?;
    Some(batch.bytes().clone())
}

/// The next place at or after `from` where a stamped header is.
fn search(partition: PartitionId, bytes: &Bytes, from: usize) -> Option<usize> {
    let last = bytes.len().checked_sub(BATCH_HEADER_BYTES)?;
    (from..=last).find(|at| stamped_header(partition, bytes, *at).is_some())
}

/// Visits what proves itself in `region`, in order, but for batches of a partition that come early because
/// the damaged length of an extent before them seems to include them.
pub(in crate::store::local) fn salvage(region: &Bytes, visit: &mut dyn FnMut(usize, Piece)) {
    let mut at = 0;
    while at < region.len() {
        at = piece_at(region, at, visit).unwrap_or(at + ALIGN);
    }
}

/// Visits the entry at `at`, if there is one, and answers where it ends.
fn piece_at(region: &Bytes, at: usize, visit: &mut dyn FnMut(usize, Piece)) -> Option<usize> {
    // The numbers in it may look like the head of an extent.
    if GroupHeader::decode(region.get(at..)?).is_some() {
        return Some(at + GROUP_HEADER_BYTES);
    }
    let (piece, next) = match Entry::read(region, at) {
        Some((Entry::Row { table, key, value }, next)) => (Piece::Row { table, key, value }, next),
        Some((entry @ Entry::Trim { .. }, next)) => (Piece::Trim(entry), next),
        Some((Entry::State(bytes), next)) => (Piece::State(StoreState::decode(&bytes)?), next),
        // Its kind or length may be what is damaged.
        Some((Entry::Extent { .. }, _)) | None => return extent_at(region, at, visit),
    };
    visit(at, piece);
    Some(next)
}

/// Visits the batches of the extent at `at`, whose head may be damaged too.
fn extent_at(region: &Bytes, at: usize, visit: &mut dyn FnMut(usize, Piece)) -> Option<usize> {
    let from = at.checked_add(EXTENT_HEADER)?;
    let mut head = region.get(at..from)?;
    let is_extent = head.get_u8() == 1;
    let is_copy = head.get_u8() & 1 != 0;
    head.advance(2);
    let stored = PartitionId::new(head.get_u32_le(), head.get_u32_le());
    head.advance(4);
    let announced = from.checked_add(super::length(head.get_u32_le()));
    let walk = Walk {
        region,
        partition: stamped_for(stored, region, from).unwrap_or(stored),
        is_copy,
        end: announced.filter(|end| is_extent && *end <= region.len()),
    };
    let found = walk.batches(from, visit);
    // ORDER: what is behind is looked at only when nothing better is known: a damaged batch may hold
    // bytes that somebody made to look like entries.
    let trusted = walk.end.filter(|end| {
        let next = super::padded(*end);
        next >= region.len() || Entry::read(region, next).is_some()
    });
    found.max(trusted).map(super::padded)
}

/// The batches of one extent.
struct Walk<'a> {
    region: &'a Bytes,
    partition: PartitionId,
    is_copy: bool,
    /// Where the extent ends, as far as its head can be believed.
    end: Option<usize>,
}

impl Walk<'_> {
    /// Visits them and answers where the last one ends.
    fn batches(&self, mut at: usize, visit: &mut dyn FnMut(usize, Piece)) -> Option<usize> {
        let mut end = None;
        loop {
            if let Some(header) = stamped_header(self.partition, self.region, at) {
                let bytes = whole_batch(self.partition, self.region, at);
                let next = at.saturating_add(super::length(header.batch_bytes));
                let is_next = bytes.is_some() || self.leads_on(next);
                let batch = FoundBatch { at, header, bytes };
                let (partition, is_copy) = (self.partition, self.is_copy);
                let piece = Piece::Batch {
                    partition,
                    batch,
                    is_copy,
                };
                visit(at, piece);
                at = if is_next {
                    next
                } else {
                    at + BATCH_HEADER_BYTES
                };
                end = Some(at);
            } else if let Some((header, next)) = self.unstamped(at) {
                if !self.is_copy {
                    let partition = self.partition;
                    visit(at, Piece::Unstamped { partition, header });
                }
                at = next;
                end = Some(at);
            } else {
                let searched = self.end.and_then(|end| self.region.get(..end));
                let searched = self.region.slice_ref(searched.unwrap_or_default());
                let Some(next) = search(self.partition, &searched, at + 1) else {
                    return end;
                };
                at = next;
            }
        }
    }

    /// Whether a batch that ends at `next` is taken at its word.
    fn leads_on(&self, next: usize) -> bool {
        self.end == Some(next) || stamped_header(self.partition, self.region, next).is_some()
    }

    /// The header of a batch whose stamp is damaged and nothing else, and where it ends.
    fn unstamped(&self, at: usize) -> Option<(BatchHeader, usize)> {
        let header = BatchHeader::decode(self.region.get(at..self.end?)?).ok()?;
        let next = at.checked_add(super::length(header.batch_bytes))?;
        self.leads_on(next).then_some((header, next))
    }
}

/// Whose the batch at `at` is: `stored`, or what `stored` was before a bit of it flipped.
fn stamped_for(stored: PartitionId, region: &Bytes, at: usize) -> Option<PartitionId> {
    let topics = (0..32).map(|bit| PartitionId::new(stored.topic.0 ^ 1 << bit, stored.partition.0));
    let numbers =
        (0..32).map(|bit| PartitionId::new(stored.topic.0, stored.partition.0 ^ 1 << bit));
    let header = BatchHeader::decode(region.get(at..)?).ok()?;
    let mut candidates = std::iter::once(stored).chain(topics).chain(numbers);
    candidates.find(|candidate| header.verify_stamp(*candidate).is_ok())
}
