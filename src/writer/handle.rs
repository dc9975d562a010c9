//! The way to the writer from everywhere else.

use thiserror::Error;
use tokio::sync::mpsc;

use super::command::Command;
use crate::clock::Instant;

/// LIMIT: commands that may wait. Their bytes are bounded by the permits they hold.
pub(super) const QUEUE_COMMANDS_MAX: usize = 8192;

/// The writer is gone: the broker is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the broker is shutting down")]
pub struct QueueClosed;

/// A command and since when somebody waits for it.
pub(super) struct Queued {
    pub(super) since: Instant,
    pub(super) command: Command,
}

/// Sends commands to the writer. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    queue: mpsc::Sender<Queued>,
}

impl WriterHandle {
    pub(super) fn channel() -> (Self, mpsc::Receiver<Queued>) {
        let (queue, commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
        (Self { queue }, commands)
    }

    /// Waits for room in the queue, then hands the command over. On error the command, and with
    /// it its answer, is dropped; else the answer is given, whatever happens to the writer.
    ///
    /// CANCEL SAFETY: when dropped before it completes, the command was not handed over.
    pub async fn send(&self, command: Command) -> Result<(), QueueClosed> {
        let since = Instant::now();
        let room = self.queue.reserve().await.map_err(|_| QueueClosed)?;
        let command = command.due();
        room.send(Queued { since, command });
        Ok(())
    }
}
