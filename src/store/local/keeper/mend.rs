//! Footers that cannot be used any more: their segments are read through, and get new ones.
//!
//! Promises: a footer that the device spoils under a running broker costs no record. Must not know: who found out.

use std::sync::PoisonError;

use super::Keeper;
use crate::store::local::OpenError;
use crate::store::local::journal::segment::Seal;
use crate::store::local::recovery::{Given, LastWord, Survey, check_footer, survey};
use crate::store::local::segments::SegmentInfo;

impl Keeper<'_> {
    /// Mends the footers that lookups could not use.
    pub(super) fn look_at_footers(&mut self) {
        let index = &self.shared.index;
        // Before it is known which segments sled has, nothing could be looked up elsewhere.
        if index.report().is_none() {
            return;
        }
        for segment in index.doubted() {
            let info = self.shared.segments.infos().get(&segment).cloned();
            if let Some(info) = info
                && let Some(seal) = info.seal
                && self.mend(segment, &seal)
                && info.is_indexed
            {
                self.index_again(segment, &info);
            }
            index.trust(segment);
        }
    }

    /// Takes a segment out of sled, whose rows do not fit to the footer. If that was read through, there are none.
    fn index_again(&mut self, segment: u64, before: &SegmentInfo) {
        {
            let mut infos = self.shared.segments.infos_mut();
            let Some(info) = infos.get_mut(&segment).filter(|info| info.is_indexed) else {
                return;
            };
            // ORDER: looked up by the footer before the rows go.
            info.is_by_footer = true;
            info.is_indexed = false;
        }
        self.shared.index.recount_footers();
        self.forget_rows(segment, before);
        self.shared.signal.wake();
    }

    /// Answers whether the footer can be used, or what it said is in memory.
    pub(super) fn mend(&mut self, segment: u64, seal: &Seal) -> bool {
        let file = self.shared.segments.handle(segment);
        let footer = file.and_then(|file| check_footer(file.as_ref(), seal));
        if matches!(footer, Ok(Some(_))) {
            return true;
        }
        if self.given_up.contains(&segment) {
            return false;
        }
        match self.read_through(segment) {
            Ok(found) => {
                tracing::warn!(segment, "a footer is damaged, it is made again");
                self.take_into_memory(segment, &found);
                true
            }
            Err(error) => {
                self.given_up.insert(segment);
                tracing::error!(
                    segment,
                    error = &error as &dyn std::error::Error,
                    "neither a segment nor its footer can be read"
                );
                false
            }
        }
    }

    fn read_through(&self, segment: u64) -> Result<Survey, OpenError> {
        let given = Given {
            segments: &self.shared.segments,
            journal_id: self.shared.identity.journal_id,
            last: LastWord {
                clean: None,
                synced: None,
            },
            trusts_footers: false,
            progress: None,
        };
        survey(given, &[segment])
    }

    /// From here on it is a segment that was never sealed.
    fn take_into_memory(&mut self, segment: u64, found: &Survey) {
        let index = &self.shared.index;
        {
            let memory = index.memory.write();
            let mut memory = memory.unwrap_or_else(PoisonError::into_inner);
            for (partition, place) in found.memory.of_segment(segment) {
                memory.insert(partition, place);
            }
        }
        let before = {
            let mut infos = self.shared.segments.infos_mut();
            let Some(info) = infos.get_mut(&segment) else {
                return;
            };
            let before = info.clone();
            // ORDER: memory first. Who looked there before, and finds no footer now, looks again.
            index.note_removal();
            info.seal = None;
            info.is_by_footer = false;
            info.is_indexed = false;
            info.shares = found.memory.shares(segment);
            info.damage.extend(found.damage.iter().cloned());
            before
        };
        index.recount_footers();
        if before.is_indexed {
            self.forget_rows(segment, &before);
        }
        for damage in &found.damage {
            self.shared.note_damage(damage);
        }
        self.shared.signal.wake();
    }
}
