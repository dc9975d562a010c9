//! Footers for finished segments, and their extents into sled.

use std::sync::PoisonError;

use super::Keeper;
use crate::io::IoError;
use crate::store::local::index::Place;
use crate::store::local::journal::footer::{self, Summary};
use crate::store::local::journal::segment::{HEADER_BYTES, SEAL_POSITION, Seal};
use crate::store::local::recovery::read_footer;
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

    /// Moves the extents of one sealed segment from memory or its footer into sled; without sled, from memory to
    /// its footer. Answers whether there may be another.
    pub(super) fn index_next(&mut self) -> bool {
        let shared = self.shared;
        if shared.index.report().is_none() {
            return false;
        }
        let has_tree = shared.index.tree().is_some() && !self.is_tree_broken;
        let due = {
            let infos = shared.segments.infos();
            let is_due = |(segment, info): &(&u64, &SegmentInfo)| {
                let is_done = info.is_indexed || (info.is_by_footer && !has_tree);
                !is_done && !self.unindexed.contains(segment)
            };
            let mut due = infos.iter().filter(is_due);
            due.find_map(|(segment, info)| Some((*segment, info.seal?, info.is_by_footer)))
        };
        let Some((segment, seal, is_by_footer)) = due else {
            return false;
        };
        if has_tree {
            let extents = if is_by_footer {
                self.extents_in_footer(segment, &seal)
            } else {
                Some(self.extents_in_memory(segment))
            };
            let Some(extents) = extents else {
                self.unindexed.insert(segment);
                return true;
            };
            if !self.on_tree(|tree| tree.insert(&extents)) {
                return true;
            }
        }
        if let Some(info) = shared.segments.infos_mut().get_mut(&segment) {
            info.is_indexed = has_tree;
            info.is_by_footer = !has_tree;
        }
        shared.index.recount_footers();
        shared.index.remove_from_memory(segment);
        true
    }

    fn extents_in_footer(&self, segment: u64, seal: &Seal) -> Option<Vec<(PartitionId, Place)>> {
        let file = self.shared.segments.handle(segment);
        let footer = file.and_then(|file| read_footer(file.as_ref(), seal));
        if let Ok(Some((_, extents))) = footer {
            return Some(extents);
        }
        tracing::warn!(
            segment,
            "the footer cannot be read any more, the next start reads the segment"
        );
        None
    }
}
