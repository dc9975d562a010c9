//! What the broker before left word of, besides the journal itself.

use std::collections::BTreeMap;

use crate::io::IoError;
use crate::store::local::identity::CleanMarker;
use crate::store::local::journal::scan::{Bound, Scan};
use crate::store::local::journal::state::StoreState;
use crate::store::local::segments::{SegmentInfo, Segments};
use crate::store::local::synced::SyncedMark;

/// The clean-stop marker says where the journal ended; the mark of the last sync where it ended at
/// least. The former is the stronger.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store::local) struct LastWord<'a> {
    pub(in crate::store::local) clean: Option<&'a CleanMarker>,
    pub(in crate::store::local) synced: Option<&'a SyncedMark>,
}

/// Bounds of partitions, exact once every group below `next_seq` was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proven<'a> {
    pub(super) next_seq: u64,
    /// Segment and position where these groups end.
    end: (u64, u64),
    pub(super) state: &'a StoreState,
}

impl Proven<'_> {
    /// Whether what is at this position came later. Rot has no sequence to tell by.
    pub(super) fn is_before(&self, segment: u64, position: u64) -> bool {
        self.end <= (segment, position)
    }
}

impl<'a> LastWord<'a> {
    /// The strongest word, if there is any.
    pub(super) fn proven(self) -> Option<Proven<'a>> {
        let clean = self.clean.map(|clean| Proven {
            next_seq: clean.next_seq,
            end: (clean.segment, clean.end),
            state: &clean.state,
        });
        let synced = self.synced.map(|synced| Proven {
            next_seq: synced.next_seq,
            end: (synced.segment, synced.end),
            state: &synced.state,
        });
        clean.or(synced)
    }

    /// Every group below it was durable.
    pub(super) fn durable_seq(self) -> u64 {
        self.proven().map_or(0, |proven| proven.next_seq)
    }

    /// The segment that was written to last.
    pub(in crate::store::local) fn newest_segment(self) -> Option<u64> {
        self.proven().map(|proven| proven.end.0)
    }

    /// What is known about the end of the last segment that is there.
    pub(super) fn bound(self, segment: u64) -> Bound {
        let unknown = Bound::Closed {
            end_seq: None,
            end: None,
        };
        match (self.clean, self.synced) {
            (Some(clean), _) if clean.segment == segment => Bound::Closed {
                end_seq: Some(clean.next_seq),
                end: Some(clean.end),
            },
            (Some(_), _) => unknown,
            (None, Some(synced)) if synced.segment > segment => unknown,
            (None, Some(synced)) if synced.segment == segment => Bound::Open {
                durable: Some((synced.next_seq, synced.end)),
            },
            (None, _) => Bound::Open { durable: None },
        }
    }
}

/// Whether a group follows where the journal ended at a clean stop: then the marker came back from the
/// dead, because its removal was lost or somebody restored it.
pub(in crate::store::local) fn is_outlived(
    clean: &CleanMarker,
    segments: &Segments,
    numbers: &[u64],
) -> Result<bool, IoError> {
    let later = numbers.iter().any(|number| *number > clean.segment);
    if later || !numbers.contains(&clean.segment) {
        return Ok(later);
    }
    let file = segments.handle(clean.segment)?;
    let next = Scan::new(file.as_ref(), clean.segment, None)?.header_of(clean.end);
    Ok(next.is_some_and(|header| header.seq == clean.next_seq))
}

/// Segments that must be there and are not.
pub(in crate::store::local) fn missing(
    last: LastWord<'_>,
    infos: &BTreeMap<u64, SegmentInfo>,
) -> Vec<u64> {
    let mut listed = match (last.clean, last.synced) {
        (Some(clean), _) => clean.state.segments.clone(),
        (None, Some(synced)) if infos.keys().all(|number| *number < synced.segment) => {
            vec![synced.segment]
        }
        (None, _) => Vec::new(),
    };
    listed.retain(|number| !infos.contains_key(number));
    listed
}
