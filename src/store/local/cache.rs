//! The tail cache: the buffers of the newest commit groups, as they were written.
//!
//! Owns at most the configured bytes; the oldest group goes first. Promises that what it returns is
//! durable, because groups enter after their sync. Must not know: partitions, offsets.

use std::collections::VecDeque;

use bytes::Bytes;

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
}

impl TailCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            groups: VecDeque::new(),
            held_bytes: 0,
            bytes_max,
        }
    }

    /// Adds the group at `position`; it must come after all earlier ones.
    pub(super) fn push(&mut self, segment: u64, position: u64, bytes: Bytes) {
        self.held_bytes += bytes.len();
        self.groups.push_back(Cached {
            segment,
            position,
            bytes,
        });
        while self.held_bytes > self.bytes_max
            && let Some(oldest) = self.groups.pop_front()
        {
            self.held_bytes -= oldest.bytes.len();
        }
    }

    /// The bytes at a place in the journal, when the group they are in is held.
    pub(super) fn slice(&self, segment: u64, position: u64, bytes: usize) -> Option<Bytes> {
        let after = self
            .groups
            .partition_point(|group| (group.segment, group.position) <= (segment, position));
        let group = self.groups.get(after.checked_sub(1)?)?;
        if group.segment != segment {
            return None;
        }
        let from = usize::try_from(position - group.position).ok()?;
        let to = from.checked_add(bytes)?;
        (to <= group.bytes.len()).then(|| group.bytes.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_group_goes_first_and_every_byte_is_counted() {
        let mut cache = TailCache::new(100);
        for at in 0..5_u8 {
            cache.push(1, u64::from(at) * 40, Bytes::from(vec![at; 40]));
        }
        assert_eq!(cache.held_bytes, 80);
        assert_eq!(cache.slice(1, 80, 40), None);
        assert_eq!(cache.slice(1, 125, 10), Some(Bytes::from(vec![3; 10])));
        assert_eq!(cache.slice(1, 160, 41), None);
        assert_eq!(cache.slice(2, 160, 1), None);
        cache.push(2, 0, Bytes::from(vec![9; 101]));
        assert_eq!(cache.held_bytes, 0);
    }
}
