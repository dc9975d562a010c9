//! Offsets are dense: what is missing between two batches was lost.

use std::collections::HashMap;

use falcon_protocol::{Offset, PartitionId};

use crate::store::Damage;
use crate::store::local::journal::state::StoreState;

/// Where each partition ended so far, and what was missing on the way.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Forgotten where a segment is missing, which may have been reclaimed lawfully.
    known: HashMap<PartitionId, Offset>,
    /// Never forgotten.
    highest: HashMap<PartitionId, Offset>,
    pub(super) damage: Vec<Damage>,
    /// No segment was missing since the first one ever.
    is_from_start: bool,
}

impl Ends {
    pub(super) fn new() -> Self {
        Self {
            is_from_start: true,
            ..Self::default()
        }
    }

    pub(super) fn known(&self, partition: PartitionId) -> Option<Offset> {
        self.known.get(&partition).copied()
    }

    /// A segment is missing here.
    pub(super) fn forget(&mut self) {
        self.is_from_start = false;
        self.known.clear();
    }

    fn raise(&mut self, partition: PartitionId, end: Offset) {
        for ends in [&mut self.known, &mut self.highest] {
            let known = ends.entry(partition).or_insert(end);
            *known = end.max(*known);
        }
    }

    /// A footer says where a partition ends; its own damage list covers what is before.
    pub(super) fn note_end(&mut self, partition: PartitionId, end: Offset) {
        self.raise(partition, end);
    }

    /// A copy shows how far a partition went at least. It says nothing about what comes next here.
    pub(super) fn note_copied(&mut self, partition: PartitionId, end: Offset) {
        let highest = self.highest.entry(partition).or_insert(end);
        *highest = end.max(*highest);
    }

    fn lose(&mut self, partition: PartitionId, from: Offset, to: Offset) {
        if from >= to {
            return;
        }
        let last = self
            .damage
            .iter_mut()
            .rfind(|damage| damage.partition == partition);
        match last {
            Some(last) if last.range.end >= from => last.range.end = last.range.end.max(to),
            _ => self.damage.push(Damage {
                partition,
                range: from..to,
            }),
        }
    }

    /// Records `base..end` are there.
    pub(super) fn note_found(&mut self, partition: PartitionId, base: Offset, end: Offset) {
        match self.known(partition) {
            Some(known) if base > known => self.lose(partition, known, base),
            None if self.is_from_start => self.lose(partition, Offset::ZERO, base),
            Some(_) | None => self.find_again(partition, base),
        }
        self.raise(partition, end);
    }

    /// A damaged batch announced more records than it can have had: its stamp binds its offset, not
    /// their number.
    fn find_again(&mut self, partition: PartitionId, base: Offset) {
        let ours = |damage: &&mut Damage| damage.partition == partition;
        if let Some(last) = self.damage.iter_mut().rfind(ours)
            && last.range.contains(&base)
        {
            last.range.end = base;
            for ends in [&mut self.known, &mut self.highest] {
                ends.insert(partition, base);
            }
        }
        self.damage.retain(|damage| !damage.range.is_empty());
    }

    /// Records `base..end` were there and are damaged.
    pub(super) fn note_lost(&mut self, partition: PartitionId, base: Offset, end: Offset) {
        let from = self.known(partition).unwrap_or(base).min(base);
        let from = from.max(self.known(partition).unwrap_or(from));
        self.lose(partition, from, end);
        self.raise(partition, end);
    }

    /// Whether a batch found in a damaged stretch belongs there and not to an earlier life.
    pub(super) fn accepts(&self, partition: PartitionId, base: Offset, is_bounded: bool) -> bool {
        let is_in_damage = self
            .damage
            .iter()
            .any(|damage| damage.partition == partition && damage.range.contains(&base));
        match self.known(partition) {
            Some(known) => base >= known || is_in_damage,
            None => is_bounded,
        }
    }

    /// What the partitions were when the state was written. The clean-stop marker is the last
    /// thing ever written; a snapshot's log starts may be older than a segment's removal.
    pub(super) fn note_state(&mut self, state: &StoreState, is_clean_marker: bool) {
        for (partition, bounds) in &state.partitions {
            let known = match self.known(*partition) {
                None if is_clean_marker => self.highest.get(partition).copied(),
                known => known,
            };
            if known.is_some_and(|known| known > bounds.end) {
                self.find_again(*partition, bounds.end);
            }
            let is_exact = known.is_some() || is_clean_marker || self.is_from_start;
            let from = known.unwrap_or(bounds.start).max(bounds.start);
            if is_exact {
                self.lose(*partition, from, bounds.end);
            }
            self.raise(*partition, bounds.end);
        }
    }
}
