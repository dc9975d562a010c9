//! Reading the commit groups of a segment in order, and judging what is not one.
//!
//! A bad group is rot when it must have been durable: a later group says so (its synced sequence is
//! higher), or what follows the segment, or the clean-stop marker. Otherwise it is a torn tail: power
//! went before its sync returned, and nobody was told that it is stored. What the device refuses to
//! read was perhaps durable, so it counts as rot and is never cut.
//!
//! A group says its place, so one that a misplaced write put elsewhere, or repeated there, is not taken for
//! the journal. It proves that write, and not what lay under it: an end with such a group in it is not known.
//! Groups that older brokers wrote have no place, and are told by order alone.

mod strays;

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::segment::HEADER_BYTES;
use super::{ALIGN, length};
use crate::io::{BLOCK_BYTES, DiskFile, IoError};

const WINDOW: usize = 1 << 20;
/// What is read at once where the device refuses more.
const PIECE: u64 = 4 << 10;

/// What is known about the end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) enum Bound {
    /// The broker was writing here when it stopped. The sequence after the last group known to have
    /// been durable, and its end.
    Open { durable: Option<(u64, u64)> },
    /// All groups were durable. The sequence after the last, and its end, where known.
    Closed {
        end_seq: Option<u64>,
        end: Option<u64>,
    },
}

/// What a scan comes across.
#[derive(Debug)]
pub(in crate::store::local) enum Found {
    /// A whole group.
    Group {
        header: GroupHeader,
        position: u64,
        bytes: Bytes,
    },
    /// Bytes that were durable groups once. When not bounded, they may reach into a former life.
    Rot {
        position: u64,
        bytes: Bytes,
        is_bounded: bool,
    },
}

/// Where the groups end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) struct Tail {
    pub(in crate::store::local) end: u64,
    /// Sequence of the next group, when any is known.
    pub(in crate::store::local) next_seq: Option<u64>,
    /// Bytes behind `end` that belong to groups never made durable.
    pub(in crate::store::local) torn_bytes: u64,
    /// What was perhaps written last cannot be read, or lies under a group from elsewhere.
    pub(in crate::store::local) is_end_unknown: bool,
}

/// A pass over one segment.
#[derive(Debug)]
pub(in crate::store::local) struct Scan<'a> {
    file: &'a dyn DiskFile,
    file_bytes: u64,
    segment: u64,
    nonce: Option<u32>,
    window_at: u64,
    window: Bytes,
    /// What the device refuses to read, as far as it was tried.
    unreadable: Vec<Range<u64>>,
    /// Of the whole groups of this life that were found in a wrong place, the last position and the highest
    /// sequence.
    strays: Option<(u64, u64)>,
}

struct Candidate {
    position: u64,
    header: GroupHeader,
    bytes: Bytes,
}

impl Candidate {
    fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

impl<'a> Scan<'a> {
    /// `nonce` is `None` when the segment's header is damaged.
    pub(in crate::store::local) fn new(
        file: &'a dyn DiskFile,
        segment: u64,
        nonce: Option<u32>,
    ) -> Result<Self, IoError> {
        Ok(Self {
            file,
            file_bytes: file.len_bytes()?,
            segment,
            nonce,
            window_at: 0,
            window: Bytes::new(),
            unreadable: Vec::new(),
            strays: None,
        })
    }

