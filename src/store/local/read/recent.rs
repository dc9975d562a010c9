//! What was just read from the device, for others that want the same.
//!
//! Owns at most the configured bytes of pieces that were read and checked, and who is reading which one now. Promises:
//! of those who want a piece at the same time one reads it and the others wait for that; a piece stays only while
//! several readers are in the same place, so who reads a log through alone costs nobody memory; what is found was
//! checked as it was read, in the partition and at the offsets of its extent. Must not know: batches, offsets.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Instant;
use crate::store::local::cache::{Memory, Part};
use crate::store::local::index::Place;

/// LIMIT: extents of which it is known that they were read lately.
const SEEN_MAX: usize = 64;
/// Pieces that stay after somebody wanted what another had read.
const KEPT_PIECES: u32 = 64;
/// How long pieces stay when nobody reads any more.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Where an extent is.
type At = (u64, u64);

/// A piece that was read.
#[derive(Debug)]
struct Piece {
    segment: u64,
    /// Of the first byte.
    position: u64,
    bytes: Bytes,
    /// Those of its extents that were checked, and their bytes.
    extents: Vec<(u64, u32)>,
    since: Instant,
}

impl Piece {
    fn has(&self, place: &Place) -> bool {
        let extent = (place.position, place.extent.bytes);
        self.segment == place.segment && self.extents.contains(&extent)
    }
}

/// Somebody reads this.
#[derive(Debug)]
struct Claimed {
    number: u64,
    segment: u64,
    range: Range<u64>,
    /// Somebody else waits for it.
    is_wanted: bool,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    claims: Vec<Claimed>,
    /// The last extents that were read.
    seen: VecDeque<At>,
    /// So many pieces more shall stay.
    keep: u32,
    pieces: VecDeque<Piece>,
    memory: Memory,
}

/// See the module.
#[derive(Debug)]
pub(in crate::store::local) struct Recent {
    bytes_max: usize,
    state: Mutex<State>,
    read: Condvar,
    /// Bytes of the pieces, which the tail cache goes without.
    lent_bytes: Arc<AtomicUsize>,
}

/// What a reader does about an extent that is not in memory.
pub(super) enum Turn<'a> {
    /// Somebody has just read it.
    Kept(Part),
    /// It reads it itself, and what lies behind.
    First(Claim<'a>),
}

/// The right to read; others wait until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    of: &'a Recent,
    number: u64,
}

impl Recent {
    /// Takes at most `bytes_max` from the tail cache, which hears how many it goes without.
    pub(in crate::store::local) fn new(bytes_max: usize, lent_bytes: &Arc<AtomicUsize>) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
            read: Condvar::new(),
            lent_bytes: Arc::clone(lent_bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of an extent, if they were just read. Never waits for a reader.
    pub(super) fn find(&self, place: &Place) -> Option<Part> {
        if self.lent_bytes.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lock().find(place, self.bytes_max)
    }

    /// Waits while somebody else reads the extent; answers what he read, or the right to read up to `end`.
    pub(super) fn turn(&self, place: &Place, end: u64) -> Turn<'_> {
        let mut state = self.lock();
        loop {
            if let Some(part) = state.find(place, self.bytes_max) {
                return Turn::Kept(part);
            }
            let last = place.position + u64::from(place.extent.bytes);
            let mut claims = state.claims.iter_mut();
            let claim = claims.find(|claim| {
                let has_all = claim.range.start <= place.position && last <= claim.range.end;
                claim.segment == place.segment && has_all
            });
            let Some(claim) = claim else { break };
            claim.is_wanted = true;
            let number = claim.number;
            state = self
                .read
                .wait_while(state, |state| state.is_claimed(number))
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.seen.contains(&(place.segment, place.position)) {
            state.keep = KEPT_PIECES;
        }
        state.number += 1;
        let number = state.number;
        state.claims.push(Claimed {
            number,
            segment: place.segment,
            range: place.position..end,
            is_wanted: false,
        });
        drop(state);
        Turn::First(Claim { of: self, number })
    }

    /// Lets pieces go that nobody came for.
    pub(in crate::store::local) fn expire(&self) {
        if self.lent_bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.lock();
        let is_old = |piece: &Piece| piece.since.elapsed() > KEPT_FOR;
        while state.pieces.front().is_some_and(is_old) {
            state.drop_oldest();
        }
        self.note(&state);
    }

    fn note(&self, state: &State) {
        let held = state.memory.held_bytes();
        self.lent_bytes.store(held, Ordering::Relaxed);
    }
}

impl Claim<'_> {
    /// Takes what was read from `position` of a segment on, with the extents that were checked, if somebody else wants
    /// it. Answers whether it was taken.
    pub(super) fn share(
        &self,
        (segment, position): At,
        bytes: &Bytes,
        extents: Vec<(u64, u32)>,
    ) -> bool {
        let recent = self.of;
        let mut state = recent.lock();
        let mut claims = state.claims.iter();
        let claim = claims.find(|claim| claim.number == self.number);
        let is_wanted = claim.is_some_and(|claim| claim.is_wanted);
        if is_wanted {
            state.keep = KEPT_PIECES;
        }
        for (at, _) in &extents {
            state.see((segment, *at));
        }
        if state.keep == 0 || extents.is_empty() || bytes.len() > recent.bytes_max {
            return false;
        }
        state.keep -= 1;
        let piece = Piece {
            segment,
            position,
            bytes: state.memory.hold(bytes.clone()),
            extents,
            since: Instant::now(),
        };
        state.pieces.push_back(piece);
        while state.memory.held_bytes() > recent.bytes_max {
            state.drop_oldest();
        }
        recent.note(&state);
        true
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        let mine = state.claims.iter();
        let is_wanted = mine
            .filter(|claim| claim.number == self.number)
            .any(|claim| claim.is_wanted);
        state.claims.retain(|claim| claim.number != self.number);
        drop(state);
        if is_wanted {
            self.of.read.notify_all();
        }
    }
}

