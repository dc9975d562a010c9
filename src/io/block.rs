//! Memory that a device takes as it is.
//!
//! Promises that a [`BlockBuffer`] begins at a multiple of [`BLOCK_BYTES`]. Must not know: files.

use bytes::Bytes;

/// What direct I/O counts in: positions, lengths and addresses are multiples of it. The page of the
/// machine and the block of most file systems; devices ask for less.
pub const BLOCK_BYTES: usize = 4096;

/// Zeroed memory that begins at a multiple of [`BLOCK_BYTES`].
#[derive(Debug)]
pub struct BlockBuffer {
    memory: Vec<u8>,
    from: usize,
    bytes: usize,
}

impl BlockBuffer {
    /// `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        Self {
            from: skip_to_phase(memory.as_ptr(), 0),
            memory,
            bytes,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let end = self.from + self.bytes;
        self.memory.get(self.from..end).unwrap_or_default()
    }

    /// A part of it, without a copy. What is beyond its end is left out.
    pub fn slice(self, range: std::ops::Range<usize>) -> Bytes {
        let end = range.end.min(self.bytes);
        let start = range.start.min(end);
        Bytes::from(self.memory).slice(self.from + start..self.from + end)
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.from + self.bytes;
        self.memory.get_mut(self.from..end).unwrap_or_default()
    }
}

/// Bytes to skip from `at` on, until addresses and positions from `position` on are multiples of
/// [`BLOCK_BYTES`] together.
pub fn skip_to_phase(at: *const u8, position: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    let (phase, address) = (position % block, at.addr() as u64 % block);
    usize::try_from((phase + block - address) % block).unwrap_or(0)
}
