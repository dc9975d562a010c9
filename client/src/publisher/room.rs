//! Room in a publisher's window: bytes of payload that may still be taken.
//!
//! Owns who gets room, and in which order. Promises: no more is given than the window has; who waits longest
//! is served first; room that nobody waits for costs no more than the lock that a record needs anyway.
//!
//! INVARIANT: while somebody waits, all that is free is in the line, whose queue is fair; otherwise nothing is.

use tokio::sync::Semaphore;

use super::shared::Shared;
use crate::error::PublishError;
use crate::sync::lock;

/// Room that nobody waits for. Lives in the intake, behind its lock.
#[derive(Debug)]
pub(super) struct Room {
    free_bytes: usize,
    waiting: usize,
}

impl Room {
    pub(super) const fn new(window_bytes: usize) -> Self {
        Self {
            free_bytes: window_bytes,
            waiting: 0,
        }
    }

    /// Takes room if there is enough and nobody has waited for it before.
    pub(super) fn try_take(&mut self, bytes: usize) -> bool {
        let is_taken = self.waiting == 0 && bytes <= self.free_bytes;
        if is_taken {
            self.free_bytes -= bytes;
        }
        is_taken
    }

    /// Gives room back: to those in the line, if there are any.
    pub(super) fn give_back(&mut self, bytes: usize, line: &Semaphore) {
        if self.waiting == 0 {
            self.free_bytes += bytes;
        } else {
            line.add_permits(bytes);
        }
    }

    /// Room that is not taken.
    pub(super) fn free_bytes(&self, line: &Semaphore) -> usize {
        self.free_bytes + line.available_permits()
    }
}

/// A place in the line for room; left by dropping it.
struct Place<'a> {
    shared: &'a Shared,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Self {
        let mut intake = lock(&shared.intake);
        intake.room.waiting += 1;
        let free = std::mem::take(&mut intake.room.free_bytes);
        shared.line.add_permits(free);
        drop(intake);
        Self { shared }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut intake = lock(&self.shared.intake);
        intake.room.waiting -= 1;
        if intake.room.waiting == 0 {
            let line = &self.shared.line;
            intake.room.free_bytes += line.forget_permits(line.available_permits());
        }
    }
}

impl Shared {
    /// Waits for room in the window, behind those who have waited before.
    ///
    /// CANCEL SAFETY: dropped before it resolves, no room is taken.
    pub(super) async fn take_room(&self, bytes: u32) -> Result<(), PublishError> {
        // ORDER: the place is left after the permits are, so that none stay behind in the line.
        let _place = Place::take(self);
        match self.line.acquire_many(bytes).await {
            Ok(permits) => permits.forget(),
            Err(_) => return Err(self.closed_reason()),
        }
        Ok(())
    }
}
