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

/// Buffers that are held, and those that were and are kept by who read from them.
#[derive(Debug, Default)]
pub(super) struct Memory {
    held_bytes: usize,
    /// Of buffers that are held, or that somebody else keeps a part of.
    alive_bytes: Arc<AtomicUsize>,
}

impl Memory {
    /// Bytes of the buffers that are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes of buffers that are held no more, and that somebody keeps a part of.
    pub(super) fn kept_bytes(&self) -> usize {
        let alive = self.alive_bytes.load(Ordering::Relaxed);
        alive.saturating_sub(self.held_bytes)
    }

    /// Counts a buffer until [`release`](Self::release).
    pub(super) fn hold(&mut self, bytes: Bytes) -> Bytes {
        self.held_bytes += bytes.len();
        self.alive_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let alive_bytes = Arc::clone(&self.alive_bytes);
        Bytes::from_owner(Counted { bytes, alive_bytes })
    }

    /// The buffer is dropped by who held it.
    pub(super) fn release(&mut self, bytes: &Bytes) {
        self.held_bytes -= bytes.len();
    }

    /// A part of a buffer that is held; `bytes_max` may be held in all.
    ///
    /// LIMIT: no whole buffer is kept for a part of it while those that are held no more have half as many bytes as may
    /// be held. When it comes to that, parts of all that are held may have been given away: so it is one and a half
    /// times as many at most.
    pub(super) fn part(
        &self,
        buffer: &Bytes,
        range: std::ops::Range<usize>,
        bytes_max: usize,
    ) -> Option<Part> {
        (range.start <= range.end && range.end <= buffer.len()).then(|| Part {
            bytes: buffer.slice(range),
            buffer_bytes: buffer.len(),
            is_scarce: self.kept_bytes() > bytes_max / 2,
        })
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
    bytes_max: usize,
    memory: Memory,
    /// What others may hold of `bytes_max` for now.
    lent_bytes: Arc<AtomicUsize>,
}

/// A part of a group.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    /// Of the buffer that it is in.
    buffer_bytes: usize,
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
        if is_small && !is_most_of(part.len(), self.buffer_bytes) {
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
            bytes_max,
            memory: Memory::default(),
            lent_bytes: Arc::default(),
        }
    }

    /// How much of what may be held is lent to others.
    pub(super) fn lent_bytes(&self) -> &Arc<AtomicUsize> {
        &self.lent_bytes
    }

    /// Adds the group at `position`; it must come after all earlier ones.
    pub(super) fn push(&mut self, segment: u64, position: u64, bytes: Bytes) {
        let bytes = self.memory.hold(bytes);
        self.groups.push_back(Cached {
            segment,
            position,
            bytes,
        });
        self.make_room();
    }

    /// Lets the oldest groups go, for what was lent.
    pub(super) fn make_room(&mut self) {
        let lent = self.lent_bytes.load(Ordering::Relaxed);
        while self.memory.held_bytes().saturating_add(lent) > self.bytes_max
            && let Some(oldest) = self.groups.pop_front()
        {
            self.memory.release(&oldest.bytes);
        }
    }

    /// The bytes at a place in the journal, when the group they are in is held.
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
        self.memory.part(&group.bytes, from..to, self.bytes_max)
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
        assert_eq!(cache.memory.held_bytes(), 80);
        assert_eq!(bytes_at(&cache, 1, 80, 40), None);
        assert_eq!(bytes_at(&cache, 1, 125, 10), Some(Bytes::from(vec![3; 10])));
        assert_eq!(bytes_at(&cache, 1, 160, 41), None);
        assert_eq!(bytes_at(&cache, 2, 160, 1), None);
        cache.push(2, 0, Bytes::from(vec![9; 101]));
        assert_eq!(cache.memory.held_bytes(), 0);
    }

    const MIB: usize = 1 << 20;
    const CACHE: usize = 8 * MIB;

    /// Pushes groups and keeps a part of each, in the middle; answers what is kept in all.
    fn keep_of_many(buffer_bytes: usize, part_bytes: usize) -> (TailCache, Vec<Bytes>) {
        let mut cache = TailCache::new(CACHE);
        let mut kept = Vec::new();
        for at in 0..100_u64 {
            let position = at * buffer_bytes as u64;
            cache.push(1, position, Bytes::from(vec![7; buffer_bytes]));
            let part = cache.part(1, position + 1000, part_bytes).expect("is held");
            kept.push(part.keep(0..part_bytes));
        }
        (cache, kept)
    }

    #[test]
    fn who_keeps_a_little_of_each_group_does_not_keep_them_all() {
        for part_bytes in [10, 17 << 10, 100 << 10, 600 << 10] {
            let (cache, kept) = keep_of_many(MIB, part_bytes);
            let kept_bytes = cache.memory.kept_bytes();
            assert!(
                kept_bytes <= CACHE + CACHE / 2,
                "{} MiB for parts of {part_bytes} bytes",
                kept_bytes / MIB
            );
            assert!(kept.iter().all(|part| part.len() == part_bytes));
            drop(kept);
            assert_eq!(cache.memory.kept_bytes(), 0);
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
