//! Footers for finished segments, and their extents into sled.

use std::sync::PoisonError;

use super::Keeper;
use crate::io::IoError;
use crate::store::local::index::Place;
use crate::store::local::journal::footer::{self, Summary};
use crate::store::local::journal::segment::{HEADER_BYTES, SEAL_POSITION, Seal};
use crate::store::local::segments::SegmentInfo;
use falcon_protocol::PartitionId;

impl Keeper<'_> {
    fn extents_in_memory(&self, segment: u64) -> Vec<(PartitionId, Place)> {
        let memory = self.shared.index.memory.read();
        memory
            .unwrap_or_else(PoisonError::into_inner)
            .of_segment(segment)
    }

    /// Seals every segment that gets no more groups.
    pub(super) fn seal_all(&mut self) {
        let due: Vec<(u64, SegmentInfo)> = self
            .shared
            .segments
            .infos()
            .iter()
            .filter(|(_, info)| !info.is_active && info.seal.is_none() && !info.is_header_damaged)
            .map(|(segment, info)| (*segment, info.clone()))
            .collect();
        for (segment, info) in due {
            if self.given_up.contains(&segment) {
                continue;
            }
            match self.seal(segment, info) {
                Ok(seal) => {
                    if let Some(info) = self.shared.segments.infos_mut().get_mut(&segment) {
                        info.seal = Some(seal);
                        info.file_bytes = info
                            .file_bytes
                            .max(seal.footer_position + seal.footer_bytes);
                    }
                }
                // The next time there may be space.
                Err(error) if error.is_full() && !self.waiting.insert(segment) => {}
                Err(error) => {
                    tracing::warn!(
                        segment,
                        error = &error as &dyn std::error::Error,
                        "the segment stays without a footer for now, a start reads all of it"
                    );
                    if !error.is_full() {
                        self.given_up.insert(segment);
                    }
                }
            }
        }
    }

    fn seal(&self, segment: u64, info: SegmentInfo) -> Result<Seal, IoError> {
        let extents = self.extents_in_memory(segment);
        let summary = Summary {
            segment,
            nonce: info.nonce,
            shares: info.shares,
            damage: info.damage,
        };
        let (footer, summary_bytes) = footer::encode(&summary, &extents);
        let seal = Seal {
            segment,
            nonce: info.nonce,
            summary_bytes: u32::try_from(summary_bytes).unwrap_or(u32::MAX),
            groups_end: info.groups_end,
            footer_position: info.groups_end.next_multiple_of(HEADER_BYTES),
            footer_bytes: footer.len() as u64,
            first_seq: info.first_seq,
            end_seq: info.end_seq,
        };
        let file = self.shared.segments.handle(segment)?;
        // ORDER: space first. Of a footer that does not fit nothing is left behind.
        if let Err(error) = file.reserve(info.file_bytes, seal.footer_position + seal.footer_bytes)
        {
            drop(file.set_len(info.file_bytes));
            return Err(error);
        }
        file.write_at(seal.footer_position, &footer)?;
        // ORDER: the footer is durable before the slot that points to it.
        file.sync_data()?;
        file.write_at(SEAL_POSITION, &seal.encode())?;
        file.sync_data()?;
        Ok(seal)
    }

    /// Moves the extents of sealed segments from memory into sled.
    pub(super) fn index_all(&mut self) {
        let due: Vec<u64> = self
            .shared
            .segments
            .infos()
            .iter()
            .filter(|(_, info)| info.seal.is_some() && !info.is_indexed)
            .map(|(segment, _)| *segment)
            .collect();
        for segment in due {
            let extents = self.extents_in_memory(segment);
            if !self.on_tree(|tree| tree.insert(&extents)) {
                return;
            }
            if let Some(info) = self.shared.segments.infos_mut().get_mut(&segment) {
                info.is_indexed = true;
            }
            self.shared.index.remove_from_memory(segment);
        }
    }
}
