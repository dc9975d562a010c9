//! The tail cache: the buffers of the newest commit groups, as they were written.
//!
//! Owns at most the configured bytes; the oldest group goes first. Promises that what it returns is
//! durable, because groups enter after their sync; and that groups which have left it, and are kept by those who
//! read from them, have at most one and a half times as many bytes. Must not know: partitions, offsets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// A part this small of a group is copied, always: it is cheap, and keeps the groups that are kept few.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// The memory of a group, counted until the last part of it is dropped.
struct Counted {
    bytes: Bytes,
    alive_bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let bytes = self.bytes.len();
        self.alive_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Cached {
    segment: u64,
    position: u64,
    bytes: Bytes,
}

/// Recent groups in the order of the journal.
#[derive(Debug)]
pub(super) struct TailCache {
    groups: VecDeque<Cached>,
    held_bytes: usize,
    bytes_max: usize,
    /// Of groups that are held, or that somebody else keeps a part of.
    alive_bytes: Arc<AtomicUsize>,
}

/// A part of a group.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    group_bytes: usize,
    /// Too much is kept already.
    is_scarce: bool,
}

impl Part {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is taken of it, to be kept: by itself where it would keep much more than its own bytes, and too much is
    /// kept that way.
    pub(super) fn keep(&self, range: std::ops::Range<usize>) -> Bytes {
        let part = self.bytes.slice(range);
        let is_small = part.len() <= COPY_BYTES_MAX || self.is_scarce;
        if is_small && !is_most_of(part.len(), self.group_bytes) {
            return Bytes::copy_from_slice(&part);
        }
        part
    }
}

/// Whether who pays for `bytes` may keep `kept_bytes` for them: an eighth more at most.
pub(super) fn is_most_of(bytes: usize, kept_bytes: usize) -> bool {
    kept_bytes.saturating_sub(bytes) <= bytes / 8
}

impl TailCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            groups: VecDeque::new(),
            held_bytes: 0,
            bytes_max,
            alive_bytes: Arc::default(),
        }
    }

    /// Adds the group at `position`; it must come after all earlier ones.
    pub(super) fn push(&mut self, segment: u64, position: u64, bytes: Bytes) {
        self.held_bytes += bytes.len();
        self.alive_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let alive_bytes = Arc::clone(&self.alive_bytes);
        self.groups.push_back(Cached {
            segment,
            position,
            bytes: Bytes::from_owner(Counted { bytes, alive_bytes }),
        });
        while self.held_bytes > self.bytes_max
            && let Some(oldest) = self.groups.pop_front()
        {
            self.held_bytes -= oldest.bytes.len();
        }
    }

    /// Bytes of groups that have left, and that somebody keeps a part of.
    pub(super) fn kept_bytes(&self) -> usize {
        let alive = self.alive_bytes.load(Ordering::Relaxed);
        alive.saturating_sub(self.held_bytes)
    }

    /// The bytes at a place in the journal, when the group they are in is held.
    ///
    /// LIMIT: no whole group is kept for a part of it while those that have left have half as many bytes as may be
    /// held. When it comes to that, parts of all that are held may have been given away: so it is one and a half
    /// times as many at most.
    pub(super) fn part(&self, segment: u64, position: u64, bytes: usize) -> Option<Part> {
        let after = self
            .groups
            .partition_point(|group| (group.segment, group.position) <= (segment, position));
        let group = self.groups.get(after.checked_sub(1)?)?;
        if group.segment != segment {
            return None;
        }
        let from = usize::try_from(position - group.position).ok()?;
        let to = from.checked_add(bytes)?;
        (to <= group.bytes.len()).then(|| Part {
            bytes: group.bytes.slice(from..to),
            group_bytes: group.bytes.len(),
            is_scarce: self.kept_bytes() > self.bytes_max / 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_at(cache: &TailCache, segment: u64, position: u64, bytes: usize) -> Option<Bytes> {
        let part = cache.part(segment, position, bytes);
        part.map(|part| part.bytes)
    }

    #[test]
    fn the_oldest_group_goes_first_and_every_byte_is_counted() {
        let mut cache = TailCache::new(100);
        for at in 0..5_u8 {
            cache.push(1, u64::from(at) * 40, Bytes::from(vec![at; 40]));
        }
        assert_eq!(cache.held_bytes, 80);
        assert_eq!(bytes_at(&cache, 1, 80, 40), None);
        assert_eq!(bytes_at(&cache, 1, 125, 10), Some(Bytes::from(vec![3; 10])));
        assert_eq!(bytes_at(&cache, 1, 160, 41), None);
        assert_eq!(bytes_at(&cache, 2, 160, 1), None);
        cache.push(2, 0, Bytes::from(vec![9; 101]));
        assert_eq!(cache.held_bytes, 0);
    }

    const MIB: usize = 1 << 20;
    const CACHE: usize = 8 * MIB;

    /// Pushes groups and keeps a part of each, in the middle; answers what is kept in all.
    fn keep_of_many(group_bytes: usize, part_bytes: usize) -> (TailCache, Vec<Bytes>) {
        let mut cache = TailCache::new(CACHE);
        let mut kept = Vec::new();
        for at in 0..100_u64 {
            let position = at * group_bytes as u64;
            cache.push(1, position, Bytes::from(vec![7; group_bytes]));
            let part = cache.part(1, position + 1000, part_bytes).expect("is held");
            kept.push(part.keep(0..part_bytes));
        }
        (cache, kept)
    }

    #[test]
    fn who_keeps_a_little_of_each_group_does_not_keep_them_all() {
        for part_bytes in [10, 17 << 10, 100 << 10, 600 << 10] {
            let (cache, kept) = keep_of_many(MIB, part_bytes);
            let kept_bytes = cache.kept_bytes();
            assert!(
                kept_bytes <= CACHE + CACHE / 2,
                "{} MiB for parts of {part_bytes} bytes",
                kept_bytes / MIB
            );
            assert!(kept.iter().all(|part| part.len() == part_bytes));
            drop(kept);
            assert_eq!(cache.kept_bytes(), 0);
        }
    }

    #[test]
    fn who_keeps_up_shares_the_memory_of_the_groups() {
        let mut cache = TailCache::new(CACHE);
        let mut last = None;
        for at in 0..100_u64 {
            let position = at * MIB as u64;
            cache.push(1, position, Bytes::from(vec![7; MIB]));
            let part = cache.part(1, position + 1000, 100 << 10).expect("is held");
            let kept = part.keep(0..50 << 10);
            assert_eq!(kept.as_ptr(), part.bytes.as_ptr(), "it was copied");
            last = Some(kept);
        }
        drop(last);
    }
}
