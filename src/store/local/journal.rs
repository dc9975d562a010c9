//! The journal: one sequence of segment files, the only source of truth.
//!
//! Owns the bytes of segments, commit groups and footers, and how they are found again. Promises:
//! decoders survive arbitrary bytes, allocate no more than a file holds, and tell a torn tail from
//! rot. Must not know: sled, the meaning of rows, who reads.

pub(super) mod footer;
pub(super) mod group;
pub(super) mod salvage;
pub(super) mod scan;
pub(super) mod segment;
pub(super) mod state;

/// Entries and groups start at multiples of this.
pub(super) const ALIGN: usize = 8;

/// `bytes` rounded up to the next multiple of [`ALIGN`].
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// A number of 32 bits as a length; lossless where the program can run at all.
pub(super) const fn length(bytes: u32) -> usize {
    bytes as usize
}
