//! A partition's batches in the order of their offsets, and what is missing between them.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use falcon_protocol::{Batch, Offset, PartitionId};

use super::{Finding, FindingKind, Inspection};
use crate::store::Damage;
use crate::store::local::OpenError;
use crate::store::local::index::Place;
use crate::store::local::journal::salvage::find_batches;
use crate::store::local::recovery::FlawKind;

impl Inspection {
    /// Visits every whole batch with records in `range`, and answers one finding for each stretch
    /// of offsets that no whole batch has. A visitor that breaks ends the reading.
    pub fn read(
        &self,
        partition: PartitionId,
        range: Range<Offset>,
        visit: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<Vec<Finding>, OpenError> {
        let mut walk = Walk {
            inspection: self,
            partition,
            end: range.end,
            next: range.start,
            previous: None,
            found: Vec::new(),
        };
        while walk.next < range.end {
            let place = self.memory.first_from(partition, walk.next);
            let place = place.filter(|place| place.extent.base_offset < range.end);
            let Some(place) = place else {
                walk.lose(range.end, None, None);
                break;
            };
            if walk.extent(&place, visit)?.is_break() {
                break;
            }
        }
        Ok(walk.found)
    }
}

struct Walk<'a> {
    inspection: &'a Inspection,
    partition: PartitionId,
    end: Offset,
    next: Offset,
    previous: Option<Place>,
    found: Vec<Finding>,
}

impl Walk<'_> {
    fn extent(
        &mut self,
        place: &Place,
        visit: &mut dyn FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, OpenError> {
        self.lose(place.extent.base_offset, Some(place), None);
        let file = self.inspection.segments.handle(place.segment)?;
        // LIMIT: an extent was measured over bytes that are in the file.
        let left = file.len_bytes()?.saturating_sub(place.position);
        let bytes = u64::from(place.extent.bytes).min(left);
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let read = file.read_at(place.position, &mut buffer)?;
        buffer.truncate(read);
        let mut position = place.position;
        for batch in find_batches(self.partition, &Bytes::from(buffer)) {
            let at = batch.at;
            let whole = batch.bytes.and_then(|bytes| Batch::from_bytes(bytes).ok());
            let Some(batch) = whole.filter(|batch| batch.check_records().is_ok()) else {
                continue;
            };
            let header = *batch.header();
            let after = place.position + (at + batch.bytes().len()) as u64;
            let before = std::mem::replace(&mut position, after);
            if header.end_offset() <= self.next || header.base_offset >= self.end {
                continue;
            }
            self.lose(header.base_offset, Some(place), Some(before));
            if visit(batch).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.next = header.end_offset();
        }
        self.lose(place.extent.end_offset(), Some(place), Some(position));
        self.previous = Some(*place);
        Ok(ControlFlow::Continue(()))
    }

    /// No whole batch has the records from the next one due up to `to`. They are in `place` at
    /// `position`, or before it when there is none.
    fn lose(&mut self, to: Offset, place: Option<&Place>, position: Option<u64>) {
        let to = to.min(self.end);
        if self.next >= to {
            return;
        }
        let lost = Damage {
            partition: self.partition,
            range: self.next..to,
        };
        let finding = match (place, position) {
            (Some(place), Some(position)) => {
                let path = self.inspection.segments.path(place.segment);
                let finding = self.inspection.finding(&path, FindingKind::Records);
                finding.at(position)
            }
            (_, _) => self.inspection.where_lost(&lost, self.previous, place),
        };
        self.found.push(finding.losing(lost));
        self.next = to;
    }
}

impl Inspection {
    /// Names the place of records that are in no extent, between two that are.
    fn where_lost(&self, lost: &Damage, before: Option<Place>, after: Option<&Place>) -> Finding {
        let from = before.map_or((0, 0), |place| (place.segment, place.position));
        let to = after.map_or((u64::MAX, u64::MAX), |place| {
            (place.segment, place.position)
        });
        let between = |segment: u64, position: u64| (from..to).contains(&(segment, position));
        let overlaps = |damage: &Damage| {
            damage.partition == lost.partition
                && damage.range.start < lost.range.end
                && lost.range.start < damage.range.end
        };
        let batch = self
            .flaws
            .iter()
            .find(|flaw| matches!(&flaw.kind, FlawKind::Batch(damage) if overlaps(damage)));
        let flaw = batch.or_else(|| {
            let is_rot = |kind: &FlawKind| !matches!(kind, FlawKind::Batch(_));
            let mut flaws = self.flaws.iter();
            flaws.find(|flaw| is_rot(&flaw.kind) && between(flaw.segment, flaw.position))
        });
        if let Some(flaw) = flaw {
            let path = self.segments.path(flaw.segment);
            return self.finding(&path, FindingKind::Records).at(flaw.position);
        }
        let known = self.missing.iter().copied().find(|n| between(*n, 0));
        let last = after.map_or_else(|| self.last_segment() + 1, |place| place.segment);
        let unknown = || {
            let is_gone = |number: &u64| !self.infos.contains_key(number);
            match before {
                Some(place) => (place.segment + 1..last).find(is_gone),
                None => (1..last).rev().find(is_gone),
            }
        };
        if let Some(number) = known.or_else(unknown) {
            let path = self.segments.path(number);
            return self.finding(&path, FindingKind::SegmentMissing);
        }
        let path = self.segments.path(last.saturating_sub(1).max(1));
        self.finding(&path, FindingKind::Records)
    }

    fn last_segment(&self) -> u64 {
        let last = self.infos.keys().next_back().copied();
        last.unwrap_or(0)
    }
}
