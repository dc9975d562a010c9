//! Rows of the table `Topics`.
//!
//! ```text
//! key    u32 topic id (big-endian)
//! value  u8 version 1, u32 partitions, i64 created_ms, str name, u8 number of settings,
//!        then per setting: str key, str value      (str: u16 length and that many bytes)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use falcon_protocol::TopicId;
use falcon_protocol::limits::TOPIC_NAME_BYTES_MAX;
use falcon_protocol::message::{ConfigEntry, TopicConfig};
use falcon_protocol::wire::{
    WireError, expect_end, read_i64, read_string, read_u8, read_u32, write_short_bytes,
};

use super::Topic;

const VERSION: u8 = 1;
const SETTING_BYTES_MAX: usize = 256;

impl Topic {
    /// Key of a topic's row.
    pub fn row_key(id: TopicId) -> Bytes {
        Bytes::copy_from_slice(&id.0.to_be_bytes())
    }

    /// Reads the key of a topic's row.
    pub fn decode_key(key: &[u8]) -> Result<TopicId, WireError> {
        let bytes: [u8; 4] = key
            .try_into()
            .map_err(|_| WireError::Invalid { field: "topic id" })?;
        Ok(TopicId(u32::from_be_bytes(bytes)))
    }

    /// Value of a topic's row.
    pub fn encode_value(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u8(VERSION);
        to.put_u32_le(self.partitions);
        to.put_i64_le(self.created_ms);
        write_short_bytes(&mut to, self.name.as_bytes());
        let settings = self.config.to_entries();
        to.put_u8(u8::try_from(settings.len()).unwrap_or(u8::MAX));
        for setting in &settings {
            write_short_bytes(&mut to, setting.key.as_bytes());
            write_short_bytes(
                &mut to,
                setting.value.as_deref().unwrap_or_default().as_bytes(),
            );
        }
        to.freeze()
    }

    /// Reads a topic's row.
    pub fn decode(key: &[u8], mut value: &[u8]) -> Result<Self, WireError> {
        let id = Self::decode_key(key)?;
        let from = &mut value;
        if read_u8(from, "version")? != VERSION {
            return Err(WireError::Invalid { field: "version" });
        }
        let partitions = read_u32(from, "partitions")?;
        let created_ms = read_i64(from, "created_ms")?;
        let name = read_string(from, TOPIC_NAME_BYTES_MAX, "name")?;
        let mut settings = Vec::new();
        for _ in 0..read_u8(from, "number of settings")? {
            let key = read_string(from, SETTING_BYTES_MAX, "setting")?;
            let value = Some(read_string(from, SETTING_BYTES_MAX, "setting")?);
            settings.push(ConfigEntry { key, value });
        }
        expect_end(from)?;
        let mut config = TopicConfig::default();
        config
            .apply(&settings)
            .map_err(|_| WireError::Invalid { field: "setting" })?;
        Ok(Self {
            id,
            name,
            partitions,
            config,
            created_ms,
        })
    }
}
