//! What the writer takes out of its queue at once.

use tokio::sync::mpsc;

use super::command::Command;
use super::handle::Queued;

/// A group is closed when its batches have this many bytes: more does not make a sync cheaper.
const GROUP_BYTES_TARGET: u64 = 4 * 1024 * 1024;
/// What a batch takes besides its own bytes, at most.
const BATCH_ROOM: u64 = 64;
/// LIMIT: what one command's rows are taken to need at most; only a group's offsets deleted all at
/// once can be more.
const ROWS_ROOM_MAX: u64 = 1 << 20;

/// About how many bytes a turn appends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    pub(super) batches: u64,
    pub(super) rows: u64,
}

/// Commands that share a commit group.
pub(super) struct Turn {
    pub(super) commands: Vec<Command>,
    pub(super) demand: Demand,
    /// All of them publish a batch: what they are decided against, the state alone knows.
    pub(super) is_publishes: bool,
}

impl Turn {
    /// Takes `first` and what waits behind it, as much as one group shall have; each is shown to
    /// `on_taken`.
    pub(super) fn take(
        first: Queued,
        commands: &mut mpsc::Receiver<Queued>,
        on_taken: &dyn Fn(&Queued),
    ) -> Self {
        let mut turn = Self {
            commands: Vec::new(),
            demand: Demand::default(),
            is_publishes: true,
        };
        let mut next = Some(first);
        let mut bytes = 0;
        while let Some(queued) = next {
            on_taken(&queued);
            bytes += turn.push(queued.command);
            next = if bytes < GROUP_BYTES_TARGET {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        turn
    }

    /// Answers how much fuller the group is now.
    fn push(&mut self, command: Command) -> u64 {
        let (batch_bytes, batches) = command.batch_bytes();
        let row_bytes = command.row_bytes() as u64;
        let demand = &mut self.demand;
        demand.batches += batch_bytes + batches * BATCH_ROOM;
        // Twice: it is an estimate, and entries are padded.
        demand.rows += row_bytes.saturating_mul(2).min(ROWS_ROOM_MAX);
        self.is_publishes &= matches!(command, Command::Publish(_));
        self.commands.push(command);
        batch_bytes.saturating_add(row_bytes)
    }
}
