//! How far a subscription has come: what it sends next, and what it may still send.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use falcon_protocol::{Offset, PartitionId};

use super::Control;
use crate::writer::{PartitionView, Watch};

/// One partition of a subscription.
pub(super) struct Position {
    pub(super) view: Arc<PartitionView>,
    /// The next record to send.
    pub(super) next: Offset,
    /// The next record to read.
    pub(super) ahead: Offset,
    _watch: Watch,
}

impl Position {
    pub(super) fn new(view: Arc<PartitionView>, next: Offset, watch: Watch) -> Self {
        Self {
            view,
            next,
            ahead: next,
            _watch: watch,
        }
    }

    fn has_data(&self) -> bool {
        self.view.is_deleted() || self.ahead < self.view.high_watermark()
    }
}

/// What a subscription has sent so far.
#[derive(Debug, Default)]
pub(super) struct Sent {
    bytes: u64,
    records: u64,
    /// Bytes of the last piece.
    pub(super) recent_bytes: usize,
    /// To pay for the next piece at least: the last one was larger than what had been paid.
    pub(super) owed_bytes: usize,
}

impl Sent {
    /// Counts a piece.
    pub(super) fn add(&mut self, bytes: usize, records: u64) {
        self.bytes += bytes as u64;
        self.records += records;
        self.recent_bytes = bytes;
        self.owed_bytes = 0;
    }

    /// Bytes and records that may be sent now.
    pub(super) fn credit(&self, control: &Control) -> (u64, u64) {
        let records = control.records_total.load(Ordering::Acquire);
        let bytes = control.bytes_total.load(Ordering::Acquire);
        (
            bytes.saturating_sub(self.bytes),
            records.saturating_sub(self.records),
        )
    }
}

/// Where a subscription is. Whoever has it may send for the subscription.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) positions: Vec<Position>,
    /// Where the next search for data begins, so that partitions take turns.
    pub(super) turn: usize,
    pub(super) sent: Sent,
}

impl Progress {
    pub(super) fn index_of(&self, id: PartitionId) -> Option<usize> {
        let mut positions = self.positions.iter();
        positions.position(|position| position.view.id == id)
    }

    pub(super) fn next_with_data(&mut self) -> Option<&mut Position> {
        let count = self.positions.len();
        let order = (0..count).map(|step| (self.turn + step) % count);
        let mut ready = order.filter(|index| {
            let position = self.positions.get(*index);
            position.is_some_and(Position::has_data)
        });
        let found = ready.next()?;
        self.turn = found + 1;
        self.positions.get_mut(found)
    }

    /// Forgets what was read ahead: the next piece begins behind what was sent.
    pub(super) fn start_over(&mut self) {
        for position in &mut self.positions {
            position.ahead = position.next;
        }
    }
}
