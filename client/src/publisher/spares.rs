//! Memory of batches that have ended, for those to come.
//!
//! Owns buffers that nobody uses. Promises: they and those lent to batches stay within the publisher's window each;
//! what is not needed for a while is given back; a buffer made anew has at most twice its partition's share of the
//! window before anything is put into it.

use bytes::BytesMut;

/// Buffers for batches. Lives in the intake, behind its lock.
#[derive(Debug)]
pub(super) struct Spares {
    /// The last one given back is the first to be lent: it is the most likely to be in a cache.
    buffers: Vec<BytesMut>,
    bytes: usize,
    lent_bytes: usize,
    bytes_max: usize,
    /// Fewest buffers there were since the last trim.
    unused: usize,
}

/// What a batch has of its buffer's first capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Loan {
    bytes: usize,
}

impl Spares {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            buffers: Vec::new(),
            bytes: 0,
            lent_bytes: 0,
            bytes_max,
            unused: 0,
        }
    }

    /// A buffer for a batch of one of so many partitions, whose last batch took `recent_bytes`.
    pub(super) fn lend(&mut self, recent_bytes: usize, partitions: usize) -> (BytesMut, Loan) {
        // LIMIT: a batch may need much less than its buffer has, and there may be many batches.
        let bytes_left = self.bytes_max.saturating_sub(self.lent_bytes);
        let last = self.buffers.pop_if(|last| last.capacity() <= bytes_left);
        let Some(buffer) = last else {
            return (self.fresh(recent_bytes, partitions), Loan::default());
        };
        let bytes = buffer.capacity();
        self.bytes -= bytes;
        self.lent_bytes += bytes;
        self.unused = self.unused.min(self.buffers.len());
        (buffer, Loan { bytes })
    }

    /// A buffer of its own: as large as the last batch and a little more, so that it does not have to grow.
    fn fresh(&self, recent_bytes: usize, partitions: usize) -> BytesMut {
        // LIMIT: all partitions may have been busy once, and need little now.
        let bytes_max = 2 * self.bytes_max / partitions.max(1);
        BytesMut::with_capacity((recent_bytes + recent_bytes / 8).min(bytes_max))
    }

    /// A batch has ended, and does not need its buffer any more.
    pub(super) fn take_back(&mut self, loan: Loan, buffer: Option<BytesMut>) {
        self.lent_bytes = self.lent_bytes.saturating_sub(loan.bytes);
        if let Some(buffer) = buffer
            && self.bytes + buffer.capacity() <= self.bytes_max
        {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    /// Gives back what was not needed since the last call.
    pub(super) fn trim(&mut self) {
        let unused = self.unused.min(self.buffers.len());
        for buffer in self.buffers.drain(..unused) {
            self.bytes -= buffer.capacity();
        }
        self.unused = self.buffers.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: usize) -> BytesMut {
        BytesMut::with_capacity(bytes)
    }

    #[test]
    fn spares_and_loans_stay_within_their_limits() {
        let mut spares = Spares::new(250);
        for _ in 0..3 {
            spares.take_back(Loan::default(), Some(buffer(100)));
        }
        assert_eq!(spares.bytes, 200, "the third has no room");
        let (first, loan) = spares.lend(0, 1);
        assert_eq!(first.capacity(), 100);
        let (second, _loan) = spares.lend(0, 1);
        assert_eq!(second.capacity(), 100);
        spares.take_back(Loan::default(), Some(buffer(100)));
        assert_eq!(
            spares.lend(0, 1).0.capacity(),
            0,
            "200 bytes are lent already"
        );
        spares.take_back(loan, None);
        assert_eq!(spares.lend(0, 1).0.capacity(), 100);
    }

    #[test]
    fn a_fresh_buffer_is_as_large_as_the_last_batch_within_its_share() {
        let mut spares = Spares::new(1_000);
        assert_eq!(spares.lend(0, 4).0.capacity(), 0);
        assert_eq!(spares.lend(80, 4).0.capacity(), 90);
        let (large, loan) = spares.lend(100_000, 4);
        assert_eq!((large.capacity(), loan), (500, Loan::default()));
    }

    #[test]
    fn what_is_not_needed_is_given_back() {
        let mut spares = Spares::new(1_000);
        for _ in 0..4 {
            spares.take_back(Loan::default(), Some(buffer(100)));
        }
        spares.trim();
        let (lent, loan) = spares.lend(0, 1);
        spares.take_back(loan, Some(lent));
        spares.trim();
        assert_eq!(spares.bytes, 100, "three of four were not needed");
        spares.trim();
        assert_eq!(spares.bytes, 0);
    }
}
