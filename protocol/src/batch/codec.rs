//! Compression of a batch's records. The client chooses, the broker stores as sent.

use bytes::Bytes;

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// One LZ4 block, without a size in front.
    Lz4,
    /// One zstd frame.
    Zstd,
}

const ZSTD_LEVEL: i32 = 3;

impl Codec {
    /// Every codec of this version.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its name, for options and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Its bit in the handshake's set of codecs.
    pub const fn bit(self) -> u32 {
        1 << self.number()
    }

    /// Compresses; `None` when the result would not be smaller.
    pub(super) fn compress(self, plain: &[u8]) -> Option<Vec<u8>> {
        let packed = match self {
            Self::None => return None,
            Self::Lz4 => lz4_flex::block::compress(plain),
            Self::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).ok()?,
        };
        (packed.len() < plain.len()).then_some(packed)
    }

    /// Decompresses into `plain`, to exactly `uncompressed_bytes`, without allocating more than that.
    pub(super) fn decompress_into<'a>(
        self,
        packed: &'a [u8],
        uncompressed_bytes: u32,
        plain: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], BatchError> {
        let size = uncompressed_bytes as usize;
        let written = match self {
            Self::None => return Ok(packed),
            Self::Lz4 => {
                plain.resize(size, 0);
                lz4_flex::block::decompress_into(packed, plain).ok()
            }
            Self::Zstd => {
                plain.clear();
                plain.reserve_exact(size);
                zstd::bulk::Decompressor::new()
                    .and_then(|mut zstd| zstd.decompress_to_buffer(packed, plain))
                    .ok()
            }
        };
        match written {
            Some(written) if written == size => Ok(plain.get(..size).unwrap_or_default()),
            Some(_) | None => Err(BatchError::Decompress { uncompressed_bytes }),
        }
    }

    /// Decompresses to exactly `uncompressed_bytes`, allocating no more than that.
    pub(super) fn decompress(
        self,
        packed: Bytes,
        uncompressed_bytes: u32,
    ) -> Result<Bytes, BatchError> {
        let size = uncompressed_bytes as usize;
        let plain = match self {
            Self::None => return Ok(packed),
            Self::Lz4 => lz4_flex::block::decompress(&packed, size).ok(),
            Self::Zstd => zstd::bulk::decompress(&packed, size).ok(),
        };
        match plain {
            Some(plain) if plain.len() == size => Ok(Bytes::from(plain)),
            Some(_) | None => Err(BatchError::Decompress { uncompressed_bytes }),
        }
    }
}
