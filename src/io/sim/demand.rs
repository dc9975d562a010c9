//! What can be demanded of a simulated disk: failures, lies, detours; and what came of them.

use std::ops::Range;
use std::path::Path;
use std::sync::PoisonError;

use super::SimDisk;
use super::faults::{SimAstray, SimFailure, SimFault, SimOperation, SimTimes};

impl SimDisk {
    /// Makes the `n`-th write from now (1 is the next) fail, after half of it was taken.
    pub fn fail_write(&self, n: u64, fault: SimFault) {
        self.fail(SimOperation::Write, n, fault, SimTimes::Once);
    }

    /// Makes the `n`-th `sync_data` from now (1 is the next) fail.
    pub fn fail_sync(&self, n: u64, fault: SimFault) {
        self.fail(SimOperation::Sync, n, fault, SimTimes::Once);
    }

    /// Makes every `sync_data` wait from now on, or lets those that wait go on.
    pub fn hold_syncs(&self, is_held: bool) {
        let (gate, changed) = &*self.gate;
        *gate.lock().unwrap_or_else(PoisonError::into_inner) = is_held;
        changed.notify_all();
    }

    /// Blocks while syncs are held.
    pub(super) fn pass_gate(&self) {
        let (gate, changed) = &*self.gate;
        let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(held, |is_held| *is_held));
    }

    /// Makes the `n`-th such operation from now (1 is the next) fail, or all from it on.
    pub fn fail(&self, operation: SimOperation, n: u64, fault: SimFault, times: SimTimes) {
        self.state().faults.plan(operation, n, fault, times);
    }

    /// Makes the `n`-th `sync_data` from now, or all from it on, report success and keep nothing.
    pub fn lie_sync(&self, n: u64, times: SimTimes) {
        self.state().faults.plan_lie(n, times);
    }

    /// Makes the `n`-th write from now land elsewhere in its file, or in another file of the same
    /// folder. `seed` decides where.
    pub fn misdirect_write(&self, n: u64, seed: u64) {
        self.state().faults.plan_detour_of_write(n, seed);
    }

    /// Makes the `n`-th read from now return the bytes of another place, as
    /// [`misdirect_write`](Self::misdirect_write) does.
    pub fn misdirect_read(&self, n: u64, seed: u64) {
        self.state().faults.plan_detour_of_read(n, seed);
    }

    /// Lets everything work again.
    pub fn heal(&self) {
        self.state().faults.heal();
    }

    /// Whoever used it has ended: what comes next may use files again whose sync failed.
    pub fn note_restart(&self) {
        self.state().faults.note_restart();
    }

    /// What failed so far, in order.
    pub fn failures(&self) -> Vec<SimFailure> {
        self.state().faults.failures.clone()
    }

    /// Where the misdirected write or read went, once it did.
    pub fn astray(&self) -> Option<SimAstray> {
        self.state().astray_by_name()
    }

    /// How many writes and syncs were asked of a file after a sync of it had failed.
    pub fn used_after_failed_sync(&self) -> u64 {
        self.state().faults.used_after_failure
    }

    /// How many times an operation was asked for.
    pub fn count(&self, operation: SimOperation) -> u64 {
        self.state().faults.count(operation)
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> u64 {
        self.count(SimOperation::Write)
    }

    /// How many times `sync_data` was asked for.
    pub fn syncs(&self) -> u64 {
        self.count(SimOperation::Sync)
    }

    /// How many reads were asked for.
    pub fn reads(&self) -> u64 {
        self.state().faults.reads()
    }

    /// Makes reads of these bytes fail with `EIO`; answers whether there is such a file.
    pub fn make_unreadable(&self, path: &Path, range: Range<u64>) -> bool {
        let mut state = self.state();
        let id = state.names.get(path).copied();
        state.unreadable.extend(id.map(|id| (id, range)));
        id.is_some()
    }

    /// Makes everything readable again.
    pub fn make_readable(&self) {
        self.state().unreadable.clear();
    }

    /// Flips one bit; answers whether there is such a byte.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(id) = state.names.get(path).copied() else {
            return false;
        };
        let (Some(content), Ok(position)) =
            (state.contents.get_mut(&id), usize::try_from(position))
        else {
            return false;
        };
        for bytes in [&mut content.synced, &mut content.now] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << (bit & 7);
            }
        }
        position < content.now.len()
    }
}
