//! Second pass: rows and batches, from the newest whole snapshot on.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use falcon_protocol::{BatchHeader, Offset, PartitionId};

use super::last_word::{LastWord, Proven};
use crate::io::IoError;
use crate::store::local::journal::group::{Entry, GROUP_HEADER_BYTES, GroupHeader, GroupKind};
use crate::store::local::journal::salvage::{Piece, salvage};
use crate::store::local::journal::scan::{Bound, Found, Scan};
use crate::store::local::journal::segment::HEADER_BYTES;
use crate::store::local::journal::state::{Bounds, StoreState};
use crate::store::local::segments::{SegmentInfo, Segments};
use crate::store::{Replay, Table};

/// What the second pass found.
#[derive(Debug, Default)]
pub(in crate::store::local) struct Replayed {
    pub(in crate::store::local) bounds: HashMap<PartitionId, Bounds>,
    pub(in crate::store::local) groups: u64,
    pub(in crate::store::local) batches: u64,
    pub(in crate::store::local) records: u64,
    /// Damaged stretches that were passed: rows may be missing that no later snapshot made good.
    pub(in crate::store::local) rows_damaged: u64,
    /// The segment with the snapshot that the pass began with.
    pub(in crate::store::local) snapshot_segment: u64,
}

/// Replays the journal that `infos` describe. `newest` is the newest whole snapshot known so far;
/// without one, the fronts of older segments are tried. `last` is what else is known of the end.
pub(in crate::store::local) fn replay(
    segments: &Segments,
    infos: &BTreeMap<u64, SegmentInfo>,
    newest: Option<(u64, u64)>,
    last: LastWord<'_>,
    to: &mut dyn Replay,
) -> Result<Replayed, IoError> {
    let start = match newest {
        Some(newest) => Some(newest),
        None => older_snapshot(segments, infos)?,
    };
    let mut pass = Pass {
        to,
        found: Replayed::default(),
        lost: BTreeMap::new(),
        proven: last.proven(),
    };
    if start.is_none() {
        // Every record is still known by the footers, only the rows are gone.
        for info in infos.values() {
            for (partition, share) in &info.shares {
                pass.raise(*partition, share.end);
            }
        }
        if !infos.is_empty() {
            tracing::error!("no whole snapshot of the tables was found, replaying all segments");
        }
    }
    let (first, mut position) = start.unwrap_or((0, HEADER_BYTES));
    pass.found.snapshot_segment = first;
    for (segment, info) in infos.range(first..) {
        let file = segments.handle(*segment)?;
        let nonce = (!info.is_header_damaged).then_some(info.nonce);
        let bound = Bound::Closed {
            end_seq: Some(info.end_seq),
            end: Some(info.groups_end),
        };
        let mut scan = Scan::new(file.as_ref(), *segment, nonce)?;
        scan.run(position, None, bound, &mut |found| {
            pass.on_found(*segment, found);
        });
        position = HEADER_BYTES;
    }
    if let Some(proven) = pass.proven.take() {
        pass.note_ends(proven.state);
    }
    pass.finish();
    Ok(pass.found)
}

/// The newest segment that begins with a whole snapshot.
fn older_snapshot(
    segments: &Segments,
    infos: &BTreeMap<u64, SegmentInfo>,
) -> Result<Option<(u64, u64)>, IoError> {
    for (segment, info) in infos.iter().rev() {
        let file = segments.handle(*segment)?;
        let nonce = (!info.is_header_damaged).then_some(info.nonce);
        let first = Scan::new(file.as_ref(), *segment, nonce)?.first_group();
        if first.is_some_and(|header| header.kind == GroupKind::Snapshot) {
            return Ok(Some((*segment, HEADER_BYTES)));
        }
    }
    Ok(None)
}

struct Pass<'a> {
    to: &'a mut dyn Replay,
    found: Replayed,
    /// Damaged batches at the end of their partition so far.
    lost: BTreeMap<PartitionId, BatchHeader>,
    /// Until what it speaks of was passed.
    proven: Option<Proven<'a>>,
}

