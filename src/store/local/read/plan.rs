//! The extents that one read takes, looked up before the first byte of them is fetched.
//!
//! Promises to know where a read ends before it begins, wherever whole extents fit: then what follows can
//! be read at the same time. Must not know: files.

use std::collections::VecDeque;

use falcon_protocol::Offset;

use super::walk::Taker;
use crate::store::local::index::Place;
use crate::store::{Ahead, ReadError};

/// LIMIT: extents of one read.
const EXTENTS_MAX: usize = 1024;
/// Bytes between two extents that are worth fetching in vain.
const GAP_BYTES: u64 = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    places: VecDeque<Place>,
    /// All of them are taken, to their ends.
    ahead: Option<Ahead>,
    /// The extent after the offset wanted, where none contains it.
    pub(super) gap: Option<Place>,
}

impl Plan {
    /// What the taker takes next. `look` finds the extent that contains an offset, else the first after it.
    pub(super) fn of(
        taker: &Taker,
        look: impl Fn(Offset) -> Result<Option<Place>, ReadError>,
    ) -> Result<Self, ReadError> {
        let from = taker.next();
        let first = look(from)?;
        let Some(first) = first.filter(|place| place.contains(from)) else {
            return Ok(Self {
                places: VecDeque::new(),
                ahead: None,
                gap: first,
            });
        };
        let mut bytes = first.extent.bytes as usize;
        let mut end = first.extent.end_offset();
        let is_whole = bytes <= taker.bytes_left() && end <= taker.end();
        let mut places = VecDeque::from([first]);
        while is_whole && end < taker.end() && places.len() < EXTENTS_MAX {
            // What fails now fails again when it is wanted.
            let Ok(Some(next)) = look(end) else { break };
            let sum = bytes.saturating_add(next.extent.bytes as usize);
            let next_end = next.extent.end_offset();
            if !next.contains(end) || sum > taker.bytes_left() || next_end > taker.end() {
                break;
            }
            (bytes, end) = (sum, next_end);
            places.push_back(next);
        }
        let ahead = is_whole.then_some(Ahead { end, bytes });
        Ok(Self {
            places,
            ahead,
            gap: None,
        })
    }

    /// Where the read is going to end, if that is sure.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        self.ahead
    }

    /// Whether it is worth beginning behind what was taken: the start of an extent that does not fit would be
    /// read once more the next time.
    pub(super) fn fits(&self, taker: &Taker) -> bool {
        let first = self.places.front();
        first.is_some_and(|first| first.extent.bytes as usize <= taker.room())
    }

    /// The extent that contains the offset, if it is taken by this read.
    pub(super) fn place(&mut self, offset: Offset) -> Option<Place> {
        while let Some(place) = self.places.front() {
            if place.contains(offset) {
                return Some(*place);
            }
            self.places.pop_front();
        }
        None
    }

    /// Where those extents end that lie together with the one that is next.
    pub(super) fn span_end(&self) -> u64 {
        let mut places = self.places.iter();
        let Some(first) = places.next() else {
            return 0;
        };
        let mut end = place_end(first);
        for place in places {
            let gap = place.position.checked_sub(end);
            let is_near = gap.is_some_and(|gap| gap <= GAP_BYTES);
            if place.segment != first.segment || !is_near {
                break;
            }
            end = place_end(place);
        }
        end
    }
}

fn place_end(place: &Place) -> u64 {
    place.position.saturating_add(place.extent.bytes.into())
}