    /// Visits groups and rot from `position` on; `expected` is the sequence due there, if known.
    pub(in crate::store::local) fn run(
        &mut self,
        mut position: u64,
        mut expected: Option<u64>,
        bound: Bound,
        visit: &mut dyn FnMut(Found),
    ) -> Tail {
        loop {
            if let Bound::Closed { end_seq, .. } = bound
                && end_seq.is_some()
                && end_seq == expected
            {
                return Tail {
                    end: position,
                    next_seq: expected,
                    torn_bytes: 0,
                    is_end_unknown: false,
                };
            }
            if let Some(group) = self.group_at(position)
                && match expected {
                    Some(seq) if seq == group.header.seq => true,
                    // A roll syncs what is before, so what is missing there was in a lost segment.
                    Some(seq) if position == HEADER_BYTES => {
                        seq < group.header.seq && !self.is_overtaken(&group, None)
                    }
                    Some(_) => false,
                    None => !self.is_overtaken(&group, None),
                }
            {
                position = group.end();
                expected = Some(group.header.seq.saturating_add(1));
                visit(group.into_found());
                continue;
            }
            let durable = match bound {
                Bound::Open { durable } => durable.filter(|(seq, end)| {
                    position < *end && expected.is_none_or(|expected| expected < *seq)
                }),
                Bound::Closed { .. } => None,
            };
            let next = match bound {
                Bound::Open { .. } if durable.is_some() => {
                    let next = self.search(position + ALIGN as u64, expected);
                    next.filter(|next| durable.is_some_and(|(_, end)| next.position < end))
                }
                Bound::Open { .. } => match self.proof_of_rot(position, expected) {
                    Ok(next) => Some(next),
                    Err(_) if self.is_end_unknown(position) => {
                        return self.unknown_tail(position, expected, visit);
                    }
                    Err(torn_bytes) => {
                        return Tail {
                            end: position,
                            next_seq: expected,
                            torn_bytes,
                            is_end_unknown: false,
                        };
                    }
                },
                Bound::Closed { .. } => self.search(position + ALIGN as u64, expected),
            };
            match (next, durable) {
                (Some(next), _) => {
                    let bytes = self.rot(position..next.position, expected);
                    visit(Found::Rot {
                        position,
                        bytes,
                        is_bounded: true,
                    });
                    position = next.position;
                    expected = Some(next.header.seq);
                }
                // What is behind it may be torn.
                (None, Some((seq, end))) => {
                    let bytes = self.rot(position..end, expected);
                    visit(Found::Rot {
                        position,
                        bytes,
                        is_bounded: true,
                    });
                    (position, expected) = (end, Some(seq));
                }
                (None, None) => return self.lost_tail(position, expected, bound, visit),
            }
        }
    }

    /// The header of the first group, if the group is whole.
    pub(in crate::store::local) fn first_group(&mut self) -> Option<GroupHeader> {
        self.header_of(HEADER_BYTES)
    }

    /// The header of the group at `position`, if the group is whole.
    pub(in crate::store::local) fn header_of(&mut self, position: u64) -> Option<GroupHeader> {
        self.group_at(position).map(|group| group.header)
    }

    /// Whether a whole group of this segment is anywhere in the file.
    pub(in crate::store::local) fn has_group(&mut self) -> bool {
        self.search_any(HEADER_BYTES, None).is_some()
    }

    /// Nothing valid follows in a segment whose groups were all durable.
    fn lost_tail(
        &mut self,
        position: u64,
        expected: Option<u64>,
        bound: Bound,
        visit: &mut dyn FnMut(Found),
    ) -> Tail {
        let mut tail = Tail {
            end: position,
            next_seq: expected,
            torn_bytes: 0,
            is_end_unknown: false,
        };
        if let Bound::Closed {
            end_seq: Some(end_seq),
            end,
        } = bound
        {
            let bytes = self.rot(position..end.unwrap_or(self.file_bytes), expected);
            tail.end = end.unwrap_or(self.file_bytes).max(position);
            tail.next_seq = Some(end_seq);
            visit(Found::Rot {
                position,
                bytes,
                is_bounded: end.is_some(),
            });
        }
        tail
    }

    /// Whether groups may have been durable behind `position` of which nothing is left. A group from elsewhere
    /// proves a write that went astray, and not what lay under it. ORDER: after a search up to the end.
    fn is_end_unknown(&self, position: u64) -> bool {
        let is_overwritten = self.strays.is_some_and(|(last, _)| last >= position);
        is_overwritten || self.is_unreadable(position..self.file_bytes)
    }

