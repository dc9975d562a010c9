//! Bytes that the device put where they do not belong.
//!
//! A write that goes astray repeats groups at a wrong place, whole, cut short, or beginning in the middle of
//! one; a write that never arrived leaves what an earlier life of the file had there. Each piece of them
//! proves itself, and none was the latest when something was written here. So the rule for rot: nothing
//! counts from the last header in its place before a stray one up to the next header in its place, because
//! nobody can tell where strange bytes begin or end. That costs groups that were hit, and no others.

use std::ops::Range;

use bytes::Bytes;

use super::{ALIGN, GROUP_HEADER_BYTES, GroupHeader, Scan, length};
use crate::store::local::journal::group::place_of;
use crate::store::local::journal::salvage::{Piece, salvage};

/// Fields of a group's header.
const NONCE: Range<usize> = 12..16;
const SEGMENT: Range<usize> = 16..24;
const SEQ: Range<usize> = 24..32;
const PLACE: Range<usize> = 38..40;

impl Scan<'_> {
    /// The bytes of rot, zeros where nothing counts. `expected` is the sequence due at its beginning.
    pub(super) fn rot(&mut self, range: Range<u64>, expected: Option<u64>) -> Bytes {
        let bytes = range.end.min(self.file_bytes).saturating_sub(range.start);
        let bytes = self.read(range.start, usize::try_from(bytes).unwrap_or(usize::MAX));
        let heads = (0..bytes.len()).step_by(ALIGN);
        let heads = heads.filter(|at| bytes.get(*at..).is_some_and(|at| at.starts_with(b"FGP1")));
        let heads: Vec<(usize, bool)> = heads
            .filter_map(|at| Some((at, self.is_stray(range.start + at as u64, expected)?)))
            .collect();
        if heads.iter().all(|(_, is_stray)| !is_stray) {
            return bytes;
        }
        let mut kept = bytes.to_vec();
        for void in voids(&heads, &bytes) {
            kept.get_mut(void).unwrap_or_default().fill(0);
        }
        Bytes::from(kept)
    }

    /// Whether the header at `position` does not belong there; `None` when there is none.
    fn is_stray(&mut self, position: u64, expected: Option<u64>) -> Option<bool> {
        let head = self.read(position, GROUP_HEADER_BYTES);
        let header = GroupHeader::decode(&head)?;
        let is_named = self.is_of_this_life(&header) && header.is_at(position);
        // One that does not say its place is known by coming too early.
        let early = expected.filter(|expected| !header.has_place() && header.seq < *expected);
        if is_named && early.is_none() {
            return Some(false);
        }
        Some(!self.is_mended(position, &header, early))
    }

    /// Whether the group is whole once its header says what it must say here: then a bit of that is damaged,
    /// and nothing went astray.
    fn is_mended(&mut self, position: u64, header: &GroupHeader, seq: Option<u64>) -> bool {
        let bytes = self.read(position, length(header.group_bytes));
        let Some((head, body)) = bytes.split_at_checked(GROUP_HEADER_BYTES) else {
            return false;
        };
        if bytes.len() != length(header.group_bytes) {
            return false;
        }
        let nonce = self.nonce.unwrap_or(header.nonce);
        let seq = seq.unwrap_or(header.seq);
        let places = if header.is_at(position) {
            [header.place; 2]
        } else {
            [place_of(position), 0]
        };
        places.into_iter().any(|place| {
            let mut head = head.to_vec();
            let fields: [(Range<usize>, &[u8]); 4] = [
                (NONCE, &nonce.to_le_bytes()),
                (SEGMENT, &self.segment.to_le_bytes()),
                (SEQ, &seq.to_le_bytes()),
                (PLACE, &place.to_le_bytes()),
            ];
            for (field, right) in fields {
                if let Some(field) = head.get_mut(field) {
                    field.copy_from_slice(right);
                }
            }
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(head.get(8..).unwrap_or_default());
            hasher.update(body);
            hasher.finalize() == header.crc
        })
    }
}

/// Where nothing counts. `heads` are positions of headers, and whether they are strays.
fn voids(heads: &[(usize, bool)], bytes: &Bytes) -> Vec<Range<usize>> {
    // Somebody may have published bytes that look like a header.
    let inside = whole_pieces(bytes);
    let is_inside = |at: usize| {
        let after = inside.partition_point(|piece| piece.start <= at);
        let piece = after.checked_sub(1).and_then(|before| inside.get(before));
        piece.is_some_and(|piece| piece.contains(&at))
    };
    let mut voids = Vec::new();
    let (mut from, mut has_stray) = (0, false);
    for (at, is_stray) in heads.iter().filter(|(at, _)| !is_inside(*at)) {
        if *is_stray {
            has_stray = true;
            continue;
        }
        if std::mem::take(&mut has_stray) {
            voids.push(from..*at);
        }
        from = *at;
    }
    if has_stray {
        voids.push(from..bytes.len());
    }
    voids
}

/// Where batches and rows are that prove themselves, in order.
fn whole_pieces(bytes: &Bytes) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    salvage(bytes, &mut |at, piece| {
        let whole = match &piece {
            Piece::Batch { batch, .. } => batch.bytes.as_ref().map(Bytes::len),
            Piece::Row { key, value, .. } => Some(key.len() + value.as_ref().map_or(0, Bytes::len)),
            Piece::Unstamped { .. } | Piece::Trim(_) | Piece::State(_) => None,
        };
        if let Some(whole) = whole {
            pieces.push(at..at + whole);
        }
    });
    pieces
}