impl State {
    fn is_claimed(&self, number: u64) -> bool {
        self.claims.iter().any(|claim| claim.number == number)
    }

    fn find(&mut self, place: &Place, bytes_max: usize) -> Option<Part> {
        let piece = self.pieces.iter().rfind(|piece| piece.has(place))?;
        let from = usize::try_from(place.position.checked_sub(piece.position)?).ok()?;
        let to = from.checked_add(usize::try_from(place.extent.bytes).ok()?)?;
        let part = self.memory.part(&piece.bytes, from..to, bytes_max)?;
        self.keep = KEPT_PIECES;
        Some(part)
    }

    fn see(&mut self, at: At) {
        if self.seen.contains(&at) {
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(at);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.pieces.pop_front() {
            self.memory.release(&oldest.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use falcon_protocol::Offset;

    use super::*;
    use crate::store::Extent;

    const EXTENT: u32 = 1000;

    fn place(nth: u64) -> Place {
        Place {
            segment: 3,
            position: 4096 + nth * u64::from(EXTENT),
            extent: Extent {
                base_offset: Offset(nth),
                record_count: 1,
                bytes: EXTENT,
                max_timestamp_ms: 0,
                append_time_ms: 0,
            },
            is_copy: false,
        }
    }

    fn end(nth: u64) -> u64 {
        place(nth).position + u64::from(EXTENT)
    }

    fn recent(extents: usize) -> Recent {
        Recent::new(extents * EXTENT as usize, &Arc::default())
    }

    fn lent(recent: &Recent) -> usize {
        recent.lent_bytes.load(Ordering::Relaxed) / EXTENT as usize
    }

    fn value(nth: u64) -> Vec<u8> {
        vec![nth.to_le_bytes()[0]; EXTENT as usize]
    }

    fn share(claim: &Claim<'_>, nth: u64) -> bool {
        let at = (place(nth).segment, place(nth).position);
        let bytes = Bytes::from(value(nth));
        claim.share(at, &bytes, vec![(place(nth).position, EXTENT)])
    }

    /// Reads it, or finds it.
    fn is_found(recent: &Recent, nth: u64) -> bool {
        match recent.turn(&place(nth), end(nth)) {
            Turn::Kept(part) => {
                assert_eq!(part.bytes()[..], value(nth));
                true
            }
            Turn::First(claim) => {
                share(&claim, nth);
                false
            }
        }
    }

    #[test]
    fn who_reads_alone_costs_no_memory() {
        let recent = recent(4);
        for round in 0..3 {
            for nth in 0..200 {
                assert!(!is_found(&recent, nth), "round {round}");
                assert_eq!(lent(&recent), 0);
            }
        }
    }

    #[test]
    fn what_several_want_is_read_twice_at_most_and_stays_within_its_bound() {
        let recent = recent(4);
        let mut reads = 0;
        for nth in 0..200 {
            for _ in 0..10 {
                reads += u32::from(!is_found(&recent, nth));
                assert!(lent(&recent) <= 4);
            }
        }
        assert_eq!(reads, 201, "only the first was read twice");
        assert!(recent.find(&place(195)).is_none() && recent.find(&place(196)).is_some());
        let other = Place {
            extent: Extent {
                bytes: EXTENT - 1,
                ..place(199).extent
            },
            ..place(199)
        };
        assert!(recent.find(&other).is_none(), "that was not checked");
    }

    #[test]
    fn pieces_go_when_those_who_shared_them_are_gone() {
        let recent = recent(4);
        for nth in [0, 0, 0] {
            is_found(&recent, nth);
        }
        for nth in 1..KEPT_PIECES.into() {
            is_found(&recent, nth);
        }
        assert_eq!(lent(&recent), 4);
        for nth in 1000..1100 {
            is_found(&recent, nth);
        }
        let oldest = recent.lock().pieces.front().map(|piece| piece.position);
        assert!(
            oldest < Some(place(1000).position),
            "nothing stays of who reads alone"
        );
    }

    #[test]
    fn one_reads_and_the_others_wait_for_it() {
        let recent = recent(4);
        let (wait, waited) = channel();
        thread::scope(|scope| {
            let Turn::First(claim) = recent.turn(&place(1), end(2)) else {
                panic!("nobody has read it");
            };
            // In the middle of what is read.
            let waiting = scope.spawn(|| {
                let kept = matches!(recent.turn(&place(2), end(4)), Turn::Kept(_));
                wait.send(()).expect("somebody listens");
                kept
            });
            while !recent.lock().claims.iter().any(|claim| claim.is_wanted) {
                thread::yield_now();
            }
            assert!(waited.try_recv().is_err(), "it did not wait");
            assert!(share(&claim, 2), "somebody wants it");
            drop(claim);
            assert!(waiting.join().expect("no panic"));
        });
    }

    #[test]
    fn who_waited_for_one_who_failed_reads_it_himself() {
        let recent = recent(4);
        thread::scope(|scope| {
            let Turn::First(claim) = recent.turn(&place(1), end(1)) else {
                panic!("nobody has read it");
            };
            let waiting: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| is_found(&recent, 1)))
                .collect();
            while !recent.lock().claims.iter().any(|claim| claim.is_wanted) {
                thread::yield_now();
            }
            drop(claim);
            let found = waiting
                .into_iter()
                .map(|waiting| waiting.join().expect("no panic"));
            // Nobody may have waited for the next one, and the one after it knows.
            assert!(found.filter(|is_found| *is_found).count() >= 2);
        });
    }
}
