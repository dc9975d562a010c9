//! Reading and writing the hand-laid layouts: little-endian integers, varints, short strings.
//!
//! Every reader returns an error where the bytes end early; none panics or allocates more than
//! the bytes it was given.

use bytes::{Buf, BufMut};
use thiserror::Error;

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("the bytes end inside {field}")]
    Truncated {
        /// Name of the field.
        field: &'static str,
    },
    /// A field has a value that its type does not allow.
    #[error("{field} has a value that is not allowed")]
    Invalid {
        /// Name of the field.
        field: &'static str,
    },
    /// Bytes are left over after the last field.
    #[error("{bytes} bytes are left over after the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

macro_rules! reader {
    ($name:ident, $type:ty, $get:ident) => {
        #[doc = concat!("Reads a little-endian `", stringify!($type), "`.")]
        pub fn $name(from: &mut impl Buf, field: &'static str) -> Result<$type, WireError> {
            from.$get().map_err(|_| WireError::Truncated { field })
        }
    };
}

reader!(read_u8, u8, try_get_u8);
reader!(read_u16, u16, try_get_u16_le);
reader!(read_u32, u32, try_get_u32_le);
reader!(read_u64, u64, try_get_u64_le);
reader!(read_i64, i64, try_get_i64_le);

/// Fails when bytes are left.
pub fn expect_end(from: &impl Buf) -> Result<(), WireError> {
    match from.remaining() {
        0 => Ok(()),
        bytes => Err(WireError::Trailing { bytes }),
    }
}

/// Reads a string with a `u16` length in front, at most `max` bytes of UTF-8.
pub fn read_string(
    from: &mut impl Buf,
    max: usize,
    field: &'static str,
) -> Result<String, WireError> {
    let bytes = read_short_bytes(from, max, field)?;
    String::from_utf8(bytes).map_err(|_| WireError::Invalid { field })
}

/// Reads bytes with a `u16` length in front, at most `max`.
pub fn read_short_bytes(
    from: &mut impl Buf,
    max: usize,
    field: &'static str,
) -> Result<Vec<u8>, WireError> {
    let length = usize::from(read_u16(from, field)?);
    if length > max {
        return Err(WireError::Invalid { field });
    }
    if from.remaining() < length {
        return Err(WireError::Truncated { field });
    }
    let mut bytes = vec![0; length];
    from.copy_to_slice(&mut bytes);
    Ok(bytes)
}

/// Writes bytes with a `u16` length in front; what is longer than `u16::MAX` is cut.
pub fn write_short_bytes(to: &mut impl BufMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    to.put_u16_le(length);
    to.put_slice(bytes.get(..usize::from(length)).unwrap_or(bytes));
}

/// Writes an unsigned LEB128 varint: seven bits a byte, lowest first, 1 to 10 bytes.
pub fn write_varint(to: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8((value & 0x7f) as u8);
}

/// Bytes that [`write_varint`] writes for `value`.
pub const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads an unsigned LEB128 varint.
pub fn read_varint(from: &mut impl Buf, field: &'static str) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = read_u8(from, field)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(WireError::Invalid { field });
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Invalid { field })
}

/// [`read_varint`] of bytes that lie in one piece, where most are short.
#[inline]
pub(crate) fn read_varint_of(from: &mut &[u8], field: &'static str) -> Result<u64, WireError> {
    match **from {
        [first, ref rest @ ..] if first < 0x80 => {
            *from = rest;
            Ok(u64::from(first))
        }
        _ => read_longer_varint_of(from, field),
    }
}

/// Apart from the one above, so that it is small enough to become part of its callers.
#[inline(never)]
fn read_longer_varint_of(from: &mut &[u8], field: &'static str) -> Result<u64, WireError> {
    match **from {
        [first, second, ref rest @ ..] if second < 0x80 => {
            *from = rest;
            Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => read_varint(from, field),
    }
}

/// Maps signed to unsigned so that small magnitudes stay small (0, -1, 1, -2 to 0, 1, 2, 3).
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                write_varint(&mut out, value);
                assert_eq!(out.len(), varint_bytes(value));
                assert_eq!(read_varint(&mut out.as_slice(), "x"), Ok(value));
                assert_eq!(read_varint_of(&mut out.as_slice(), "x"), Ok(value));
            }
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert!(read_varint(&mut [0xff_u8; 11].as_slice(), "x").is_err());
        assert!(read_varint(&mut [0x80_u8; 3].as_slice(), "x").is_err());
        for bytes in [&[][..], &[0x80], &[0x80; 3], &[0xff; 11]] {
            let from = &mut &bytes[..];
            assert!(read_varint_of(from, "x").is_err(), "{bytes:?}");
        }
    }
}
