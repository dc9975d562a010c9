//! First pass: what is there, what is damaged, where the journal ends.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, Bytes};
use falcon_protocol::{BatchHeader, Offset, PartitionId};

use super::ends::Ends;
use super::footers::{read_footer, read_summary};
use super::heads::read_head;
use crate::io::{DiskFile, IoError};
use crate::store::local::OpenError;
use crate::store::local::identity::CleanMarker;
use crate::store::local::index::{MemoryIndex, Place, TreeIndex};
use crate::store::local::journal::group::{Entry, GROUP_HEADER_BYTES, GroupHeader, GroupKind};
use crate::store::local::journal::salvage::{Piece, salvage};
use crate::store::local::journal::scan::{Bound, Found, Scan, Tail};
use crate::store::local::journal::segment::{HEADER_BYTES, Seal};
use crate::store::local::journal::state::StoreState;
use crate::store::local::segments::{SegmentInfo, Segments};
use crate::store::{Damage, Extent};

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
    pub(in crate::store::local) rows_damaged: u64,
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

/// Why the first pass did not finish.
#[derive(Debug)]
pub(in crate::store::local) enum SurveyError {
    Open(OpenError),
    /// sled refused rows: start over without it.
    Tree(String),
}

impl From<IoError> for SurveyError {
    fn from(error: IoError) -> Self {
        Self::Open(OpenError::Io(error))
    }
}

/// What the pass may rely on.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::local) struct Given<'a> {
    pub(in crate::store::local) segments: &'a Segments,
    pub(in crate::store::local) journal_id: u128,
    pub(in crate::store::local) clean: Option<&'a CleanMarker>,
    pub(in crate::store::local) tree: Option<&'a TreeIndex>,
    /// Segments whose extents are in `tree`.
    pub(in crate::store::local) indexed: &'a HashSet<u64>,
    /// Take sealed segments from their footers. Otherwise every group is read and checked.
    pub(in crate::store::local) trusts_footers: bool,
}

/// Looks at every segment in `numbers`, which is sorted.
pub(in crate::store::local) fn survey(
    given: Given<'_>,
    numbers: &[u64],
) -> Result<Survey, SurveyError> {
    let mut pass = Pass {
        given,
        found: Survey {
            infos: BTreeMap::new(),
            memory: MemoryIndex::default(),
            damage: Vec::new(),
            newest_snapshot: None,
            next_seq: 0,
            open_tail: None,
            rows_damaged: 0,
            flaws: Vec::new(),
        },
        ends: Ends::new(),
    };
    let mut previous = 0;
    let mut expected = None;
    for (at, number) in numbers.iter().enumerate() {
        if *number != previous + 1 {
            pass.ends.forget();
            expected = None;
        }
        if at % 64 == 63 {
            tracing::info!(done = at, of = numbers.len(), "reading segments");
        }
        let next = numbers.get(at + 1).copied();
        expected = pass.segment(*number, next, expected)?;
        previous = *number;
    }
    if let Some(clean) = given.clean {
        pass.ends.note_state(&clean.state, true);
        expected = Some(clean.next_seq.max(expected.unwrap_or(0)));
    }
    let mut found = pass.found;
    found.next_seq = expected.unwrap_or(0);
    found.damage.append(&mut pass.ends.damage);
    Ok(found)
}

struct Pass<'a> {
    given: Given<'a>,
    found: Survey,
    ends: Ends,
}

