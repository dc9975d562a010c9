//! Records to send.
//!
//! Owns how a value is made. Promises: values do not compress, cost the program next to nothing, and are
//! made one by one. Must not know: who sends them.

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;

/// Random bytes that values are cut from.
const POOL_BYTES: usize = 1 << 20;
/// The clock is read once in so many records.
const CLOCK_EVERY: u64 = 64;
/// Bytes of a mark.
const MARK_BYTES: usize = 8;

fn pool() -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| {
        // xorshift64, Marsaglia 2003.
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut pool = Vec::with_capacity(POOL_BYTES);
        while pool.len() < POOL_BYTES {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            pool.extend_from_slice(&random.to_le_bytes());
        }
        pool
    })
}

/// A value with a number in front: when it was due.
pub(crate) fn marked(size: usize, mark: u64) -> Bytes {
    let mut value = Vec::with_capacity(size.max(MARK_BYTES));
    value.extend_from_slice(&mark.to_le_bytes());
    value.extend(pool().iter().take(size.saturating_sub(MARK_BYTES)));
    Bytes::from(value)
}

/// The number in front.
pub(crate) fn mark_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.first_chunk::<MARK_BYTES>()?))
}

/// Values for one publisher: until a time, or so many.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    size: usize,
    until: Option<Instant>,
    left: u64,
    given: u64,
    at: usize,
}

impl Feed {
    /// As many as are taken until then.
    pub(crate) fn until(size: usize, until: Instant) -> Self {
        Self {
            size,
            until: Some(until),
            left: u64::MAX,
            given: 0,
            at: 0,
        }
    }

    /// So many.
    pub(crate) fn count(size: usize, count: u64) -> Self {
        Self {
            size,
            until: None,
            left: count,
            given: 0,
            at: 0,
        }
    }

    /// Bytes of each value.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Values given so far.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// The next value.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        if self.given.is_multiple_of(CLOCK_EVERY)
            && self.until.is_some_and(|until| Instant::now() >= until)
        {
            self.left = 0;
            return None;
        }
        self.left -= 1;
        self.given += 1;
        // An odd step visits many places, so that neighbours differ.
        self.at = (self.at + 8191) % (POOL_BYTES - self.size);
        Some(Bytes::from_static(&pool()[self.at..self.at + self.size]))
    }
}
