//! First pass: what is there, what is damaged, where the journal ends.

mod found;

use std::collections::{BTreeMap, VecDeque};

use falcon_protocol::Offset;

use super::ends::Ends;
use super::footers::check_footer;
use super::heads::read_head;
use super::last_word::{LastWord, Proven};
use crate::io::{DiskFile, IoError};
use crate::metrics::Gauge;
use crate::store::Damage;
use crate::store::local::OpenError;
use crate::store::local::index::MemoryIndex;
use crate::store::local::journal::scan::{Bound, Scan, Tail};
use crate::store::local::journal::segment::{HEADER_BYTES, Seal};
use crate::store::local::segments::{SegmentInfo, Segments};

/// What the first pass found.
#[derive(Debug)]
pub(in crate::store::local) struct Survey {
    pub(in crate::store::local) infos: BTreeMap<u64, SegmentInfo>,
    pub(in crate::store::local) memory: MemoryIndex,
    pub(in crate::store::local) damage: Vec<Damage>,
    /// Segment and position of the newest whole snapshot in a scanned segment.
    pub(in crate::store::local) newest_snapshot: Option<(u64, u64)>,
    pub(in crate::store::local) next_seq: u64,
    /// What the scan of the last segment ended with; `None` when it is sealed or there is none.
    pub(in crate::store::local) open_tail: Option<Tail>,
    /// Groups at the end of the last segment, as sequence and position, of which no later one says
    /// that they were synced.
    pub(in crate::store::local) unproven: VecDeque<(u64, u64)>,
    pub(in crate::store::local) flaws: Vec<Flaw>,
}

/// A place in the journal that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::local) struct Flaw {
    pub(in crate::store::local) segment: u64,
    pub(in crate::store::local) position: u64,
    pub(in crate::store::local) kind: FlawKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::local) enum FlawKind {
    /// Bytes that were durable groups once.
    Rot { bytes: u64 },
    /// A batch in them whose stamp is right and whose body is not.
    Batch(Damage),
    /// A whole group holds an entry that cannot be read.
    Entry,
}

/// What the pass may rely on.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::local) struct Given<'a> {
    pub(in crate::store::local) segments: &'a Segments,
    pub(in crate::store::local) journal_id: u128,
    pub(in crate::store::local) last: LastWord<'a>,
    /// Take sealed segments from their footers. Otherwise every group is read and checked.
    pub(in crate::store::local) trusts_footers: bool,
    /// How many segments were looked at.
    pub(in crate::store::local) progress: Option<&'a Gauge>,
}

/// Looks at every segment in `numbers`, which is sorted.
pub(in crate::store::local) fn survey(
    given: Given<'_>,
    numbers: &[u64],
) -> Result<Survey, OpenError> {
    let mut pass = Pass {
        given,
        found: Survey {
            infos: BTreeMap::new(),
            memory: MemoryIndex::default(),
            damage: Vec::new(),
            newest_snapshot: None,
            next_seq: 0,
            open_tail: None,
            unproven: VecDeque::new(),
            flaws: Vec::new(),
        },
        ends: Ends::new(),
        lost_copies: Vec::new(),
        proven: given.last.proven(),
        is_linked: false,
    };
    let mut previous = 0;
    let mut expected = None;
    for (at, number) in numbers.iter().enumerate() {
        if *number != previous + 1 {
            pass.ends.forget();
            pass.is_linked = false;
            expected = None;
        }
        if at % 64 == 63 {
            tracing::info!(done = at, of = numbers.len(), "reading segments");
        }
        if let Some(progress) = given.progress {
            progress.set(at as u64);
        }
        let next = numbers.get(at + 1).copied();
        expected = pass.segment(*number, next, expected)?;
        previous = *number;
    }
    if let Some(progress) = given.progress {
        progress.set(numbers.len() as u64);
    }
    if let Some(proven) = pass.proven.take() {
        pass.ends.note_state(proven.state, true);
        expected = Some(proven.next_seq.max(expected.unwrap_or(0)));
    }
    let mut found = pass.found;
    found.next_seq = expected.unwrap_or(0);
    found.damage.append(&mut pass.ends.damage);
    found.damage.append(&mut pass.lost_copies);
    Ok(found)
}

struct Pass<'a> {
    given: Given<'a>,
    found: Survey,
    ends: Ends,
    /// Damaged copies. Where another copy or the original is whole, nothing is lost.
    lost_copies: Vec<Damage>,
    /// Until what it speaks of was passed.
    proven: Option<Proven<'a>>,
    /// Whether anything was seen since the last missing segment.
    is_linked: bool,
}

