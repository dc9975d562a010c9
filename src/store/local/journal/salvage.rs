//! What is still whole inside damaged bytes.
//!
//! A batch proves itself (body checksum, stamp bound to partition and offset), and so do rows, trims
//! and the state. So one flipped bit in a commit group costs the batch or row it hit, no more.

use bytes::{Buf, Bytes};
use falcon_protocol::batch::BATCH_HEADER_BYTES;
use falcon_protocol::{Batch, BatchHeader, PartitionId};

use super::ALIGN;
use super::group::Entry;
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
    if *region.get(at)? == 1 {
        return extent_at(region, at, visit);
    }
    let (entry, next) = Entry::read(region, at)?;
    let piece = match entry {
        Entry::Row { table, key, value } => Piece::Row { table, key, value },
        Entry::Trim { .. } => Piece::Trim(entry),
        Entry::State(bytes) => Piece::State(StoreState::decode(&bytes)?),
        Entry::Extent { .. } => return None,
    };
    visit(at, piece);
    Some(next)
}

fn extent_at(region: &Bytes, at: usize, visit: &mut dyn FnMut(usize, Piece)) -> Option<usize> {
    const HEADER: usize = 24;
    let (partition, is_copy, batches, from) = match Entry::read(region, at) {
        Some((
            Entry::Extent {
                partition,
                is_copy,
                batches,
                at: from,
            },
            _,
        )) => (partition, is_copy, batches, from),
        Some(_) => return None,
        // The length may be what is damaged: take what follows directly.
        None => {
            let is_copy = region.get(at + 1)? & 1 != 0;
            let mut head = region.get(at + 4..at + 12)?;
            let partition = PartitionId::new(head.get_u32_le(), head.get_u32_le());
            let from = at + HEADER;
            stamped_header(partition, region, from)?;
            (partition, is_copy, region.slice(from..), from)
        }
    };
    let mut end = None;
    for found in find_batches(partition, &batches) {
        let at = from + found.at;
        if let Some(bytes) = &found.bytes {
            end = Some(at + bytes.len());
        }
        let piece = Piece::Batch {
            partition,
            batch: found,
            is_copy,
        };
        visit(at, piece);
    }
    Some(super::padded(end?))
}
