//! Where to begin reading.

use std::time::SystemTime;

use falcon_protocol::Offset;
use falcon_protocol::message::StartPosition;

use crate::clock;

/// Where a subscription starts, or what an offset lookup asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record still kept.
    Earliest,
    /// Behind the last record that is durable when the subscription opens: only what is new.
    Latest,
    /// This offset, in every partition it is used for.
    Offset(Offset),
    /// The first record of this time or later, by the records' own time.
    Time(SystemTime),
    /// The same in milliseconds since the Unix epoch.
    TimestampMs(i64),
    /// The last so many records of each partition, or all when there are fewer.
    Last(u64),
}

impl Start {
    pub(crate) fn position(self) -> StartPosition {
        match self {
            Self::Earliest => StartPosition::Earliest,
            Self::Latest => StartPosition::Latest,
            Self::Offset(offset) => StartPosition::Offset(offset),
            Self::Time(time) => StartPosition::Timestamp(clock::unix_ms_of(time)),
            Self::TimestampMs(ms) => StartPosition::Timestamp(ms),
            Self::Last(records) => StartPosition::Last(records),
        }
    }
}

impl From<Offset> for Start {
    fn from(offset: Offset) -> Self {
        Self::Offset(offset)
    }
}

impl From<SystemTime> for Start {
    fn from(time: SystemTime) -> Self {
        Self::Time(time)
    }
}
