//! Memory that direct I/O takes.

/// Pages, and the blocks of every common device, divide it.
pub(crate) const ALIGNMENT: usize = 4096;

/// Bytes that begin at a multiple of [`ALIGNMENT`].
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    /// So many bytes that do not compress, each page touched.
    pub(crate) fn new(len: usize) -> Self {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let byte = |_| {
            // xorshift64, Marsaglia 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        };
        let bytes: Vec<u8> = (0..len + ALIGNMENT).map(byte).collect();
        let from = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, from, len }
    }

    /// To write from.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.len]
    }

    /// To read into.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}
