//! What is appended without anybody asking: copies of old records, and marks of an idle journal.

use super::Appender;
use crate::store::local::Shared;
use crate::store::local::journal::group::ExtentCopy;
use crate::store::local::journal::state::StoreState;
use crate::store::{CommitError, CommitGroup, Purpose};

/// LIMIT: partitions whose ends an idle mark carries, 24 bytes each; with more it carries none.
const MARKED_PARTITIONS_MAX: usize = 4096;

/// What was seen of the journal's end when it was last tidied.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Sequence of the next group then.
    seen: Option<u64>,
    /// Sequence of the group after the last mark.
    marked: Option<u64>,
}

impl Appender {
    /// Appends the copies that were gathered, or else, when nothing was appended since the last
    /// call, an idle mark. Both are durable when this returns.
    pub(in crate::store::local) fn tidy(&mut self, shared: &Shared) -> Result<(), CommitError> {
        if self.device.is_stopped() || self.active.is_none() {
            return Ok(());
        }
        let copies = shared.forward.take(shared);
        if copies.is_empty() {
            return self.mark_idle(shared);
        }
        if !self.has_room(shared, &copies) {
            // They are gathered again later.
            return Ok(());
        }
        self.append_with_trims(shared, &CommitGroup::default(), &copies, None)?;
        self.sync(shared)
    }

    /// Whether copies may be appended, also on a full device: they are how its space comes back.
    fn has_room(&mut self, shared: &Shared, copies: &[ExtentCopy]) -> bool {
        let bytes = |copy: &ExtentCopy| u64::from(copy.extent.bytes) + 64;
        let need: u64 = copies.iter().map(bytes).sum();
        self.check_room(shared, Purpose::Copies, need).is_ok()
    }

    /// A group without batches behind the last one. It says that everything before it was durable,
    /// and where each partition ends, so that rot in the last group is never taken for a torn tail
    /// and what it took is named even where nothing of it can be read.
    fn mark_idle(&mut self, shared: &Shared) -> Result<(), CommitError> {
        let next = Some(self.next_seq);
        let is_busy = self.idle.seen != next || self.device.synced_seq() != self.next_seq;
        self.idle.seen = next;
        if is_busy || self.idle.marked == next {
            return Ok(());
        }
        let state = shared.state();
        let state = (state.partitions.len() <= MARKED_PARTITIONS_MAX).then_some(&state);
        let bytes = state.map_or(0, StoreState::encoded_bytes) as u64;
        if self.check_room(shared, Purpose::Rows, bytes).is_err() {
            return Ok(());
        }
        self.append_with_trims(shared, &CommitGroup::default(), &[], state)?;
        self.sync(shared)?;
        self.idle.seen = Some(self.next_seq);
        self.idle.marked = Some(self.next_seq);
        Ok(())
    }
}
