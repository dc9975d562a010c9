//! Error codes: number, name, retry class, outcome and text, declared once.
//!
//! Status 0 is success and not an error code. Numbers are append-only; gaps are retired or kept
//! for later. An unknown number survives decoding as [`ErrorCode::Other`]. `docs/ERRORS.md` is
//! generated from this table (`falcon errors --markdown`).

use core::fmt;

/// May the same request be sent again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again: change the request or the configuration first.
    Never,
    /// It may succeed later, unchanged.
    Backoff,
    /// It may succeed after asking the broker anew: metadata, producer id or membership.
    Rejoin,
}

/// Could the request have taken effect although it failed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing happened.
    NotApplied,
    /// It may have happened; an idempotent publisher finds out by sending the same batch again.
    Unknown,
}

macro_rules! codes {
    ($($number:literal $name:ident $wire:literal $retry:ident $outcome:ident $text:literal $remedy:literal;)*) => {
        /// A reason for refusing or ending something.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $text] $name,)*
            /// A code of a newer broker; its number is kept.
            Other(u16),
        }

        impl ErrorCode {
            /// Every code of this version, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* Self::Other(number) => number }
            }

            /// The code with this number; `None` for 0, which is success.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { 0 => None, $($number => Some(Self::$name),)* other => Some(Self::Other(other)) }
            }

            /// The stable name, for logs, metrics and scripts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* Self::Other(_) => "other" }
            }

            /// May the same request be sent again?
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* Self::Other(_) => Retry::Never }
            }

            /// Could it have happened anyway?
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome,)* Self::Other(_) => Outcome::Unknown }
            }

            /// What happened, in a sentence fragment.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Other(_) => "a code this version does not know" }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* Self::Other(_) => "update the client" }
            }
        }
    };
}

