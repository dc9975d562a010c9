//! What happens to a consumer beside records.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::{Offset, OwnerEpoch, Partition};
use tokio::sync::broadcast;

use crate::error::LostReason;

/// Events that are kept for a listener that is behind.
pub(super) const EVENTS_KEPT: usize = 1024;

/// A partition by the name of its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What happens to a consumer beside records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// A partition is read from now on.
    Assigned {
        /// Which.
        partition: TopicPartition,
        /// Of its grant: greater than that of any before.
        epoch: OwnerEpoch,
        /// The offset committed for it.
        committed: Option<Offset>,
    },
    /// A partition goes to another member: nothing more is handed out of it. Commit what is
    /// finished.
    Revoked {
        /// Which.
        partition: TopicPartition,
        /// Of its grant: greater than that of any before.
        epoch: OwnerEpoch,
    },
    /// A partition is not held any more: given up, or taken away. Commits of it are refused.
    Lost {
        /// Which.
        partition: TopicPartition,
        /// Of its grant: greater than that of any before.
        epoch: OwnerEpoch,
    },
    /// Everything that was durable has been handed out. Comes each time the end is reached.
    CaughtUp,
    /// Records come faster than they are taken.
    Lagging {
        /// Records behind the end, in all partitions.
        records: u64,
    },
    /// No connection; what is buffered is still handed out, and nothing is lost.
    Disconnected {
        /// Why.
        reason: LostReason,
    },
    /// The connection is back.
    Reconnected {
        /// The broker's address.
        address: String,
    },
    /// Records are damaged on the broker's disk. The partition waits: seek behind the range, or
    /// choose [`OnDamage::Skip`](super::OnDamage::Skip).
    Damaged {
        /// Which.
        partition: TopicPartition,
        /// The records.
        range: Range<Offset>,
    },
    /// Records are passed over: retention took them, they are damaged, or their handler failed.
    Skipped {
        /// Which.
        partition: TopicPartition,
        /// The records.
        range: Range<Offset>,
    },
    /// A partition cannot be read at the moment; it is tried again.
    Failing {
        /// Which.
        partition: TopicPartition,
        /// What the broker said.
        reason: String,
    },
    /// The application took no record for `max_poll_interval`: its partitions were given up.
    PollTooSlow {
        /// Partition of the record handed out last.
        partition: TopicPartition,
        /// Its offset.
        offset: Offset,
        /// How long nothing was taken.
        after: Duration,
    },
    /// A commit was refused: the partition had been taken away.
    StaleCommit {
        /// Which.
        partition: TopicPartition,
        /// The offset.
        offset: Offset,
    },
}

/// A consumer's events, on the side: not listening holds nothing up, and costs the oldest events.
#[derive(Debug)]
pub struct ConsumerEvents {
    pub(super) receiver: broadcast::Receiver<ConsumerEvent>,
}

impl ConsumerEvents {
    /// The next event; `None` once the consumer is gone.
    ///
    /// CANCEL SAFETY: an event not returned stays.
    pub async fn next(&mut self) -> Option<ConsumerEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
