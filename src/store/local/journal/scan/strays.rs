//! Bytes that the device put where they do not belong.
//!
//! A write that goes astray repeats groups at a wrong place, whole, cut short, or beginning in the middle of
//! one; a write that never arrived leaves what an earlier life of the file had there. Each piece of them
//! proves itself, and none was the latest when something was written here. So the rule for rot: nothing
//! counts from the last header in its place before a stray one up to the next header in its place, because
//! nobody can tell where strange bytes begin or end. That costs groups that were hit, and no others.
//!
//! Where a group ends, and a former life of the file shows only behind that end, the group itself was not hit: what
//! is there was never overwritten, because the journal ended. It begins with the block of its first header at the
//! earliest, since a device writes whole blocks.

use std::ops::Range;

use bytes::Bytes;

use super::{ALIGN, GROUP_HEADER_BYTES, GroupHeader, Scan, length};
use crate::io::BLOCK_BYTES;
use crate::store::local::journal::group::place_of;
use crate::store::local::journal::salvage::{Piece, salvage};

/// Fields of a group's header.
const NONCE: Range<usize> = 12..16;
const SEGMENT: Range<usize> = 16..24;
const SEQ: Range<usize> = 24..32;
const PLACE: Range<usize> = 38..40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    InPlace,
    /// One thing that it says is wrong: perhaps a flipped bit. The sequence it should have, if that is it.
    Damaged(Option<u64>),
    Elsewhere,
}

/// A header in rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// It is where it belongs, and its group ends there.
    InPlace {
        end: usize,
    },
    Stray {
        is_of_this_life: bool,
    },
}

impl Scan<'_> {
    /// The bytes of rot, zeros where nothing counts. `expected` is the sequence due at its beginning.
    pub(super) fn rot(&mut self, range: Range<u64>, expected: Option<u64>) -> Bytes {
        let bytes = range.end.min(self.file_bytes).saturating_sub(range.start);
        let bytes = self.read(range.start, usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut heads = Vec::new();
        for at in (0..bytes.len()).step_by(ALIGN) {
            if let Some(header) = bytes.get(at..).and_then(GroupHeader::decode) {
                let verdict = self.verdict(range.start + at as u64, &header, expected);
                heads.push((at, header, verdict));
            }
        }
        if heads
            .iter()
            .all(|(.., verdict)| *verdict == Verdict::InPlace)
        {
            return bytes;
        }
        // Somebody may have published bytes that look like a header.
        let inside = whole_pieces(&bytes);
        heads.retain(|(at, ..)| !is_inside(&inside, *at));
        let heads = heads.into_iter().map(|(at, header, verdict)| {
            let is_in_place = match verdict {
                Verdict::InPlace => true,
                Verdict::Elsewhere => false,
                Verdict::Damaged(seq) => self.is_mended(range.start + at as u64, &header, seq),
            };
            let head = if is_in_place {
                let end = at.saturating_add(length(header.group_bytes));
                Head::InPlace { end }
            } else {
                let is_of_this_life = self.is_of_this_life(&header);
                Head::Stray { is_of_this_life }
            };
            (at, head)
        });
        let heads: Vec<(usize, Head)> = heads.collect();
        let mut kept = bytes.to_vec();
        let phase = usize::try_from(range.start % BLOCK_BYTES as u64).unwrap_or(0);
        for void in voids(&heads, phase, bytes.len()) {
            kept.get_mut(void).unwrap_or_default().fill(0);
        }
        Bytes::from(kept)
    }

    /// What a header at `position` says of itself.
    fn verdict(&self, position: u64, header: &GroupHeader, expected: Option<u64>) -> Verdict {
        // One that does not say its place is known by coming too early.
        let early = expected.filter(|expected| !header.has_place() && header.seq < *expected);
        let marks = [
            header.segment == self.segment,
            self.nonce.is_none_or(|nonce| nonce == header.nonce),
            header.is_at(position),
            early.is_none(),
        ];
        match marks.into_iter().filter(|mark| !mark).count() {
            0 => Verdict::InPlace,
            1 => Verdict::Damaged(early),
            _ => Verdict::Elsewhere,
        }
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

/// Whether one of `pieces`, which are sorted, has the byte at `at`.
fn is_inside(pieces: &[Range<usize>], at: usize) -> bool {
    let after = pieces.partition_point(|piece| piece.start <= at);
    let piece = after.checked_sub(1).and_then(|before| pieces.get(before));
    piece.is_some_and(|piece| piece.contains(&at))
}

/// Where nothing counts in `bytes` bytes, which begin `phase` bytes behind the start of a block. `heads` are positions
/// of headers.
fn voids(heads: &[(usize, Head)], phase: usize, bytes: usize) -> Vec<Range<usize>> {
    let mut voids = Vec::new();
    // The group before the strays, and where these begin.
    let (mut from, mut end, mut strange) = (0, 0, None);
    for (at, head) in heads {
        match *head {
            Head::InPlace { end: announced } => {
                voids.extend(strange.take().map(|strange| strange..*at));
                (from, end) = (*at, announced);
            }
            Head::Stray { is_of_this_life } => {
                let block = (*at + phase) / BLOCK_BYTES * BLOCK_BYTES;
                let is_behind = !is_of_this_life && end > from && end <= *at;
                let begin = if is_behind {
                    end.min(block.saturating_sub(phase)).max(from)
                } else {
                    from
                };
                strange = Some(strange.map_or(begin, |strange: usize| strange.min(begin)));
            }
        }
    }
    voids.extend(strange.map(|strange| strange..bytes));
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
