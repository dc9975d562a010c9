//! Every limit of the protocol, in one file. Units are suffixes.
//!
//! `_MAX` constants are hard limits of version 1 that no configuration exceeds; `_DEFAULT` ones are
//! what a broker grants unless it is told otherwise. The values in force for a connection are in
//! the broker's answer to `Hello`.

/// First and only protocol version of this crate.
pub const VERSION: u16 = 1;
/// TCP port a broker listens on unless told otherwise.
pub const PORT_DEFAULT: u16 = 7420;

/// Largest frame body accepted before the handshake is complete.
pub const HANDSHAKE_FRAME_BYTES_MAX: u32 = 4 * 1024;
/// Largest frame body any broker may grant.
pub const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Largest frame body granted by default.
pub const FRAME_BYTES_DEFAULT: u32 = 8 * 1024 * 1024;
/// Largest control message (everything that is not publish, fetch answer or deliver).
pub const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest record batch any broker may accept, header included, as sent (compressed).
pub const BATCH_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Largest record batch accepted by default.
pub const BATCH_BYTES_DEFAULT: u32 = 4 * 1024 * 1024;
/// Largest size of a batch's records after decompression.
pub const UNCOMPRESSED_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: u32 = 131_072;
/// Most headers on one record.
pub const RECORD_HEADERS_MAX: usize = 256;
/// Longest header name, bytes of UTF-8.
pub const HEADER_NAME_BYTES_MAX: usize = 256;

/// Longest topic name, bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 200;
/// Longest topic pattern of a consumer, bytes.
pub const TOPIC_PATTERN_BYTES_MAX: usize = TOPIC_NAME_BYTES_MAX;
/// Longest consumer group name, bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 200;
/// Longest publisher name, bytes.
pub const PUBLISHER_NAME_BYTES_MAX: usize = 200;
/// Longest note stored beside a committed offset, bytes.
pub const OFFSET_NOTE_BYTES_MAX: usize = 256;
/// Longest client or broker name in the handshake, bytes.
pub const PEER_NAME_BYTES_MAX: usize = 200;
/// Longest credential in the handshake, bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 2048;
/// Longest explanation in an error answer, bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 1024;

/// Most partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 4096;
/// Most rows in one page of a listing.
pub const PAGE_ROWS_MAX: u32 = 1000;
/// Most entries in one offsets request.
pub const OFFSETS_ENTRIES_MAX: usize = 4096;
/// Most batches of one atomic step.
pub const STEP_BATCHES_MAX: usize = 1024;
/// Longest time a fetch may wait for records, milliseconds.
pub const FETCH_WAIT_MS_MAX: u32 = 30_000;

/// Most groups that have members at a time.
pub const GROUPS_MAX: usize = 10_000;
/// Most members of one group.
pub const GROUP_MEMBERS_MAX: usize = 1000;
/// Most topic patterns of one member.
pub const MEMBER_PATTERNS_MAX: usize = 64;
/// Longest instance name of a static member, bytes.
pub const INSTANCE_NAME_BYTES_MAX: usize = 200;
/// Shortest session of a member, milliseconds.
pub const SESSION_MS_MIN: u64 = 1000;
/// Longest session of a member, milliseconds.
pub const SESSION_MS_MAX: u64 = 600_000;
/// Most partitions granted in one answer to a member; the others come with the next.
pub const NEWS_GRANTS_MAX: usize = 4096;