    /// The end of the journal is not known. Nothing is cut, nothing is appended behind it, and one
    /// sequence is left out for what may have been there.
    fn unknown_tail(
        &mut self,
        position: u64,
        expected: Option<u64>,
        visit: &mut dyn FnMut(Found),
    ) -> Tail {
        let bytes = self.rot(position..self.file_bytes, expected);
        visit(Found::Rot {
            position,
            bytes,
            is_bounded: false,
        });
        Tail {
            end: self.file_bytes,
            next_seq: expected
                .max(self.strays.map(|(_, seq)| seq))
                .map(|seq| seq.saturating_add(1)),
            torn_bytes: 0,
            is_end_unknown: true,
        }
    }

    fn is_of_this_life(&self, header: &GroupHeader) -> bool {
        header.segment == self.segment && self.nonce.is_none_or(|nonce| nonce == header.nonce)
    }

    fn is_unreadable(&self, range: Range<u64>) -> bool {
        let mut refused = self.unreadable.iter();
        refused.any(|refused| refused.start < range.end && range.start < refused.end)
    }

    /// The next valid group, if one at or after it knows that `expected` was durable; else how
    /// many bytes were torn.
    fn proof_of_rot(&mut self, position: u64, expected: Option<u64>) -> Result<Candidate, u64> {
        let mut torn_end = position;
        let head = self.read(position, GROUP_HEADER_BYTES);
        if let Some(group_bytes) = self.torn_group_bytes(&head, expected) {
            torn_end = position.saturating_add(group_bytes).min(self.file_bytes);
        }
        let mut first = None;
        let mut from = position + ALIGN as u64;
        while let Some(group) = self.search(from, expected) {
            from = group.end();
            torn_end = torn_end.max(from);
            let is_proof = expected.is_none_or(|seq| group.header.synced_seq > seq)
                || self.is_unreadable(position..group.position);
            let next = first.get_or_insert(group);
            if is_proof {
                let bytes = next.bytes.clone();
                return Ok(Candidate { bytes, ..*next });
            }
        }
        Err(torn_end - position)
    }

    /// Announced length of what was meant to be the next group: at least two of its marks are right.
    fn torn_group_bytes(&self, mut head: &[u8], expected: Option<u64>) -> Option<u64> {
        if head.len() < GROUP_HEADER_BYTES {
            return None;
        }
        let is_magic = head.starts_with(b"FGP1");
        head.advance(8);
        let group_bytes = u64::from(head.get_u32_le());
        let is_nonce = Some(head.get_u32_le()) == self.nonce;
        let is_segment = head.get_u64_le() == self.segment;
        let is_seq = Some(head.get_u64_le()) == expected;
        let marks = [is_magic, is_nonce, is_segment, is_seq];
        let is_ours = marks.into_iter().filter(|mark| *mark).count() >= 2;
        is_ours.then_some(group_bytes.max(GROUP_HEADER_BYTES as u64))
    }

    /// The first whole group of this life at or after `from` that comes after `expected`, and is
    /// where it belongs.
    fn search(&mut self, from: u64, expected: Option<u64>) -> Option<Candidate> {
        let mut found = self.search_any(from, expected)?;
        while self.is_overtaken_soon(&found, expected) {
            found = self.search_any(found.end(), expected)?;
        }
        Some(found)
    }

    /// Whether a group that does not say its place is followed by an earlier one: then the device wrote it
    /// to the wrong place, over others. To go on behind it would be to give up all between.
    fn is_overtaken(&mut self, group: &Candidate, expected: Option<u64>) -> bool {
        if group.header.has_place() {
            return false;
        }
        let next = self.search_any(group.end(), expected);
        next.is_some_and(|next| next.header.seq <= group.header.seq)
    }