impl Pass<'_> {
    /// Reads one segment and answers the sequence after it.
    fn segment(
        &mut self,
        number: u64,
        next: Option<u64>,
        expected: Option<u64>,
    ) -> Result<Option<u64>, SurveyError> {
        let file = self.given.segments.handle(number)?;
        let file = file.as_ref();
        let head = read_head(self.given, number, file)?;
        if self.given.trusts_footers
            && let Some(seal) = head.seal
            && self.sealed(number, file, seal)?
        {
            self.found.open_tail = None;
            return Ok(Some(seal.end_seq));
        }
        let bound = self.bound(number, next, head.seal)?;
        let nonce = head.header.map(|header| header.nonce);
        let mut scan = Scan::new(file, number, nonce)?;
        let before = self.ends.damage.len();
        let tail = scan.run(HEADER_BYTES, expected, bound, &mut |found| {
            self.on_found(number, found);
        })?;
        self.found.infos.insert(
            number,
            SegmentInfo {
                nonce: nonce.unwrap_or(0),
                file_bytes: file.len_bytes()?,
                groups_end: tail.end,
                first_seq: expected.unwrap_or(0),
                end_seq: tail.next_seq.unwrap_or(0),
                ends: self.found.memory.ends(number),
                damage: self.ends.damage.get(before..).unwrap_or_default().to_vec(),
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
    ) -> Result<Bound, SurveyError> {
        if let Some(seal) = seal {
            return Ok(Bound::Closed {
                end_seq: Some(seal.end_seq),
                end: Some(seal.groups_end),
            });
        }
        let end_seq = match (next, self.given.clean) {
            (Some(next), _) if next == number + 1 => self.first_seq(next)?,
            (None, Some(clean)) if clean.segment == number => {
                return Ok(Bound::Closed {
                    end_seq: Some(clean.next_seq),
                    end: Some(clean.end),
                });
            }
            (Some(_), _) | (None, Some(_)) => None,
            (None, None) => return Ok(Bound::Open),
        };
        Ok(Bound::Closed { end_seq, end: None })
    }

    /// Sequence of the first group of a segment.
    fn first_seq(&self, number: u64) -> Result<Option<u64>, SurveyError> {
        let file = self.given.segments.handle(number)?;
        let head = read_head(self.given, number, file.as_ref())?;
        if let Some(seal) = head.seal {
            return Ok(Some(seal.first_seq));
        }
        let nonce = head.header.map(|header| header.nonce);
        let first = Scan::new(file.as_ref(), number, nonce)?.first_group()?;
        Ok(first.map(|header| header.seq))
    }

    /// Takes a sealed segment from its footer; `false` when the footer is damaged.
    fn sealed(
        &mut self,
        number: u64,
        file: &dyn DiskFile,
        seal: Seal,
    ) -> Result<bool, SurveyError> {
        let is_in_tree = self.given.indexed.contains(&number);
        let (stored, extents) = if is_in_tree {
            (read_summary(file, &seal)?, Vec::new())
        } else {
            match read_footer(file, &seal)? {
                Some((stored, extents)) => (Some(stored), extents),
                None => (None, Vec::new()),
            }
        };
        let Some(stored) = stored else {
            tracing::warn!(
                segment = number,
                "the footer is damaged, reading the segment"
            );
            return Ok(false);
        };
        let is_indexed = match self.given.tree {
            Some(tree) if !is_in_tree => {
                feed(tree, &extents)?;
                true
            }
            Some(_) => true,
            None => {
                for (partition, place) in extents {
                    self.found.memory.insert(partition, place);
                }
                false
            }
        };
        for (partition, end) in &stored.summary.ends {
            self.ends.note_end(*partition, *end);
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
                ends: stored.summary.ends,
                damage: stored.summary.damage,
                seal: Some(seal),
                is_indexed,
                ..SegmentInfo::default()
            },
        );
        Ok(true)
    }

    fn on_found(&mut self, segment: u64, found: Found) {
        match found {
            Found::Group {
                header,
                position,
                bytes,
            } => self.on_group(segment, &header, position, &bytes),
            Found::Rot {
                position,
                bytes,
                is_bounded,
            } => self.on_rot(segment, position, &bytes, is_bounded),
        }
    }

    fn on_group(&mut self, segment: u64, header: &GroupHeader, position: u64, bytes: &Bytes) {
        if header.kind == GroupKind::Snapshot {
            self.found.newest_snapshot = Some((segment, position));
        }
        let mut at = GROUP_HEADER_BYTES;
        for _ in 0..header.entry_count {
            let Some((entry, next)) = Entry::read(bytes, at) else {
                tracing::error!(
                    segment,
                    position,
                    "a commit group has an entry of unknown kind"
                );
                self.note_flaw(segment, position + at as u64, FlawKind::Entry);
                return;
            };
            match entry {
                Entry::Extent {
                    partition,
                    is_copy,
                    at,
                    batches,
                } => {
                    let position = position + at as u64;
                    self.on_extent(segment, position, partition, is_copy, &batches);
                }
                Entry::State(state) => {
                    if let Some(state) = StoreState::decode(&state) {
                        self.ends.note_state(&state, false);
                    }
                }
                Entry::Row { .. } | Entry::Trim { .. } => {}
            }
            at = next;
        }
    }

    /// The group's checksum covers the batches, so their headers are enough.
    fn on_extent(
        &mut self,
        segment: u64,
        position: u64,
        partition: PartitionId,
        is_copy: bool,
        batches: &[u8],
    ) {
        let Some(extent) = measure(batches) else {
            tracing::error!(
                segment,
                position,
                "an extent holds something else than batches"
            );
            self.note_flaw(segment, position, FlawKind::Entry);
            return;
        };
        if !is_copy {
            self.ends
                .note_found(partition, extent.base_offset, extent.end_offset());
        }
        let place = Place {
            segment,
            position,
            extent,
        };
        self.found.memory.insert(partition, place);
    }

    fn note_flaw(&mut self, segment: u64, position: u64, kind: FlawKind) {
        self.found.flaws.push(Flaw {
            segment,
            position,
            kind,
        });
    }

    fn on_rot(&mut self, segment: u64, position: u64, bytes: &Bytes, is_bounded: bool) {
        tracing::error!(
            segment,
            position,
            bytes = bytes.len(),
            "the journal is damaged here, keeping what proves itself"
        );
        self.found.rows_damaged += 1;
        let bytes_lost = bytes.len() as u64;
        self.note_flaw(segment, position, FlawKind::Rot { bytes: bytes_lost });
        salvage(bytes, &mut |at, piece| match piece {
            Piece::Batch(partition, batch) => {
                let (base, end) = (batch.header.base_offset, batch.header.end_offset());
                if !self.ends.accepts(partition, base, is_bounded) {
                    return;
                }
                let Some(whole) = &batch.bytes else {
                    let range = base..end;
                    let damage = Damage { partition, range };
                    self.note_flaw(segment, position + at as u64, FlawKind::Batch(damage));
                    if is_bounded {
                        self.ends.note_lost(partition, base, end);
                    }
                    return;
                };
                if let Some(extent) = measure(whole) {
                    self.ends.note_found(partition, base, end);
                    let place = Place {
                        segment,
                        position: position + at as u64,
                        extent,
                    };
                    self.found.memory.insert(partition, place);
                }
            }
            Piece::State(state) if is_bounded => self.ends.note_state(&state, false),
            Piece::State(_) | Piece::Row { .. } | Piece::Trim(_) => {}
        });
    }
}

