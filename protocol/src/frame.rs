//! Frames: the unit of the connection.
//!
//! ```text
//! offset  size
//!      0     4  body_bytes    length of what follows the header
//!      4     1  kind          what the frame is
//!      5     1  flags         bit 0: response; others zero
//!      6     2  status        responses and ends: 0 or an error code; requests: 0
//!      8     4  correlation   requests and responses: chosen by the requester;
//!                             Deliver, Credit, PartitionEnded: the subscription's number
//!     12     -  body
//! ```
//! All integers little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::codes::ErrorCode;
use crate::wire::{read_u8, read_u16, read_u32};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 12;

const FLAG_RESPONSE: u8 = 1;

macro_rules! kinds {
    ($($number:literal $name:ident $text:literal;)*) => {
        /// What a frame is. A response has the kind of its request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $(#[doc = $text] $name,)* }

        impl Kind {
            /// Every kind of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub const fn number(self) -> u8 { match self { $(Self::$name => $number,)* } }

            /// The kind with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name, for logs and metrics.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name),)* } }
        }
    };
}

kinds! {
    1 Hello "Client to broker, first: versions, limits, credentials.";
    2 Ping "Either way: are you there? Answered at once.";
    3 Goodbye "Either way: an orderly end. The answer comes after everything in flight.";
    4 Draining "Broker to client, one way: finish and connect elsewhere or later.";
    5 Window "Broker to client, one way: the publish window in force from now on.";
    10 Metadata "Topics, partitions and their owners.";
    11 CreateTopic "Creates a topic.";
    12 DescribeTopic "One topic in full.";
    13 ListTopics "Topics, page by page.";
    14 AlterTopic "Changes a topic's settings or adds partitions.";
    15 DeleteTopic "Deletes a topic with all its records and committed offsets.";
    20 Publish "One record batch for one partition.";
    21 InitProducer "Allocates a producer id, or takes a named one over.";
    22 Step "Record batches for any partitions and offset commits, all or nothing.";
    30 Fetch "Reads once from one partition.";
    31 Subscribe "Opens a subscription.";
    32 Deliver "Broker to client, one way: record batches of a subscription.";
    33 Credit "Client to broker, one way: how much may have been delivered in all.";
    34 Unsubscribe "Ends a subscription.";
    35 PartitionEnded "Broker to client, one way: a subscription cannot go on in a partition.";
    36 ListOffsets "Offsets of positions: earliest, latest, by time, last n.";
    40 CommitOffsets "Stores offsets under a group name.";
    41 FetchOffsets "Reads offsets stored under a group name.";
    42 ListGroups "Group names that have offsets, page by page.";
    43 DeleteOffsets "Forgets offsets stored under a group name.";
    44 CommitOwned "Stores offsets of partitions that a member holds.";
    45 ResetOffsets "Stores offsets of a group without being its member.";
    46 DeleteGroup "Forgets a group.";
    50 JoinGroup "A member joins a group or comes back.";
    51 GroupReport "A member's heartbeat; the answer waits for news.";
    52 LeaveGroup "A member leaves its group.";
    53 SummarizeGroups "Groups with members or offsets, page by page.";
    54 DescribeGroup "A group's members, page by page.";
    55 ListGroupPartitions "How a group's partitions stand, page by page.";
}

/// The first twelve bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the body, bytes.
    pub body_bytes: u32,
    /// Number of the kind, known or not.
    pub kind: u8,
    /// Whether this answers a request.
    pub is_response: bool,
    /// 0, or an error code.
    pub status: u16,
    /// Request or subscription number.
    pub correlation: u32,
}

/// Why a frame was refused by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Larger than allowed.
    #[error("a frame of {bytes} bytes was announced, the limit is {max}")]
    TooLarge {
        /// Announced.
        bytes: u32,
        /// Allowed.
        max: u32,
    },
    /// The peer speaks HTTP.
    #[error("the peer speaks HTTP, this port speaks Falcon's binary protocol")]
    Http,
    /// A flag bit this version does not know.
    #[error("the frame has unknown flags {flags:#04x}")]
    Flags {
        /// All flags of the frame.
        flags: u8,
    },
}

