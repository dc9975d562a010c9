//! The read path: index, tail cache, device.
//!
//! Promises that every batch read from the device was checked against its checksum, partition and
//! expected offset, and that damage is named exactly. Must not know: who asks.

mod exact;
mod plan;
mod recent;
mod walk;

use std::cell::Cell;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::{Offset, PartitionId};

use self::exact::read_exactly;
use self::plan::Plan;
pub(super) use self::recent::Recent;
use self::recent::Turn;
use self::walk::{Anomaly, Taker, Window, read_extent};
use super::Shared;
use super::cache::Part;
use super::index::Place;
use crate::store::{Ahead, Damage, Extent, Lookup, ReadError};

/// Longest that a read waits until the index is mended.
const REBUILD_WAIT: Duration = Duration::from_secs(10);

fn cached(shared: &Shared, place: &Place) -> Option<Part> {
    let bytes = usize::try_from(place.extent.bytes).ok()?;
    let cache = shared.cache.read().unwrap_or_else(PoisonError::into_inner);
    let part = cache.part(place.segment, place.position, bytes);
    drop(cache);
    part.or_else(|| shared.recent.find(place))
}

/// What others have just read of the extent, after waiting for who reads it now; else `window` is to read it for them.
fn wait<'a>(
    shared: &'a Shared,
    (place, end): (&Place, u64),
    taker: &mut Taker,
    window: &mut Window<'a>,
) -> Option<Part> {
    if window.has(place) {
        return None;
    }
    // ORDER: nobody waits who keeps others waiting.
    taker.settle(window);
    let is_kept = window.give_up();
    make_room(shared, is_kept);
    match shared.recent.turn(place, end) {
        Turn::Kept(part) => Some(part),
        Turn::First(claim) => {
            window.read_under(claim);
            None
        }
    }
}

/// Where something stays that was read, the tail cache goes without.
fn make_room(shared: &Shared, is_kept: bool) {
    if is_kept {
        let mut cache = shared.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.make_room();
    }
}

/// Batches from the tail cache alone.
pub(super) fn lookup(
    shared: &Shared,
    partition: PartitionId,
    range: Range<Offset>,
    bytes_max: usize,
) -> Lookup {
    let mut taker = Taker::new(partition, range, bytes_max);
    while taker.wants_more() {
        let place = shared.index.find_in_memory(partition, taker.next());
        let Some(place) = place.filter(|place| place.extent.base_offset < taker.end()) else {
            break;
        };
        let Some(part) = cached(shared, &place) else {
            break;
        };
        if taker.take_cached(&place, &part).is_err() {
            break;
        }
    }
    let metrics = &shared.config.metrics.reads;
    match taker.into_batches() {
        batches if batches.is_empty() => {
            metrics.cache_misses.add(1);
            Lookup::Device
        }
        batches => {
            metrics.cache_hits.add(1);
            Lookup::Cached(batches)
        }
    }
}

/// Batches from the cache or the device. Where the read ends is told before it begins, if that is sure.
pub(super) fn read(
    shared: &Shared,
    partition: PartitionId,
    (range, bytes_max): (Range<Offset>, usize),
    tell: &mut dyn FnMut(Ahead),
) -> Result<Vec<Bytes>, ReadError> {
    let mut taker = Taker::new(partition, range, bytes_max);
    if !taker.wants_more() {
        return Ok(Vec::new());
    }
    let look = |offset| find(shared, partition, offset);
    let mut plan = Plan::of(&taker, look)?;
    let ahead = Cell::new(plan.ahead());
    let mut tell = || {
        if let Some(ahead) = ahead.take() {
            tell(ahead);
        }
    };
    let mut window = Window::new(&mut tell);
    let mut stale = None;
    while taker.wants_more() {
        let offset = taker.next();
        let Some(place) = plan.place(offset) else {
            if taker.is_empty() {
                return Err(not_found(shared, partition, offset, plan.gap.as_ref()));
            }
            if plan.ahead().is_some() {
                break;
            }
            plan = Plan::of(&taker, look)?;
            if !plan.fits(&taker) {
                break;
            }
            continue;
        };
        if let Some(part) = cached(shared, &place)
            && taker.take_cached(&place, &part).is_ok()
        {
            continue;
        }
        let end = plan.span_end();
        if let Some(part) = wait(shared, (&place, end), &mut taker, &mut window)
            && taker.take_cached(&place, &part).is_ok()
        {
            continue;
        }
        let wanted = (taker.plan_fetch(&place, end), place.extent.bytes);
        let read = match shared.segments.reader(place.segment, wanted) {
            Ok(file) => read_extent(file.as_ref(), &place, &mut taker, &mut window)
                .or_else(|Anomaly| read_exactly(file.as_ref(), &place, &mut taker)),
            Err(error) => Err(ReadError::Io(Arc::new(error))),
        };
        let Err(error) = read else {
            continue;
        };
        // The segment may have been reclaimed, and its bytes overwritten, since the lookup: then
        // the records are dead, or a copy is elsewhere.
        let is_live = shared.segments.infos().contains_key(&place.segment);
        if !is_live && stale.replace(place) != Some(place) {
            taker.settle(&window);
            window.give_up();
            // Where it ends is not so sure any more.
            ahead.set(None);
            plan = Plan::of(&taker, look)?;
            continue;
        }
        if !is_live {
            let next = find(shared, partition, place.extent.end_offset())?;
            let gone = not_found(shared, partition, offset, next.as_ref());
            return finish(taker, &window, gone);
        }
        if let ReadError::Damaged(damage) = &error {
            shared.note_damage(damage);
        }
        return finish(taker, &window, error);
    }
    taker.settle(&window);
    make_room(shared, window.give_up());
    Ok(taker.into_batches())
}