pub(super) fn warn_unreadable(segment: u64, error: &IoError) {
    tracing::error!(
        segment,
        error = error as &dyn std::error::Error,
        "a part of a segment cannot be read, it counts as damaged"
    );
}

impl Pass<'_> {
    /// Reads one segment and answers the sequence after it.
    fn segment(
        &mut self,
        number: u64,
        next: Option<u64>,
        expected: Option<u64>,
    ) -> Result<Option<u64>, OpenError> {
        // A roll syncs everything before it.
        self.found.unproven.clear();
        let file = self.given.segments.handle(number)?;
        let file = file.as_ref();
        let head = read_head(self.given, number, file)?;
        if self.given.trusts_footers
            && let Some(seal) = head.seal
            && self.sealed(number, file, seal)?
        {
            self.found.open_tail = None;
            // The footer says what the mark does, and it is newer.
            self.proven = self.proven.filter(|proven| proven.next_seq > seal.end_seq);
            self.is_linked = true;
            return Ok(Some(seal.end_seq));
        }
        let bound = self.bound(number, next, head.seal)?;
        let nonce = head.header.map(|header| header.nonce);
        let mut scan = Scan::new(file, number, nonce)?;
        let before = (self.ends.damage.len(), self.lost_copies.len());
        let tail = scan.run(HEADER_BYTES, expected, bound, &mut |found| {
            self.on_found(number, found);
        });
        self.found.infos.insert(
            number,
            SegmentInfo {
                nonce: nonce.unwrap_or(0),
                file_bytes: file.len_bytes()?,
                groups_end: tail.end,
                first_seq: expected.unwrap_or(0),
                end_seq: tail.next_seq.unwrap_or(0),
                shares: self.found.memory.shares(number),
                damage: self.damage_since(before),
                is_header_damaged: head.header.is_none(),
                ..SegmentInfo::default()
            },
        );
        self.found.open_tail = Some(tail);
        Ok(tail.next_seq)
    }

    /// What is known about the end of a segment that has to be scanned.
    fn bound(
        &self,
        number: u64,
        next: Option<u64>,
        seal: Option<Seal>,
    ) -> Result<Bound, OpenError> {
        if let Some(seal) = seal {
            return Ok(Bound::Closed {
                end_seq: Some(seal.end_seq),
                end: Some(seal.groups_end),
            });
        }
        let end_seq = match next {
            Some(next) if next == number + 1 => self.first_seq(next)?,
            Some(_) => None,
            None => return Ok(self.given.last.bound(number)),
        };
        Ok(Bound::Closed { end_seq, end: None })
    }

    /// Sequence of the first group of a segment.
    fn first_seq(&self, number: u64) -> Result<Option<u64>, OpenError> {
        let file = self.given.segments.handle(number)?;
        let head = read_head(self.given, number, file.as_ref())?;
        if let Some(seal) = head.seal {
            return Ok(Some(seal.first_seq));
        }
        let nonce = head.header.map(|header| header.nonce);
        let first = Scan::new(file.as_ref(), number, nonce)?.first_group();
        Ok(first.map(|header| header.seq))
    }

    /// Takes a sealed segment from its footer; `false` when the footer is damaged.
    fn sealed(&mut self, number: u64, file: &dyn DiskFile, seal: Seal) -> Result<bool, OpenError> {
        let stored = check_footer(file, &seal).unwrap_or_else(|error| {
            warn_unreadable(number, &error);
            None
        });
        let Some(stored) = stored else {
            tracing::warn!(
                segment = number,
                "the footer is damaged, reading the segment"
            );
            return Ok(false);
        };
        for (partition, share) in &stored.summary.shares {
            if share.original_end > Offset::ZERO {
                self.ends.note_end(*partition, share.original_end);
            }
            self.ends.note_copied(*partition, share.end);
        }
        self.found.damage.extend_from_slice(&stored.summary.damage);
        self.found.infos.insert(
            number,
            SegmentInfo {
                nonce: seal.nonce,
                file_bytes: file.len_bytes()?,
                groups_end: seal.groups_end,
                first_seq: seal.first_seq,
                end_seq: seal.end_seq,
                shares: stored.summary.shares,
                damage: stored.summary.damage,
                seal: Some(seal),
                is_by_footer: true,
                ..SegmentInfo::default()
            },
        );
        Ok(true)
    }
}