impl Pass<'_> {
    fn raise(&mut self, partition: PartitionId, end: Offset) {
        let bounds = self.found.bounds.entry(partition).or_default();
        bounds.end = bounds.end.max(end);
    }

    fn on_found(&mut self, segment: u64, found: Found) {
        match found {
            Found::Group { header, bytes, .. } => self.on_group(&header, &bytes),
            Found::Rot {
                position,
                bytes,
                is_bounded,
            } => {
                self.found.rows_damaged += 1;
                salvage(&bytes, &mut |at, piece| {
                    let position = position + at as u64;
                    self.pass_proven(|proven| proven.is_before(segment, position));
                    self.on_piece(piece, is_bounded);
                });
            }
        }
    }

    /// ORDER: before what comes behind it is looked at, or its ends would take back what that adds.
    fn pass_proven(&mut self, is_passed: impl FnOnce(&Proven<'_>) -> bool) {
        let passed = self.proven.take_if(|proven| is_passed(proven));
        // Where the pass begins behind it, its partitions may be gone.
        if let Some(proven) = passed.filter(|_| self.found.groups > 0) {
            self.note_ends(proven.state);
        }
    }

    fn on_group(&mut self, header: &GroupHeader, bytes: &Bytes) {
        self.pass_proven(|proven| proven.next_seq <= header.seq);
        self.found.groups += 1;
        let mut at = GROUP_HEADER_BYTES;
        for _ in 0..header.entry_count {
            // The first pass has reported entries that cannot be read.
            let Some((entry, next)) = Entry::read(bytes, at) else {
                return;
            };
            match entry {
                Entry::Extent {
                    partition,
                    is_copy,
                    batches,
                    ..
                } => self.on_batches(partition, &batches, is_copy),
                Entry::Row { table, key, value } => self.on_row(table, &key, value.as_deref()),
                Entry::State(state) => {
                    let state = StoreState::decode(&state);
                    match (header.kind, state) {
                        (GroupKind::Snapshot, Some(state)) => self.on_state(&state),
                        // An idle mark: says only where partitions end.
                        (GroupKind::Commit, Some(state)) => self.note_ends(&state),
                        (_, None) => {}
                    }
                }
                Entry::Trim {
                    partition,
                    log_start,
                } => self.on_trim(partition, log_start),
            }
            at = next;
        }
    }

    /// Copies are of batches that the snapshot knows, unless a newer one was damaged and this pass
    /// began with an older: then nothing else may tell that their offsets are taken.
    fn on_batches(&mut self, partition: PartitionId, mut batches: &[u8], is_copy: bool) {
        while let Ok(header) = BatchHeader::decode(batches) {
            let known = self.found.bounds.get(&partition);
            let known = known.map_or(Offset::ZERO, |bounds| bounds.end);
            if !is_copy || header.base_offset >= known {
                self.on_batch(partition, &header);
            }
            batches = batches
                .get(header.batch_bytes as usize..)
                .unwrap_or_default();
        }
    }

    fn on_batch(&mut self, partition: PartitionId, header: &BatchHeader) {
        self.lost.remove(&partition);
        self.raise(partition, header.end_offset());
        self.found.batches += 1;
        self.found.records += u64::from(header.record_count);
        self.to.batch(partition, header);
    }

    fn on_row(&mut self, table: u8, key: &[u8], value: Option<&[u8]>) {
        if let Some(table) = Table::from_number(table) {
            self.to.row(table, key, value);
        } else {
            tracing::warn!(table, "a row of an unknown table was skipped");
        }
    }

    fn on_trim(&mut self, partition: PartitionId, log_start: Option<Offset>) {
        match log_start {
            None => drop(self.found.bounds.remove(&partition)),
            Some(start) => {
                let bounds = self.found.bounds.entry(partition).or_default();
                bounds.start = bounds.start.max(start);
            }
        }
    }

    /// A partition that is not in the state is gone.
    fn on_state(&mut self, state: &StoreState) {
        for (partition, bounds) in &state.partitions {
            self.settle_lost(*partition, bounds.end);
        }
        self.lost.clear();
        self.found.bounds = state.partitions.iter().copied().collect();
    }

    fn on_piece(&mut self, piece: Piece, is_bounded: bool) {
        match piece {
            Piece::Batch {
                partition, batch, ..
            } => {
                let known = self.found.bounds.get(&partition).map(|bounds| bounds.end);
                let is_new = known.map_or(is_bounded, |known| batch.header.base_offset >= known);
                match (is_new, &batch.bytes) {
                    (true, Some(_)) => self.on_batch(partition, &batch.header),
                    (true, None) if is_bounded => {
                        self.lost.insert(partition, batch.header);
                    }
                    (_, _) => {}
                }
            }
            Piece::Row { table, key, value } if is_bounded => {
                self.on_row(table, &key, value.as_deref());
            }
            Piece::Trim(Entry::Trim {
                partition,
                log_start,
            }) if is_bounded => self.on_trim(partition, log_start),
            Piece::Unstamped { partition, header } if is_bounded => {
                let before = self.lost.get(&partition).map(BatchHeader::end_offset);
                let known = self.found.bounds.get(&partition).map(|bounds| bounds.end);
                let base_offset = before.or(known).unwrap_or(Offset::ZERO);
                let header = BatchHeader {
                    base_offset,
                    ..header
                };
                self.lost.insert(partition, header);
            }
            Piece::State(state) if is_bounded => self.on_state(&state),
            Piece::Unstamped { .. } | Piece::Row { .. } | Piece::Trim(_) | Piece::State(_) => {}
        }
    }

    /// The partition is known to end at `end`, so a damaged batch before can be trusted if it ends there too.
    fn settle_lost(&mut self, partition: PartitionId, end: Offset) {
        if let Some(header) = self.lost.remove(&partition)
            && header.end_offset() == end
        {
            self.on_batch(partition, &header);
        }
    }

    /// A damaged batch that nothing follows still took its offsets, as many as it says.
    fn finish(&mut self) {
        for (partition, header) in std::mem::take(&mut self.lost) {
            self.raise(partition, header.end_offset());
            self.to.batch(partition, &header);
        }
    }

    /// A tail that is lost without a trace took its offsets too: others must never get them.
    fn note_ends(&mut self, last: &StoreState) {
        for (partition, bounds) in &last.partitions {
            self.settle_lost(*partition, bounds.end);
            let known = self.found.bounds.entry(*partition).or_default();
            known.start = known.start.max(bounds.start);
            if known.end < bounds.end {
                known.end = bounds.end;
                self.to.end(*partition, bounds.end);
            }
        }
    }
}
