//! The handshake. Its layout is the same in every protocol version.
//!
//! ```text
//! request                              response
//!  u32  magic "FLCN"                    u32  magic "FLCN"
//!  u16  version_min                     u16  version        chosen, within the client's range
//!  u16  version_max                     u16  reserved       zero
//!  u32  frame_bytes_max                 u32  frame_bytes_max
//!  u32  codecs        bit set           u32  batch_bytes_max
//!  u64  features      bit set           u64  publish_window_bytes
//!  str  client        name/version      u32  requests_in_flight_max
//!  str  credential    bytes             u32  subscriptions_max
//!                                       u32  heartbeat_ms
//!                                       u32  idle_timeout_ms
//!                                       u32  codecs         bit set
//!                                       u64  features       bit set
//!                                       u64  connection_id
//!                                       str  broker         name/version
//!                                       str  cluster
//! ```
//! `str` is a `u16` length and that many bytes. Bytes after the last field are ignored, so that a
//! later version can add fields.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{CREDENTIAL_BYTES_MAX, PEER_NAME_BYTES_MAX};
use crate::wire::{
    WireError, read_short_bytes, read_string, read_u16, read_u32, read_u64, write_short_bytes,
};

const MAGIC: u32 = u32::from_le_bytes(*b"FLCN");

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloRequest {
    /// Oldest protocol version the client speaks.
    pub version_min: u16,
    /// Newest protocol version the client speaks.
    pub version_max: u16,
    /// Largest frame body the client accepts, bytes.
    pub frame_bytes_max: u32,
    /// Codecs it can decompress ([`Codec::bit`](crate::Codec::bit)).
    pub codecs: u32,
    /// Optional features it knows; none are defined in version 1.
    pub features: u64,
    /// Name and version of the client, for the broker's log.
    pub client: String,
    /// Proof of identity; empty today.
    pub credential: Vec<u8>,
}

/// What the broker grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloResponse {
    /// Protocol version of the connection.
    pub version: u16,
    /// Largest frame body either side may send, bytes.
    pub frame_bytes_max: u32,
    /// Largest record batch the broker accepts, bytes.
    pub batch_bytes_max: u32,
    /// Bytes of publish bodies that may be unanswered at any time.
    pub publish_window_bytes: u64,
    /// Requests that may be unanswered at any time.
    pub requests_in_flight_max: u32,
    /// Subscriptions that may be open at any time.
    pub subscriptions_max: u32,
    /// Each side sends something at least this often, milliseconds.
    pub heartbeat_ms: u32,
    /// The broker closes the connection after this long without a byte, milliseconds.
    pub idle_timeout_ms: u32,
    /// Codecs the broker accepts.
    pub codecs: u32,
    /// Optional features in force.
    pub features: u64,
    /// Number of the connection in the broker's log.
    pub connection_id: u64,
    /// Name and version of the broker.
    pub broker: String,
    /// Identity of the broker's data: changes when the data folder was replaced.
    pub cluster: String,
}

impl HelloRequest {
    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u32_le(MAGIC);
        to.put_u16_le(self.version_min);
        to.put_u16_le(self.version_max);
        to.put_u32_le(self.frame_bytes_max);
        to.put_u32_le(self.codecs);
        to.put_u64_le(self.features);
        write_short_bytes(&mut to, self.client.as_bytes());
        write_short_bytes(&mut to, &self.credential);
        to.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        read_magic(from)?;
        Ok(Self {
            version_min: read_u16(from, "version_min")?,
            version_max: read_u16(from, "version_max")?,
            frame_bytes_max: read_u32(from, "frame_bytes_max")?,
            codecs: read_u32(from, "codecs")?,
            features: read_u64(from, "features")?,
            client: read_string(from, PEER_NAME_BYTES_MAX, "client")?,
            credential: read_short_bytes(from, CREDENTIAL_BYTES_MAX, "credential")?,
        })
    }
}

impl HelloResponse {
    /// Lays it out.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u32_le(MAGIC);
        to.put_u16_le(self.version);
        to.put_u16_le(0);
        to.put_u32_le(self.frame_bytes_max);
        to.put_u32_le(self.batch_bytes_max);
        to.put_u64_le(self.publish_window_bytes);
        to.put_u32_le(self.requests_in_flight_max);
        to.put_u32_le(self.subscriptions_max);
        to.put_u32_le(self.heartbeat_ms);
        to.put_u32_le(self.idle_timeout_ms);
        to.put_u32_le(self.codecs);
        to.put_u64_le(self.features);
        to.put_u64_le(self.connection_id);
        write_short_bytes(&mut to, self.broker.as_bytes());
        write_short_bytes(&mut to, self.cluster.as_bytes());
        to.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, WireError> {
        let from = &mut bytes;
        read_magic(from)?;
        let version = read_u16(from, "version")?;
        read_u16(from, "reserved")?;
        Ok(Self {
            version,
            frame_bytes_max: read_u32(from, "frame_bytes_max")?,
            batch_bytes_max: read_u32(from, "batch_bytes_max")?,
            publish_window_bytes: read_u64(from, "publish_window_bytes")?,
            requests_in_flight_max: read_u32(from, "requests_in_flight_max")?,
            subscriptions_max: read_u32(from, "subscriptions_max")?,
            heartbeat_ms: read_u32(from, "heartbeat_ms")?,
            idle_timeout_ms: read_u32(from, "idle_timeout_ms")?,
            codecs: read_u32(from, "codecs")?,
            features: read_u64(from, "features")?,
            connection_id: read_u64(from, "connection_id")?,
            broker: read_string(from, PEER_NAME_BYTES_MAX, "broker")?,
            cluster: read_string(from, PEER_NAME_BYTES_MAX, "cluster")?,
        })
    }
}

fn read_magic(from: &mut &[u8]) -> Result<(), WireError> {
    match read_u32(from, "magic")? {
        MAGIC => Ok(()),
        _ => Err(WireError::Invalid { field: "magic" }),
    }
}
