//! Sending what is new on the thread that made it durable, for a subscription that waits for nothing else.
//!
//! Owns the subscription's progress while its task has nothing to do: the task lends it, and takes it back before
//! it does anything. Promises: each record is sent by one of the two, in order; nothing beyond the credit; nothing
//! that would have to be read from the device or waited for: that is left to the task. Must not know: sockets.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use falcon_protocol::Kind;

use super::Control;
use super::progress::Progress;
use crate::reader::Reader;
use crate::server::fetch::head;
use crate::server::outbox::{Direct, Outbox};
use crate::writer::{Flush, PartitionView, Watcher};

/// LIMIT: bytes of a delivery that is sent so.
const DIRECT_BYTES_MAX: usize = 16 * 1024;

/// Follows the partitions of a subscription.
pub(super) struct Follower {
    pub(super) number: u32,
    pub(super) control: Arc<Control>,
    pub(super) reader: Reader,
    pub(super) outbox: Arc<Outbox>,
    /// Bytes of batches that fit into a frame.
    pub(super) frame_room: usize,
    /// Lent by the task while nothing of the subscription is read or waits for room among the deliveries.
    pub(super) lent: Mutex<Option<Progress>>,
}

impl Follower {
    fn lock(&self) -> MutexGuard<'_, Option<Progress>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends the progress until [`take_back`](Self::take_back). For the subscription's task alone.
    pub(super) fn lend(&self, progress: Progress) {
        *self.lock() = Some(progress);
        self.outbox.rests();
    }

    /// The progress, if it was lent.
    pub(super) fn take_back(&self) -> Option<Progress> {
        let back = self.lock().take()?;
        self.outbox.goes_on();
        Some(back)
    }

    /// Queues what is new behind the answers. `None`: it has to be left to the task.
    fn send(&self, view: &PartitionView) -> Option<Direct> {
        let mut lent = self.lock();
        let Progress {
            positions, sent, ..
        } = lent.as_mut()?;
        let mut positions = positions.iter_mut();
        let position = positions.find(|position| position.view.id == view.id)?;
        let (bytes, records) = sent.credit(&self.control);
        if bytes == 0 || records == 0 {
            return None;
        }
        let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes_max = bytes_max.min(self.frame_room).min(DIRECT_BYTES_MAX);
        let chunk = self.reader.tail(view, position.next, bytes_max)?;
        if chunk.records > records {
            return None;
        }
        let head = head(Kind::Deliver, self.number, view, chunk.bytes);
        let direct = self.outbox.deliver(&head, &chunk.batches)?;
        position.next = chunk.next;
        position.ahead = chunk.next;
        sent.add(chunk.bytes, chunk.records);
        let server = &self.outbox.metrics().server;
        server.records_delivered.add(chunk.records);
        Some(direct)
    }
}

impl Watcher for Follower {
    fn wake(&self) {
        self.control.changed.notify_one();
    }

    fn catch_up(&self, view: &PartitionView) -> Option<Arc<dyn Flush>> {
        let Some(Direct(flush)) = self.send(view) else {
            self.wake();
            return None;
        };
        flush
    }
}
