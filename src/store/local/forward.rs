//! Copy-forward: what still lives in old segments is found, read and checked here, and appended
//! again by the writer.
//!
//! A segment is chosen when less than a quarter of its bytes are live, the oldest first: so each
//! byte copied gives back at least three, and disk use stays below four times the live data and a
//! few segments. One that loses records all the time is left to itself for a while: its last ones are
//! likely to be trimmed too. Promises: only whole extents are copied, byte for byte; a segment with live damage
//! is left as it is; a segment counts as moved only when the index, which holds what is durable,
//! finds every live extent of it in a later segment. Must not know: who appends, when.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use falcon_protocol::PartitionId;

use super::index::Place;
use super::journal::group::ExtentCopy;
use super::recovery::read_footer;
use super::segments::SegmentInfo;
use super::{Shared, locked, read};
use crate::clock::Instant;
use crate::store::ReadError;

/// A segment is chosen when its live bytes are fewer than one in this many.
const LIVE_SHARE: u64 = 4;
/// Bytes read and appended per turn; a segment's eighth when that is less. At least one extent.
const TURN_BYTES: u64 = 1 << 20;

/// Extents on their way.
#[derive(Debug, Default)]
pub(super) struct Forward {
    plan: Mutex<Plan>,
    /// Read, checked, not yet appended.
    ready: Mutex<Vec<ExtentCopy>>,
}

#[derive(Debug, Default)]
struct Plan {
    /// The segment being emptied and what of it was not read yet.
    source: Option<(u64, Left)>,
    /// Segments that stay as they are until the next start.
    kept: HashSet<u64>,
    watched: Watched,
}

/// Segments of which little is live, since when they are watched, and how many bytes were live then.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<u64, (Instant, u64)>);

/// Extents of a segment that were not read yet, the next one last.
type Left = Vec<(PartitionId, Place)>;

/// Why a segment stays.
enum Obstacle {
    /// The segment has gone meanwhile.
    Gone,
    Damaged,
    Unreadable,
}

impl Forward {
    /// What was gathered and is still live.
    pub(super) fn take(&self, shared: &Shared) -> Vec<ExtentCopy> {
        let mut copies = std::mem::take(&mut *locked(&self.ready));
        let bounds = locked(&shared.bounds);
        copies.retain(|copy| {
            let bounds = bounds.get(&copy.partition);
            bounds.is_some_and(|bounds| bounds.start < copy.extent.end_offset())
        });
        copies
    }

    /// Reads a bounded part of what has to move, if anything has to. Answers whether the writer
    /// shall be told, and this be called again.
    pub(super) fn gather(&self, shared: &Shared) -> bool {
        let mut plan = locked(&self.plan);
        if !locked(&self.ready).is_empty() {
            return true;
        }
        loop {
            let (segment, left) = match plan.source.take() {
                Some((segment, left)) => (segment, left),
                None => match plan.choose(shared) {
                    Some(segment) => (segment, Vec::new()),
                    None => return false,
                },
            };
            match gather_from(shared, segment, left) {
                Ok(None) => finish(shared, segment),
                Ok(Some((copies, left))) => {
                    *locked(&self.ready) = copies;
                    plan.source = Some((segment, left));
                    return true;
                }
                Err(Obstacle::Gone) => {}
                Err(obstacle) => {
                    tracing::warn!(
                        segment,
                        is_damaged = matches!(obstacle, Obstacle::Damaged),
                        "what lives in an old segment cannot be copied, the segment stays"
                    );
                    plan.kept.insert(segment);
                }
            }
        }
    }
}

impl Plan {
    /// The oldest segment that is worth the copying.
    fn choose(&mut self, shared: &Shared) -> Option<u64> {
        let sparse = sparse(shared, &self.kept);
        let now = Instant::now();
        if shared.is_space_short() {
            return sparse.into_keys().next();
        }
        let pause = shared.config.forward_after;
        self.watched
            .0
            .retain(|segment, _| sparse.contains_key(segment));
        let mut sparse = sparse.into_iter();
        let due = sparse.find(|segment| self.watched.is_due(*segment, pause, now));
        due.map(|(segment, _)| segment)
    }
}

impl Watched {
    /// Whether a segment with so many live bytes was watched for so long. One of which half went meanwhile is likely
    /// to be trimmed as a whole, and is watched anew.
    pub(super) fn is_due(
        &mut self,
        (segment, live): (u64, u64),
        pause: Duration,
        now: Instant,
    ) -> bool {
        let (since, before) = self.0.entry(segment).or_insert((now, live));
        if now.since(*since) < pause {
            return false;
        }
        let goes_by_itself = live <= *before / 2;
        if goes_by_itself {
            (*since, *before) = (now, live);
        }
        !goes_by_itself
    }
}

