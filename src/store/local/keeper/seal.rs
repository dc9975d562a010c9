//! Footers for finished segments, and their pages into sled.

use std::sync::{PoisonError, RwLockReadGuard};

use super::Keeper;
use crate::io::{DiskFile, IoError};
use crate::store::local::index::{MemoryIndex, Page, Paging, Place};
use crate::store::local::journal::footer::{EXTENT_BYTES, Summary, put_row};
use crate::store::local::journal::segment::{HEADER_BYTES, SEAL_POSITION, Seal};
use crate::store::local::recovery::visit_extents;
use crate::store::local::segments::SegmentInfo;
use falcon_protocol::PartitionId;

/// Extents of a footer that are written at once.
const PIECE_ROWS: usize = 4096;
/// A segment of which more than one byte in so many is unused is cut when it is sealed.
const UNUSED_SHARE: u64 = 8;

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Keeper<'_> {
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
                Ok((seal, file_bytes)) => {
                    if let Some(info) = self.shared.segments.infos_mut().get_mut(&segment) {
                        info.seal = Some(seal);
                        info.file_bytes = file_bytes;
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

    /// Answers how long the file is now, too.
    fn seal(&self, segment: u64, info: SegmentInfo) -> Result<(Seal, u64), IoError> {
        let summary = Summary {
            segment,
            nonce: info.nonce,
            shares: info.shares,
            damage: info.damage,
        };
        let extents = self.memory().count(segment) as u64;
        let summary_bytes = summary.encoded_bytes() as u64;
        let seal = Seal {
            segment,
            nonce: info.nonce,
            summary_bytes: u32::try_from(summary_bytes).unwrap_or(u32::MAX),
            groups_end: info.groups_end,
            footer_position: info.groups_end.next_multiple_of(HEADER_BYTES),
            footer_bytes: summary_bytes + extents * EXTENT_BYTES,
            first_seq: info.first_seq,
            end_seq: info.end_seq,
        };
        let end = seal.footer_position + seal.footer_bytes;
        let file = self.shared.segments.handle(segment)?;
        // ORDER: space first. Of a footer that does not fit nothing is left behind.
        if let Err(error) = file.reserve(info.file_bytes, end) {
            drop(file.set_len(info.file_bytes));
            return Err(error);
        }
        let crc =
            self.write_extents(segment, file.as_ref(), seal.footer_position + summary_bytes)?;
        file.write_at(seal.footer_position, &summary.encode(extents, crc))?;
        // ORDER: the footer is durable before the slot that points to it.
        file.sync_data()?;
        file.write_at(SEAL_POSITION, &seal.encode())?;
        file.sync_data()?;
        let file_bytes = info.file_bytes.max(end);
        let is_wasteful = file_bytes - end > file_bytes / UNUSED_SHARE;
        // ORDER: after the slot says where the segment ends.
        if is_wasteful && file.set_len(end).is_ok() {
            return Ok((seal, end));
        }
        Ok((seal, file_bytes))
    }

    fn memory(&self) -> RwLockReadGuard<'_, MemoryIndex> {
        let memory = self.shared.index.memory.read();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the extents of a segment in memory, a piece at a time: neither they are copied as a whole nor does the
    /// writer wait for long. Answers their checksum.
    fn write_extents(
        &self,
        segment: u64,
        file: &dyn DiskFile,
        mut position: u64,
    ) -> Result<u32, IoError> {
        let mut crc = crc32fast::Hasher::new();
        let mut piece = Vec::with_capacity(PIECE_ROWS * length(EXTENT_BYTES));
        let partitions = self.memory().partitions(segment);
        for partition in partitions {
            let mut from = 0;
            loop {
                let room = PIECE_ROWS - piece.len() / length(EXTENT_BYTES);
                let taken = {
                    let memory = self.memory();
                    let places = memory.some_of((segment, partition), from, room);
                    for place in places {
                        put_row(&mut piece, partition, place);
                    }
                    places.len()
                };
                from += taken;
                if taken < room {
                    break;
                }
                crc.update(&piece);
                file.write_at(position, &piece)?;
                position += piece.len() as u64;
                piece.clear();
            }
        }
        crc.update(&piece);
        file.write_at(position, &piece)?;
        Ok(crc.finalize())
    }

    /// Moves one sealed segment from memory or its footer into sled; without sled, from memory to
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
            due.find_map(|(segment, info)| Some((*segment, info.seal?)))
        };
        let Some((segment, seal)) = due else {
            return false;
        };
        if has_tree {
            let Some(pages) = self.pages_of(segment, &seal) else {
                self.unindexed.insert(segment);
                return true;
            };
            if !self.on_tree(|tree| tree.insert(&pages)) {
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

    /// The pages of a footer that is whole. It is read even where memory has the extents: they leave it for what
    /// the device has.
    fn pages_of(&self, segment: u64, seal: &Seal) -> Option<Vec<(PartitionId, Page)>> {
        let mut paging = Paging::default();
        let mut add = |partition, place: Place| paging.add(partition, &place);
        let file = self.shared.segments.handle(segment);
        let is_whole = file.and_then(|file| visit_extents(file.as_ref(), seal, &mut add));
        if is_whole.is_ok_and(|is_whole| is_whole) {
            return Some(paging.finish());
        }
        tracing::warn!(
            segment,
            "the footer cannot be read any more, the next start reads the segment"
        );
        None
    }
}
