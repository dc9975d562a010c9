//! What happens to a subscription beside records.

use falcon_protocol::Partition;
use tokio::sync::broadcast;

use crate::error::LostReason;

/// Events kept for a listener that does not listen; the oldest go first.
pub(super) const EVENTS_KEPT: usize = 64;

/// A change of a subscription's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEvent {
    /// Records flow, from the positions reached.
    Connected {
        /// The broker's address.
        address: String,
    },
    /// No records flow until `Connected`; nothing is lost.
    Disconnected {
        /// Why.
        reason: LostReason,
    },
    /// Everything that was durable has been handed out, in every partition. Comes once each time
    /// the end is reached.
    CaughtUp,
    /// The topic has grown, and the subscription with it.
    PartitionsAdded {
        /// How many partitions it has now.
        partitions: u32,
    },
    /// A partition goes no further; the stream has the error.
    PartitionEnded {
        /// Which.
        partition: Partition,
    },
}

/// A subscription's events, on the side: not listening holds nothing up, and costs the oldest
/// events.
#[derive(Debug)]
pub struct SubscriptionEvents {
    pub(super) receiver: broadcast::Receiver<SubscriptionEvent>,
}

impl SubscriptionEvents {
    /// The next event; `None` once the subscription is gone.
    ///
    /// CANCEL SAFETY: an event not returned stays.
    pub async fn next(&mut self) -> Option<SubscriptionEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