    /// The same, where others may have gone with it that it shares a block with.
    fn is_overtaken_soon(&mut self, group: &Candidate, expected: Option<u64>) -> bool {
        if group.header.has_place() {
            return false;
        }
        let until = group.position + BLOCK_BYTES as u64;
        let mut from = group.end();
        while let Some(next) = self.search_any(from, expected) {
            if next.header.seq <= group.header.seq {
                return true;
            }
            if next.position > until {
                return false;
            }
            from = next.end();
        }
        false
    }

    fn search_any(&mut self, mut from: u64, expected: Option<u64>) -> Option<Candidate> {
        while from + GROUP_HEADER_BYTES as u64 <= self.file_bytes {
            let window = self.read(from, WINDOW);
            let mut at = 0;
            while let Some(bytes) = window.get(at..at + GROUP_HEADER_BYTES) {
                if bytes.starts_with(b"FGP1")
                    && let Some(group) = self.group_at(from + at as u64)
                    && expected.is_none_or(|seq| group.header.seq > seq)
                {
                    return Some(group);
                }
                at += ALIGN;
            }
            if at == 0 {
                break;
            }
            from += at as u64;
        }
        None
    }

    /// The group at `position`, if it is whole, of this life, and belongs there.
    fn group_at(&mut self, position: u64) -> Option<Candidate> {
        let group = self.whole_at(position)?;
        if group.header.is_at(position) {
            return Some(group);
        }
        let (last, seq) = self.strays.unwrap_or_default();
        self.strays = Some((last.max(position), seq.max(group.header.seq)));
        None
    }

    /// The same, wherever it belongs.
    fn whole_at(&mut self, position: u64) -> Option<Candidate> {
        let head = self.read(position, GROUP_HEADER_BYTES);
        let header = GroupHeader::decode(&head).filter(|header| self.is_of_this_life(header))?;
        let bytes = self.read(position, length(header.group_bytes));
        let body = bytes.get(8..).unwrap_or_default();
        let is_whole =
            bytes.len() == length(header.group_bytes) && crc32fast::hash(body) == header.crc;
        is_whole.then_some(Candidate {
            position,
            header,
            bytes,
        })
    }

    /// Up to `bytes` bytes at `position`, fewer at the end of the file. Never allocates more than
    /// the file holds or a window.
    fn read(&mut self, position: u64, bytes: usize) -> Bytes {
        let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let bytes = bytes.min(left);
        let skip = position
            .checked_sub(self.window_at)
            .and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && let Some(end) = skip.checked_add(bytes)
            && end <= self.window.len()
        {
            return self.window.slice(skip..end);
        }
        let mut buffer = vec![0; bytes.max(WINDOW).min(left)];
        match self.file.read_at(position, &mut buffer) {
            Ok(read) => buffer.truncate(read),
            Err(error) => self.read_around(position, &mut buffer, &error),
        }
        self.window = Bytes::from(buffer);
        self.window_at = position;
        self.window.slice(..bytes.min(self.window.len()))
    }
}

impl Scan<'_> {
    /// Fills `buffer` piece by piece, with zeros where the device refuses.
    fn read_around(&mut self, position: u64, buffer: &mut [u8], error: &IoError) {
        tracing::error!(
            segment = self.segment,
            error = error as &dyn std::error::Error,
            "the journal cannot be read here, keeping what can"
        );
        let mut at = position;
        let mut rest = buffer;
        while !rest.is_empty() {
            // Blocks of the device, so that no more is given up than it refuses.
            let next = (at + 1).next_multiple_of(PIECE);
            let bytes = usize::try_from(next - at).unwrap_or(rest.len());
            let (piece, after) = rest.split_at_mut(bytes.min(rest.len()));
            let end = at + piece.len() as u64;
            if self.file.read_at(at, piece).is_err() {
                piece.fill(0);
                if !self.is_unreadable(at..end) {
                    self.unreadable.push(at..end);
                }
            }
            (at, rest) = (end, after);
        }
    }
}

impl Candidate {
    fn into_found(self) -> Found {
        Found::Group {
            header: self.header,
            position: self.position,
            bytes: self.bytes,
        }
    }
}