/// Segments of which less than a share is live, and how many bytes.
fn sparse(shared: &Shared, kept: &HashSet<u64>) -> BTreeMap<u64, u64> {
    let newest_snapshot = shared.snapshot_segment.load(Ordering::Acquire);
    let bounds = locked(&shared.bounds);
    let live = |info: &SegmentInfo| -> u64 {
        let shares = info.shares.iter();
        let live = shares.map(|(partition, share)| share.live_bytes(bounds.get(partition)));
        live.sum()
    };
    let infos = shared.segments.infos();
    let old = infos
        .range(..newest_snapshot)
        .filter(|(segment, info)| !info.is_active && !info.is_moved && !kept.contains(segment));
    let old = old.map(|(segment, info)| (*segment, live(info), info.file_bytes));
    // Without any, it is reclaimed as it is.
    old.filter(|(_, live, bytes)| *live > 0 && live.saturating_mul(LIVE_SHARE) < *bytes)
        .map(|(segment, live, _)| (segment, live))
        .collect()
}

/// Copies of some extents and those that are left; `None` when all live ones are elsewhere.
fn gather_from(
    shared: &Shared,
    segment: u64,
    mut left: Left,
) -> Result<Option<(Vec<ExtentCopy>, Left)>, Obstacle> {
    if left.is_empty() {
        // ORDER: what was read before has been appended by now, so the index knows it.
        left = live_extents(shared, segment)?;
    }
    if left.is_empty() {
        return Ok(None);
    }
    let bytes_max = TURN_BYTES.min(shared.config.segment_bytes / 8);
    let mut copies = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max
        && let Some((partition, place)) = left.pop()
    {
        bytes += u64::from(place.extent.bytes);
        copies.push(copy_of(shared, partition, &place)?);
    }
    Ok(Some((copies, left)))
}

/// The extents that live in this segment and in no later one.
fn live_extents(shared: &Shared, segment: u64) -> Result<Left, Obstacle> {
    let info = shared.segments.infos().get(&segment).cloned();
    let info = info.ok_or(Obstacle::Gone)?;
    let is_live = |partition: &PartitionId, end| {
        let bounds = locked(&shared.bounds);
        bounds
            .get(partition)
            .is_some_and(|bounds| bounds.start < end)
    };
    let mut damage = info.damage.iter();
    if damage.any(|damage| is_live(&damage.partition, damage.range.end)) {
        return Err(Obstacle::Damaged);
    }
    // ORDER: memory before the table of segments, because extents leave memory after it says so.
    let mut extents = {
        let memory = shared.index.memory.read();
        memory
            .unwrap_or_else(PoisonError::into_inner)
            .of_segment(segment)
    };
    let info = shared.segments.infos().get(&segment).cloned();
    let info = info.ok_or(Obstacle::Gone)?;
    let is_elsewhere = info.is_indexed || info.is_by_footer;
    if let (true, true, Some(seal)) = (extents.is_empty(), is_elsewhere, info.seal) {
        let file = shared.segments.handle(segment);
        let footer = file.and_then(|file| read_footer(file.as_ref(), &seal));
        extents = match footer {
            Ok(Some((_, extents))) => extents,
            Ok(None) | Err(_) => return Err(Obstacle::Unreadable),
        };
    }
    let mut live = Vec::new();
    for (partition, place) in extents {
        if !is_live(&partition, place.extent.end_offset()) {
            continue;
        }
        let found = shared.index.first_from(partition, place.extent.base_offset);
        let found = found.map_err(|_| Obstacle::Unreadable)?;
        if found.is_some_and(|found| found.segment == segment) {
            live.push((partition, place));
        }
    }
    live.reverse();
    Ok(live)
}

fn copy_of(shared: &Shared, partition: PartitionId, place: &Place) -> Result<ExtentCopy, Obstacle> {
    let read = read::whole_extent(shared, partition, place);
    if !shared.segments.infos().contains_key(&place.segment) {
        return Err(Obstacle::Gone);
    }
    match read {
        Ok(batches) => Ok(ExtentCopy {
            partition,
            extent: place.extent,
            batches,
        }),
        Err(ReadError::Damaged(damage)) => {
            shared.note_damage(&damage);
            Err(Obstacle::Damaged)
        }
        Err(ReadError::Missing { .. } | ReadError::Io(_) | ReadError::Index(_)) => {
            Err(Obstacle::Unreadable)
        }
    }
}

/// Lets the keeper reclaim a segment of which nothing is needed any more.
fn finish(shared: &Shared, segment: u64) {
    if let Some(info) = shared.segments.infos_mut().get_mut(&segment) {
        info.is_moved = true;
    }
    tracing::debug!(segment, "what lived in an old segment was copied forward");
    shared.signal.wake();
}