codes! {
    1 MalformedRequest "malformed_request" Never NotApplied
        "the request's bytes do not have the layout of its kind"
        "fix the client: docs/PROTOCOL.md has the layouts";
    2 UnsupportedVersion "unsupported_version" Never NotApplied
        "client and broker have no protocol version in common"
        "update the older of the two";
    3 FrameTooLarge "frame_too_large" Never NotApplied
        "a frame is larger than the connection allows"
        "send smaller batches, or raise limits.frame_bytes_max on the broker";
    4 HandshakeRequired "handshake_required" Never NotApplied
        "a request came before the handshake"
        "send Hello first";
    5 HandshakeTimeout "handshake_timeout" Backoff NotApplied
        "the handshake did not complete in time"
        "connect again; check the network and that this is a Falcon client";
    6 UnknownRequest "unknown_request" Never NotApplied
        "the broker does not know this kind of request"
        "update the broker";
    7 TooManyConnections "too_many_connections" Backoff NotApplied
        "the broker has as many connections as it allows"
        "close connections, or raise limits.connections_max";
    8 TooManyRequests "too_many_requests" Backoff NotApplied
        "the connection has more requests in flight than it was granted"
        "wait for answers before sending more";
    9 Draining "draining" Backoff NotApplied
        "the broker is shutting down"
        "connect again after it has restarted";
    10 IdleTimeout "idle_timeout" Backoff NotApplied
        "nothing came from the peer for too long"
        "connect again; send heartbeats";
    11 StallTimeout "stall_timeout" Backoff NotApplied
        "the peer stopped reading or stopped in the middle of a frame"
        "connect again; read faster or grant less credit";
    12 Internal "internal" Backoff Unknown
        "the broker met a state it should not"
        "look at the broker's log and report it";
    13 LimitReached "limit_reached" Never NotApplied
        "a configured limit is reached"
        "remove what is not needed, or raise the limit named in the text";
    20 UnknownTopic "unknown_topic" Rejoin NotApplied
        "the topic does not exist"
        "create it: falcon topic create NAME --partitions N";
    21 UnknownPartition "unknown_partition" Rejoin NotApplied
        "the topic has no such partition"
        "use a partition below the topic's count";
    22 TopicExists "topic_exists" Never NotApplied
        "a topic of this name exists"
        "use it, or choose another name";
    23 InvalidTopicName "invalid_topic_name" Never NotApplied
        "the topic name is not allowed"
        "use 1 to 200 letters, digits, '.', '_', '-'";
    24 InvalidTopicConfig "invalid_topic_config" Never NotApplied
        "a topic setting is not allowed"
        "correct the setting named in the text";
    25 NotOwner "not_owner" Rejoin NotApplied
        "another broker owns the partition"
        "ask for metadata and connect to the owner";
    30 CorruptBatch "corrupt_batch" Never NotApplied
        "the record batch does not match its checksum or is cut short"
        "check the sender's memory and network; send it again";
    31 BatchTooLarge "batch_too_large" Never NotApplied
        "the record batch is larger than the broker accepts"
        "send fewer or smaller records, or raise limits.batch_bytes_max";
    32 UnsupportedCodec "unsupported_codec" Never NotApplied
        "the batch's format or compression is not supported"
        "use none, lz4 or zstd";
    33 InvalidBatch "invalid_batch" Never NotApplied
        "the batch's checksum holds but its content breaks a rule"
        "fix the client: docs/PROTOCOL.md has the rules";
    34 QueueFull "queue_full" Backoff NotApplied
        "the broker's publish queue stayed full until the timeout"
        "publish slower, allow a longer timeout, or use a faster device";
    35 OutOfSequence "out_of_sequence" Never NotApplied
        "a batch of this publisher is missing before this one"
        "open a new publisher; the text has the sequence expected";
    36 ProducerFenced "producer_fenced" Never NotApplied
        "a newer publisher of the same name has taken over, or the name was forgotten"
        "stop this one; after a silence of timeouts.producer_expiry_ms open a new one";
    37 UnknownProducer "unknown_producer" Rejoin NotApplied
        "the broker does not know this producer id, or forgot it"
        "ask for a new producer id";
    38 StorageFull "storage_full" Backoff NotApplied
        "the broker's disk is full"
        "free space or shorten retention; publishing resumes by itself";
    39 WritesStopped "writes_stopped" Backoff NotApplied
        "a write or sync failed earlier and the broker accepts no more until it is restarted"
        "check the device and the broker's log, then restart the broker";
    40 OutcomeUnknown "outcome_unknown" Backoff Unknown
        "the write or sync failed while this request was in it"
        "check the device, restart the broker, then send the same batch again";
    41 OffsetMismatch "offset_mismatch" Never NotApplied
        "the partition's next offset is not the one expected"
        "read what was appended meanwhile, decide anew; the text has the next offset";
    50 OffsetOutOfRange "offset_out_of_range" Never NotApplied
        "the offset is not in the partition"
        "use an offset between the two in the text, or earliest or latest";
    51 DamagedRange "damaged_range" Never NotApplied
        "the records at this offset are damaged on disk"
        "skip to the end of the range in the text; run falcon verify";
    52 ReadFailed "read_failed" Backoff NotApplied
        "the device failed to read"
        "check the device and the broker's log";
    53 UnknownSubscription "unknown_subscription" Never NotApplied
        "the connection has no such subscription"
        "subscribe first";
    54 SubscriptionExists "subscription_exists" Never NotApplied
        "the connection has a subscription of this number"
        "choose another number";
    60 InvalidName "invalid_name" Never NotApplied
        "the group or publisher name is not allowed"
        "use 1 to 200 letters, digits, '.', '_', '-'";
    61 UnknownGroup "unknown_group" Never NotApplied
        "the group has no committed offsets"
        "check the name: falcon offsets list";
    62 UnknownMember "unknown_member" Rejoin NotApplied
        "the group does not know the member: it was silent for its session, or the broker restarted"
        "join again with everything that is held";
    63 InstanceTaken "instance_taken" Never NotApplied
        "another member joined under this instance name"
        "stop one of the two, or give each its own instance name";
    64 StaleOwner "stale_owner" Never NotApplied
        "the partition was taken from the member that commits"
        "drop what was read from it; its new owner reads it again";
    65 GroupActive "group_active" Never NotApplied
        "the group has members, which own its offsets"
        "stop its consumers first, or use --force";
    66 Superseded "superseded" Never NotApplied
        "a later request of the same member has arrived"
        "wait for the answer of the last request only";
    67 InvalidPattern "invalid_pattern" Never NotApplied
        "the topic pattern is not allowed"
        "use words with dots between, '*' for one word, '>' as the last for one or more";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(number) = self {
            write!(f, "error code {number}")
        } else {
            f.write_str(self.text())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_unknown_ones_survive() {
        assert_eq!(ErrorCode::from_number(0), None);
        for number in 1..=u16::MAX {
            let code = ErrorCode::from_number(number).expect("not zero");
            assert_eq!(code.number(), number);
        }
    }

    #[test]
    fn the_table_is_ordered_and_names_are_unique() {
        let numbers: Vec<u16> = ErrorCode::ALL.iter().map(|c| c.number()).collect();
        assert!(numbers.windows(2).all(|w| w[0] < w[1]));
        let mut names: Vec<&str> = ErrorCode::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }
}
