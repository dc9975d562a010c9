//! What the first pass makes of groups and of rot.

use bytes::{Buf, Bytes};
use falcon_protocol::{BatchHeader, Offset, PartitionId};

use super::{Flaw, FlawKind, Pass, Proven};
use crate::store::local::index::Place;
use crate::store::local::journal::group::{Entry, GROUP_HEADER_BYTES, GroupHeader, GroupKind};
use crate::store::local::journal::salvage::{FoundBatch, Piece, salvage};
use crate::store::local::journal::scan::Found;
use crate::store::local::journal::state::StoreState;
use crate::store::{Damage, Extent};

impl Pass<'_> {
    pub(super) fn on_found(&mut self, segment: u64, found: Found) {
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
        self.pass_proven(|proven| proven.next_seq <= header.seq);
        self.is_linked = true;
        if header.kind == GroupKind::Snapshot {
            self.found.newest_snapshot = Some((segment, position));
        }
        let unproven = &mut self.found.unproven;
        while unproven
            .front()
            .is_some_and(|(seq, _)| *seq < header.synced_seq)
        {
            unproven.pop_front();
        }
        // Of a mark, too, so that a start after a kill has little to write.
        if self.given.last.durable_seq() <= header.seq {
            unproven.push_back((header.seq, position));
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
        if is_copy {
            self.ends.note_copied(partition, extent.end_offset());
        } else {
            self.ends
                .note_found(partition, extent.base_offset, extent.end_offset());
        }
        let place = Place {
            segment,
            position,
            extent,
            is_copy,
        };
        self.found.memory.insert(partition, place);
    }

    fn on_rot(&mut self, segment: u64, position: u64, bytes: &Bytes, is_bounded: bool) {
        tracing::error!(
            segment,
            position,
            bytes = bytes.len(),
            "the journal is damaged here, keeping what proves itself"
        );
        let bytes_lost = bytes.len() as u64;
        self.note_flaw(segment, position, FlawKind::Rot { bytes: bytes_lost });
        salvage(bytes, &mut |at, piece| {
            let position = position + at as u64;
            self.pass_proven(|proven| proven.is_before(segment, position));
            self.on_piece(segment, position, piece, is_bounded);
        });
    }

    fn on_piece(&mut self, segment: u64, position: u64, piece: Piece, is_bounded: bool) {
        match piece {
            Piece::Batch {
                partition,
                batch,
                is_copy,
            } => {
                let (base, end) = (batch.header.base_offset, batch.header.end_offset());
                if is_copy {
                    if is_bounded {
                        self.on_salvaged_copy(segment, position, partition, &batch);
                    }
                    return;
                }
                if !self.ends.accepts(partition, base, is_bounded) {
                    return;
                }
                let Some(whole) = &batch.bytes else {
                    let range = base..end;
                    let damage = Damage { partition, range };
                    self.note_flaw(segment, position, FlawKind::Batch(damage));
                    if is_bounded {
                        self.ends.note_lost(partition, base, end);
                    }
                    return;
                };
                if let Some(extent) = measure(whole) {
                    self.ends.note_found(partition, base, end);
                    let place = Place {
                        segment,
                        position,
                        extent,
                        is_copy,
                    };
                    self.found.memory.insert(partition, place);
                }
            }
            Piece::Unstamped { partition, header } if is_bounded => {
                let base = self.ends.known(partition).unwrap_or(Offset::ZERO);
                let end = base.advance(u64::from(header.record_count));
                self.ends.note_lost(partition, base, end);
            }
            Piece::State(state) if is_bounded => self.ends.note_state(&state, false),
            Piece::Unstamped { .. } | Piece::State(_) | Piece::Row { .. } | Piece::Trim(_) => {}
        }
    }
}

impl Pass<'_> {
    /// ORDER: before what comes behind it is looked at, or its ends would take back what that adds.
    fn pass_proven(&mut self, is_passed: impl FnOnce(&Proven<'_>) -> bool) {
        let passed = self.proven.take_if(|proven| is_passed(proven));
        // Where nothing before it was seen, it is from a time before segments that were reclaimed since.
        if let Some(proven) = passed.filter(|_| self.is_linked) {
            self.ends.note_state(proven.state, true);
        }
    }

    fn note_flaw(&mut self, segment: u64, position: u64, kind: FlawKind) {
        self.found.flaws.push(Flaw {
            segment,
            position,
            kind,
        });
    }

    fn on_salvaged_copy(
        &mut self,
        segment: u64,
        position: u64,
        partition: PartitionId,
        batch: &FoundBatch,
    ) {
        let (base, end) = (batch.header.base_offset, batch.header.end_offset());
        self.ends.note_copied(partition, end);
        let extent = batch.bytes.as_ref().and_then(|whole| measure(whole));
        let Some(extent) = extent else {
            self.lost_copies.push(Damage {
                partition,
                range: base..end,
            });
            return;
        };
        let place = Place {
            segment,
            position,
            extent,
            is_copy: true,
        };
        self.found.memory.insert(partition, place);
    }

    pub(super) fn damage_since(&self, (originals, copies): (usize, usize)) -> Vec<Damage> {
        let mut damage = self
            .ends
            .damage
            .get(originals..)
            .unwrap_or_default()
            .to_vec();
        damage.extend_from_slice(self.lost_copies.get(copies..).unwrap_or_default());
        damage
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