/// All batches of an extent, checked; an error unless every byte of it is what it should be.
pub(super) fn whole_extent(
    shared: &Shared,
    partition: PartitionId,
    place: &Place,
) -> Result<Vec<Bytes>, ReadError> {
    let range = place.extent.base_offset..place.extent.end_offset();
    // Not a byte is fetched ahead: what is next to it is of no use here.
    let mut taker = Taker::new(partition, range, place.extent.bytes as usize);
    let file = shared.segments.handle(place.segment);
    let file = file.map_err(|error| ReadError::Io(Arc::new(error)))?;
    let mut tell = || {};
    let mut window = Window::new(&mut tell);
    read_extent(file.as_ref(), place, &mut taker, &mut window)
        .or_else(|Anomaly| read_exactly(file.as_ref(), place, &mut taker))?;
    taker.settle(&window);
    let missing = taker.next()..place.extent.end_offset();
    let batches = taker.into_batches();
    let bytes: usize = batches.iter().map(Bytes::len).sum();
    if missing.is_empty() && bytes as u64 == u64::from(place.extent.bytes) {
        return Ok(batches);
    }
    let range = if missing.is_empty() {
        place.extent.base_offset..place.extent.end_offset()
    } else {
        missing
    };
    Err(ReadError::Damaged(Damage { partition, range }))
}

/// What was read before the error is worth having; the error comes back with the next read.
fn finish(
    mut taker: Taker,
    window: &Window<'_>,
    error: ReadError,
) -> Result<Vec<Bytes>, ReadError> {
    taker.settle(window);
    match taker.into_batches() {
        batches if batches.is_empty() => Err(error),
        batches => Ok(batches),
    }
}

/// The keeper finds out that sled, or a footer, is of no use any more.
fn unanswered(shared: &Shared, error: Arc<sled::Error>) -> ReadError {
    shared.signal.wake();
    ReadError::Index(error)
}

/// Where sled or a footer that it points to fails, this waits for the keeper to look its content up elsewhere: a device
/// that took the index along may well serve the records. Any other footer that cannot be read is an error at once.
fn find(shared: &Shared, partition: PartitionId, from: Offset) -> Result<Option<Place>, ReadError> {
    match shared.index.first_from(partition, from) {
        Ok(place) => Ok(place),
        Err(error) => {
            let error = unanswered(shared, error);
            if !shared.index.wait_until_mended(REBUILD_WAIT) {
                return Err(error);
            }
            let again = shared.index.first_from(partition, from);
            again.map_err(|error| unanswered(shared, error))
        }
    }
}

/// Why an offset is in no extent; `next` is the first extent after it.
fn not_found(
    shared: &Shared,
    partition: PartitionId,
    offset: Offset,
    next: Option<&Place>,
) -> ReadError {
    let known = super::locked(&shared.damage)
        .iter()
        .find(|damage| damage.partition == partition && damage.range.contains(&offset))
        .cloned();
    if let Some(damage) = known {
        return ReadError::Damaged(damage);
    }
    let bounds = shared.bounds_of(partition).unwrap_or_default();
    if offset < bounds.start || offset >= bounds.end {
        return ReadError::Missing { offset };
    }
    // Between what is kept and what was assigned, every offset had a record: a segment is gone.
    let end = next.map_or(bounds.end, |next| next.extent.base_offset.min(bounds.end));
    let damage = Damage {
        partition,
        range: offset..end,
    };
    shared.note_damage(&damage);
    ReadError::Damaged(damage)
}

/// Visits extents in order.
pub(super) fn extents(
    shared: &Shared,
    partition: PartitionId,
    from: Offset,
    visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let mut next = from;
    while let Some(place) = find(shared, partition, next)? {
        if visit(place.extent).is_break() || place.extent.end_offset() <= next {
            break;
        }
        next = place.extent.end_offset();
    }
    Ok(())
}

/// First offset at or after `from` of an extent with a record time of `timestamp_ms` or later.
pub(super) fn find_time(
    shared: &Shared,
    partition: PartitionId,
    from: Offset,
    timestamp_ms: i64,
) -> Result<Option<Offset>, ReadError> {
    let floor = shared.index.time_floor(partition, timestamp_ms);
    let Some(floor) = floor.map_err(|error| unanswered(shared, error))? else {
        return Ok(None);
    };
    let mut found = None;
    extents(shared, partition, from.max(floor), &mut |extent| {
        if extent.max_timestamp_ms < timestamp_ms {
            return ControlFlow::Continue(());
        }
        found = Some(extent.base_offset.max(from));
        ControlFlow::Break(())
    })?;
    Ok(found)
}
