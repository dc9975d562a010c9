//! Reading the commit groups of a segment in order, and judging what is not one.
//!
//! A bad group is rot when it must have been durable: a later group says so (its synced sequence is
//! higher), or what follows the segment, or the clean-stop marker. Otherwise it is a torn tail: power
//! went before its sync returned, and nobody was told that it is stored.

use bytes::{Buf, Bytes};

use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::segment::HEADER_BYTES;
use super::{ALIGN, length};
use crate::io::{DiskFile, IoError};

const WINDOW: usize = 1 << 20;

/// What is known about the end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::local) enum Bound {
    /// The broker was writing here when it stopped.
    Open,
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
        })
    }

    /// Visits groups and rot from `position` on; `expected` is the sequence due there, if known.
    pub(in crate::store::local) fn run(
        &mut self,
        mut position: u64,
        mut expected: Option<u64>,
        bound: Bound,
        visit: &mut dyn FnMut(Found),
    ) -> Result<Tail, IoError> {
        loop {
            if let Bound::Closed { end_seq, .. } = bound
                && end_seq.is_some()
                && end_seq == expected
            {
                return Ok(Tail {
                    end: position,
                    next_seq: expected,
                    torn_bytes: 0,
                });
            }
            if let Some(group) = self.group_at(position)?
                && expected.is_none_or(|seq| seq == group.header.seq)
            {
                position = group.end();
                expected = Some(group.header.seq.saturating_add(1));
                visit(group.into_found());
                continue;
            }
            let next = match bound {
                Bound::Open => match self.proof_of_rot(position, expected)? {
                    Ok(next) => Some(next),
                    Err(torn_bytes) => {
                        return Ok(Tail {
                            end: position,
                            next_seq: expected,
                            torn_bytes,
                        });
                    }
                },
                Bound::Closed { .. } => self.search(position + ALIGN as u64, expected)?,
            };
            match next {
                Some(next) => {
                    let bytes = self.region(position, next.position)?;
                    visit(Found::Rot {
                        position,
                        bytes,
                        is_bounded: true,
                    });
                    position = next.position;
                    expected = Some(next.header.seq);
                }
                None => return self.lost_tail(position, expected, bound, visit),
            }
        }
    }

    /// The header of the first group, if the group is whole.
    pub(in crate::store::local) fn first_group(&mut self) -> Result<Option<GroupHeader>, IoError> {
        let first = self.group_at(HEADER_BYTES)?;
        Ok(first.map(|group| group.header))
    }

    /// Nothing valid follows in a segment whose groups were all durable.
    fn lost_tail(
        &mut self,
        position: u64,
        expected: Option<u64>,
        bound: Bound,
        visit: &mut dyn FnMut(Found),
    ) -> Result<Tail, IoError> {
        let mut tail = Tail {
            end: position,
            next_seq: expected,
            torn_bytes: 0,
        };
        if let Bound::Closed {
            end_seq: Some(end_seq),
            end,
        } = bound
        {
            let bytes = self.region(position, end.unwrap_or(self.file_bytes))?;
            tail.end = end.unwrap_or(self.file_bytes).max(position);
            tail.next_seq = Some(end_seq);
            visit(Found::Rot {
                position,
                bytes,
                is_bounded: end.is_some(),
            });
        }
        Ok(tail)
    }

    /// The next valid group, if one at or after it knows that `expected` was durable; else how
    /// many bytes were torn.
    fn proof_of_rot(
        &mut self,
        position: u64,
        expected: Option<u64>,
    ) -> Result<Result<Candidate, u64>, IoError> {
        let mut torn_end = position;
        let head = self.read(position, GROUP_HEADER_BYTES)?;
        if let Some(group_bytes) = self.torn_group_bytes(&head, expected) {
            torn_end = position.saturating_add(group_bytes).min(self.file_bytes);
        }
        let mut first = None;
        let mut from = position + ALIGN as u64;
        while let Some(group) = self.search(from, expected)? {
            from = group.end();
            torn_end = torn_end.max(from);
            let is_proof = expected.is_none_or(|seq| group.header.synced_seq > seq);
            let next = first.get_or_insert(group);
            if is_proof {
                let bytes = next.bytes.clone();
                return Ok(Ok(Candidate { bytes, ..*next }));
            }
        }
        Ok(Err(torn_end - position))
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

    /// The first whole group of this life at or after `from` that comes after `expected`.
    fn search(
        &mut self,
        mut from: u64,
        expected: Option<u64>,
    ) -> Result<Option<Candidate>, IoError> {
        while from + GROUP_HEADER_BYTES as u64 <= self.file_bytes {
            let window = self.read(from, WINDOW)?;
            let mut at = 0;
            while let Some(bytes) = window.get(at..at + GROUP_HEADER_BYTES) {
                if bytes.starts_with(b"FGP1")
                    && let Some(group) = self.group_at(from + at as u64)?
                    && expected.is_none_or(|seq| group.header.seq > seq)
                {
                    return Ok(Some(group));
                }
                at += ALIGN;
            }
            if at == 0 {
                break;
            }
            from += at as u64;
        }
        Ok(None)
    }

    fn header_at(&mut self, position: u64) -> Result<Option<GroupHeader>, IoError> {
        let head = self.read(position, GROUP_HEADER_BYTES)?;
        Ok(GroupHeader::decode(&head).filter(|header| {
            header.segment == self.segment && self.nonce.is_none_or(|nonce| nonce == header.nonce)
        }))
    }

    /// The group at `position`, if it is whole and of this life.
    fn group_at(&mut self, position: u64) -> Result<Option<Candidate>, IoError> {
        let Some(header) = self.header_at(position)? else {
            return Ok(None);
        };
        let bytes = self.read(position, length(header.group_bytes))?;
        let body = bytes.get(8..).unwrap_or_default();
        let is_whole =
            bytes.len() == length(header.group_bytes) && crc32fast::hash(body) == header.crc;
        Ok(is_whole.then_some(Candidate {
            position,
            header,
            bytes,
        }))
    }

    fn region(&mut self, from: u64, to: u64) -> Result<Bytes, IoError> {
        let bytes = to.min(self.file_bytes).saturating_sub(from);
        self.read(from, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Up to `bytes` bytes at `position`, fewer at the end of the file. Never allocates more than
    /// the file holds or a window.
    fn read(&mut self, position: u64, bytes: usize) -> Result<Bytes, IoError> {
        let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let bytes = bytes.min(left);
        let skip = position
            .checked_sub(self.window_at)
            .and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && let Some(end) = skip.checked_add(bytes)
            && end <= self.window.len()
        {
            return Ok(self.window.slice(skip..end));
        }
        let mut buffer = vec![0; bytes.max(WINDOW).min(left)];
        let read = self.file.read_at(position, &mut buffer)?;
        buffer.truncate(read);
        self.window = Bytes::from(buffer);
        self.window_at = position;
        Ok(self.window.slice(..bytes.min(self.window.len())))
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