impl FrameHeader {
    /// Reads a header and refuses what is larger than `body_bytes_max`, before any allocation.
    pub fn decode(
        bytes: &[u8; FRAME_HEADER_BYTES],
        body_bytes_max: u32,
    ) -> Result<Self, FrameError> {
        let header = Self::read(&mut bytes.as_slice());
        let header = header.unwrap_or(Err(FrameError::Flags { flags: 0 }));
        if looks_like_http(bytes) {
            return Err(FrameError::Http);
        }
        let header = header?;
        if header.body_bytes > body_bytes_max {
            return Err(FrameError::TooLarge {
                bytes: header.body_bytes,
                max: body_bytes_max,
            });
        }
        Ok(header)
    }

    fn read(from: &mut &[u8]) -> Result<Result<Self, FrameError>, crate::wire::WireError> {
        let body_bytes = read_u32(from, "body_bytes")?;
        let kind = read_u8(from, "kind")?;
        let flags = read_u8(from, "flags")?;
        let status = read_u16(from, "status")?;
        let correlation = read_u32(from, "correlation")?;
        if flags & !FLAG_RESPONSE != 0 {
            return Ok(Err(FrameError::Flags { flags }));
        }
        let is_response = flags & FLAG_RESPONSE != 0;
        Ok(Ok(Self {
            body_bytes,
            kind,
            is_response,
            status,
            correlation,
        }))
    }

    /// Appends the twelve bytes.
    pub fn encode(&self, to: &mut impl BufMut) {
        to.put_u32_le(self.body_bytes);
        to.put_u8(self.kind);
        to.put_u8(if self.is_response { FLAG_RESPONSE } else { 0 });
        to.put_u16_le(self.status);
        to.put_u32_le(self.correlation);
    }
}

fn looks_like_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] = [
        b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"PRI ",
    ];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// A header and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header; `body_bytes` equals `body.len()`.
    pub header: FrameHeader,
    /// The body.
    pub body: Bytes,
}

impl Frame {
    /// A request, or a one-way frame, with this body.
    pub fn request(kind: Kind, correlation: u32, body: Bytes) -> Self {
        Self::new(kind, false, None, correlation, body)
    }

    /// A successful answer.
    pub fn response(kind: Kind, correlation: u32, body: Bytes) -> Self {
        Self::new(kind, true, None, correlation, body)
    }

    /// An answer that refuses; the body is an [`ErrorBody`](crate::message::ErrorBody).
    pub fn refusal(kind: Kind, correlation: u32, code: ErrorCode, body: Bytes) -> Self {
        Self::new(kind, true, Some(code), correlation, body)
    }

    fn new(
        kind: Kind,
        is_response: bool,
        code: Option<ErrorCode>,
        correlation: u32,
        body: Bytes,
    ) -> Self {
        let header = FrameHeader {
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            kind: kind.number(),
            is_response,
            status: code.map_or(0, ErrorCode::number),
            correlation,
        };
        Self { header, body }
    }

    /// The error code, or `None` for success.
    pub fn error(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.header.status)
    }

    /// Header and body in one buffer.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FRAME_HEADER_BYTES + self.body.len());
        self.header.encode(&mut out);
        out.extend_from_slice(&self.body);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(bytes: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
        bytes[..FRAME_HEADER_BYTES].try_into().expect("long enough")
    }

    #[test]
    fn a_frame_round_trips() {
        let frame = Frame::refusal(Kind::Publish, 7, ErrorCode::QueueFull, Bytes::from("why"));
        let bytes = frame.to_bytes();
        let header = FrameHeader::decode(&header_of(&bytes), 1024).expect("valid");
        assert_eq!(header, frame.header);
        assert_eq!(&bytes[FRAME_HEADER_BYTES..], b"why");
        assert_eq!(frame.error(), Some(ErrorCode::QueueFull));
    }

    #[test]
    fn four_gigabytes_are_refused_by_the_header() {
        let mut bytes = header_of(&Frame::request(Kind::Ping, 1, Bytes::new()).to_bytes());
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = FrameHeader::decode(&bytes, 4096);
        assert_eq!(
            refused,
            Err(FrameError::TooLarge {
                bytes: u32::MAX,
                max: 4096
            })
        );
    }

    #[test]
    fn an_http_request_is_recognised() {
        assert_eq!(
            FrameHeader::decode(b"GET / HTTP/1", 4096),
            Err(FrameError::Http)
        );
    }

    #[test]
    fn kinds_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(Kind::from_number(0), None);
    }
}
