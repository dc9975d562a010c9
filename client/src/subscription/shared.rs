//! What the handle of a subscription shares with its driver.

use std::sync::{Arc, Mutex};

use falcon_protocol::codes::{ErrorCode, Retry};
use falcon_protocol::message::StartPosition;
use falcon_protocol::{Offset, Partition};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::Reset;
use super::events::SubscriptionEvent;
use super::state::{Place, State};
use crate::connection::{Incoming, Inlet};
use crate::core::Core;
use crate::error::{Refusal, SubscribeError};
use crate::sync::lock;

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) topic: Arc<str>,
    pub(super) reset: Reset,
    /// Whether partitions added later belong to it.
    pub(super) has_all_partitions: bool,
    pub(super) state: Mutex<State>,
    /// Asks the driver to subscribe anew.
    pub(super) restart: Notify,
    /// Asks the driver to end.
    pub(super) closing: CancellationToken,
    /// The driver has ended.
    pub(super) ended: CancellationToken,
    pub(super) events: broadcast::Sender<SubscriptionEvent>,
}

impl Shared {
    pub(super) fn tell(&self, event: SubscriptionEvent) {
        // Nobody listening is no error.
        self.events.send(event).ok();
    }

    /// Ends the stream.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.wake();
        drop(state);
        self.closing.cancel();
    }

    /// A partition cannot go on for this reason: ends it, or makes it start elsewhere. Returns
    /// what the stream is told, and whether to subscribe anew.
    pub(super) fn end_partition(
        &self,
        partition: Option<Partition>,
        refusal: Refusal,
    ) -> (Option<SubscribeError>, bool) {
        let mut state = lock(&self.state);
        let partition = partition.or_else(|| match state.partitions.len() {
            1 => state.partitions.keys().next().copied(),
            _ => None,
        });
        if refusal.code == ErrorCode::UnknownTopic {
            return (None, true);
        }
        let Some(partition) = partition else {
            // All of them: the subscription as a whole has to begin again.
            return (None, true);
        };
        let position = match state.partitions.get(&partition).map(|p| p.place) {
            Some(Place::At(offset) | Place::Start(StartPosition::Offset(offset))) => offset,
            Some(Place::Start(_)) => Offset::ZERO,
            Some(Place::Ended) | None => return (None, false),
        };
        let range = Offset(refusal.low)..Offset(refusal.high);
        let (error, place) = match (refusal.code, refusal.code.retry()) {
            (ErrorCode::OffsetOutOfRange, _) => {
                let error = SubscribeError::OffsetOutOfRange {
                    partition,
                    position,
                    available: range,
                };
                (Some(error), self.reset.place())
            }
            (ErrorCode::DamagedRange, _) => {
                let error = SubscribeError::DamagedRange { partition, range };
                (Some(error), Place::Ended)
            }
            (_, Retry::Rejoin) => (None, Place::At(position)),
            (_, Retry::Backoff) => {
                let error = SubscribeError::PartitionEnded { partition, refusal };
                (Some(error), Place::At(position))
            }
            (_, Retry::Never) => {
                let error = SubscribeError::PartitionEnded { partition, refusal };
                (Some(error), Place::Ended)
            }
        };
        if place == Place::Ended {
            state.end_partition(partition);
            drop(state);
            self.tell(SubscriptionEvent::PartitionEnded { partition });
            return (error, false);
        }
        if let Some(known) = state.partitions.get_mut(&partition) {
            // A start that the broker has not placed yet stays what it was.
            let is_unplaced = matches!(known.place, Place::Start(_));
            if !(is_unplaced && matches!(place, Place::At(_))) {
                known.place = place;
            }
        }
        (error, true)
    }
}

/// Where one incarnation of a subscription takes in what the broker sends.
pub(super) struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) incarnation: u64,
}

impl Inlet for Port {
    fn accept(&self, incoming: Incoming) -> Result<(), &'static str> {
        lock(&self.shared.state).accept(self.incarnation, incoming)
    }
}
