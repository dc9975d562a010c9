//! Rows of the tables `Offsets` and `Fences`.
//!
//! ```text
//! key      u32 topic id, u32 partition (big-endian), then the group's name to the end
//! Offsets  u8 version 1, u64 offset, i64 commit_time_ms, str note (u16 length and the bytes)
//! Fences   u8 version 1, u64 epoch, not 0
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use falcon_protocol::limits::{GROUP_NAME_BYTES_MAX, OFFSET_NOTE_BYTES_MAX};
use falcon_protocol::wire::{
    WireError, expect_end, read_i64, read_string, read_u8, read_u32, read_u64, write_short_bytes,
};
use falcon_protocol::{Offset, OwnerEpoch, PartitionId};

use super::{Committed, Fences};

const VERSION: u8 = 1;

impl Committed {
    /// Key of an offset's row, and of a fence's.
    pub fn row_key(group: &str, partition: PartitionId) -> Bytes {
        let mut key = BytesMut::with_capacity(8 + group.len());
        key.put_u32(partition.topic.0);
        key.put_u32(partition.partition.0);
        key.put_slice(group.as_bytes());
        key.freeze()
    }

    /// Reads the key of an offset's row, or of a fence's.
    pub fn decode_key(mut key: &[u8]) -> Result<(PartitionId, String), WireError> {
        let invalid = WireError::Invalid { field: "group" };
        let from = &mut key;
        let topic = read_u32(from, "topic id")?.swap_bytes();
        let partition = read_u32(from, "partition")?.swap_bytes();
        let group = core::str::from_utf8(from).map_err(|_| invalid)?;
        if group.is_empty() || group.len() > GROUP_NAME_BYTES_MAX {
            return Err(invalid);
        }
        Ok((PartitionId::new(topic, partition), group.to_owned()))
    }

    /// Value of an offset's row.
    pub fn encode_value(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u8(VERSION);
        to.put_u64_le(self.offset.0);
        to.put_i64_le(self.commit_time_ms);
        write_short_bytes(&mut to, self.note.as_bytes());
        to.freeze()
    }

    /// Reads the value of an offset's row.
    pub fn decode_value(mut value: &[u8]) -> Result<Self, WireError> {
        let from = &mut value;
        if read_u8(from, "version")? != VERSION {
            return Err(WireError::Invalid { field: "version" });
        }
        let committed = Self {
            offset: Offset(read_u64(from, "offset")?),
            commit_time_ms: read_i64(from, "commit_time_ms")?,
            note: read_string(from, OFFSET_NOTE_BYTES_MAX, "note")?,
        };
        expect_end(from)?;
        Ok(committed)
    }
}

impl Fences {
    /// Value of a fence's row.
    pub fn encode_value(epoch: OwnerEpoch) -> Bytes {
        let mut to = BytesMut::with_capacity(9);
        to.put_u8(VERSION);
        to.put_u64_le(epoch.0);
        to.freeze()
    }

    /// Reads the value of a fence's row.
    pub fn decode_value(mut value: &[u8]) -> Result<OwnerEpoch, WireError> {
        let from = &mut value;
        if read_u8(from, "version")? != VERSION {
            return Err(WireError::Invalid { field: "version" });
        }
        let epoch = OwnerEpoch(read_u64(from, "epoch")?);
        expect_end(from)?;
        if epoch == OwnerEpoch::default() {
            return Err(WireError::Invalid { field: "epoch" });
        }
        Ok(epoch)
    }
}
