//! The body of every answer whose status is not 0, the same in every protocol version.
//!
//! ```text
//!  u32  retry_after_ms   suggested wait before a retry; 0: no suggestion
//!  u32  partition        partition concerned; 0xffff_ffff: none
//!  u64  low              offset_out_of_range: log start offset; damaged_range: its start;
//!                        out_of_sequence: the sequence expected; limits: the limit; else 0
//!  u64  high             offset_out_of_range: high watermark; damaged_range: its end; else 0
//!  str  text             u16 length, at most 1024 bytes of UTF-8: what happened, in particular
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::Partition;
use crate::limits::ERROR_TEXT_BYTES_MAX;
use crate::wire::{WireError, read_string, read_u32, read_u64, write_short_bytes};

const NO_PARTITION: u32 = u32::MAX;

/// What an answer says beside its error code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorBody {
    /// Suggested wait before a retry, milliseconds; 0: no suggestion.
    pub retry_after_ms: u32,
    /// The partition concerned.
    pub partition: Option<Partition>,
    /// Lower bound, see the layout above.
    pub low: u64,
    /// Upper bound, see the layout above.
    pub high: u64,
    /// What happened, in particular; at most 1024 bytes, longer is cut.
    pub text: String,
}

impl ErrorBody {
    /// Only a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u32_le(self.retry_after_ms);
        to.put_u32_le(self.partition.map_or(NO_PARTITION, |p| p.0));
        to.put_u64_le(self.low);
        to.put_u64_le(self.high);
        let cut = self.text.floor_char_boundary(ERROR_TEXT_BYTES_MAX);
        write_short_bytes(&mut to, self.text.get(..cut).unwrap_or_default().as_bytes());
        to.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        let retry_after_ms = read_u32(from, "retry_after_ms")?;
        let partition = read_u32(from, "partition")?;
        Ok(Self {
            retry_after_ms,
            partition: (partition != NO_PARTITION).then_some(Partition(partition)),
            low: read_u64(from, "low")?,
            high: read_u64(from, "high")?,
            text: read_string(from, ERROR_TEXT_BYTES_MAX, "text")?,
        })
    }
}