/// What an extent of whole batches amounts to; `None` when they are not dense.
fn measure(mut batches: &[u8]) -> Option<Extent> {
    let mut extent: Option<Extent> = None;
    while !batches.is_empty() {
        let header = BatchHeader::decode(batches).ok()?;
        let bytes = header.batch_bytes as usize;
        if bytes > batches.len() {
            return None;
        }
        batches.advance(bytes);
        let extent = extent.get_or_insert(Extent {
            base_offset: header.base_offset,
            record_count: 0,
            bytes: 0,
            max_timestamp_ms: i64::MIN,
            append_time_ms: i64::MIN,
        });
        if extent.end_offset() != header.base_offset || header.base_offset == Offset(u64::MAX) {
            return None;
        }
        extent.record_count = extent.record_count.checked_add(header.record_count)?;
        extent.bytes = extent.bytes.checked_add(header.batch_bytes)?;
        extent.max_timestamp_ms = extent.max_timestamp_ms.max(header.max_timestamp_ms);
        extent.append_time_ms = extent.append_time_ms.max(header.append_time_ms);
    }
    extent
}

fn feed(tree: &TreeIndex, extents: &[(PartitionId, Place)]) -> Result<(), SurveyError> {
    match catch_unwind(AssertUnwindSafe(|| tree.insert(extents))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(SurveyError::Tree(error.to_string())),
        Err(_) => Err(SurveyError::Tree("it panicked".to_owned())),
    }
}
