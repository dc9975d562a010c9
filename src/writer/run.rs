//! The writer's loop: drain, append, sync, publish, ack.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::answers::Answers;
use super::error::JournalError;
use super::handle::{Queued, WriterHandle};
use super::state::{Effects, State, TopicChange};
use super::turn::{Demand, Turn};
use super::views::{Views, WriteState};
use crate::clock::{self, Instant};
use crate::group::Offsets;
use crate::metrics::{Metrics, Scale};
use crate::store::{CommitError, Purpose, Store};

/// A writer that runs.
pub struct Running {
    /// The way to it.
    pub handle: WriterHandle,
    /// What it has made durable.
    pub views: Arc<Views>,
    /// Ends when the last handle is gone, with the outcome of closing the store.
    pub thread: JoinHandle<Result<(), CommitError>>,
}

/// Starts the writer on a thread of its own. It ends, closing the store, when every handle is gone.
pub fn spawn(
    mut state: State,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
) -> std::io::Result<Running> {
    state.epoch = store.epoch();
    let offsets = core::mem::take(&mut state.recovered_offsets);
    state.offsets_count = offsets.len() as u64;
    state.count_producers();
    state.touch_names(clock::now_unix_ms());
    let views = Arc::new(Views::new(
        Arc::clone(&state.catalog),
        &state.partitions,
        offsets,
    ));
    let (handle, commands) = WriterHandle::channel();
    let writer = Writer {
        state,
        store,
        views: Arc::clone(&views),
        metrics,
        answers: Answers::default(),
        tidied: Vec::new(),
        failed: false,
    };
    let thread = std::thread::Builder::new()
        .name("falcon-writer".into())
        .spawn(move || {
            let mut watch = PanicWatch {
                views: Arc::clone(&writer.views),
                is_done: false,
            };
            let closed = writer.run(commands);
            watch.is_done = true;
            closed
        })?;
    Ok(Running {
        handle,
        views,
        thread,
    })
}

fn log_topic(change: &TopicChange) {
    match change {
        TopicChange::Created(topic) => info!(
            topic = topic.name,
            id = topic.id.0,
            partitions = topic.partitions,
            settings = ?topic.config,
            "topic created"
        ),
        TopicChange::Altered(topic) => info!(
            topic = topic.name,
            partitions = topic.partitions,
            settings = ?topic.config,
            "topic altered"
        ),
        TopicChange::Deleted(topic) => {
            info!(topic = topic.name, id = topic.id.0, "topic deleted");
        }
    }
}

/// Says that nothing is written any more when the writer ends by a panic.
struct PanicWatch {
    views: Arc<Views>,
    is_done: bool,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if !self.is_done {
            self.views.set_write_state(WriteState::Stopped);
            error!("the writer panicked: no change is accepted until a restart");
        }
    }
}

/// What a turn may append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) batches: Result<(), JournalError>,
    pub(super) rows: Result<(), JournalError>,
    pub(super) freeing: Result<(), JournalError>,
}

pub(super) struct Writer {
    pub(super) state: State,
    store: Arc<dyn Store>,
    pub(super) views: Arc<Views>,
    metrics: Arc<Metrics>,
    pub(super) answers: Answers,
    /// Who waits for the store to be tidied.
    pub(super) tidied: Vec<Box<dyn FnOnce() + Send>>,
    failed: bool,
}

impl Writer {
    fn run(mut self, mut commands: mpsc::Receiver<Queued>) -> Result<(), CommitError> {
        let metrics = Arc::clone(&self.metrics);
        while let Some(first) = commands.blocking_recv() {
            metrics.writer.turns.begin();
            let taken = Instant::now();
            let turn = Turn::take(first, &mut commands, &|queued| {
                let waited = taken.since(queued.since);
                metrics.writer.queue_seconds.record_time(waited);
            });
            let room = self.prepare(turn.demand);
            for command in turn.commands {
                self.admit(command, room);
            }
            let outcome = self.make_durable();
            self.answers.give(outcome);
            self.tidy();
            metrics.writer.turns.end();
        }
        metrics.writer.turns.begin();
        let closed = self.close();
        metrics.writer.turns.end();
        closed
    }

    /// What this turn may append. A segment that is due to roll gets its snapshot first, before
    /// this turn changes the state.
    fn prepare(&mut self, demand: Demand) -> Room {
        let room = self.set_aside(demand);
        match room.batches {
            Ok(()) => {
                if self.views.write_state() == WriteState::Full {
                    info!("space has returned, publishes are accepted again");
                    self.views.set_write_state(WriteState::Accepting);
                }
            }
            // A full device gets no new segment: what little is written goes on in this one.
            Err(_) => return room,
        }
        if self.store.wants_snapshot() {
            let batches = self.roll();
            if batches.is_err() {
                return Room { batches, ..room };
            }
            return self.set_aside(demand);
        }
        room
    }

    /// Goes on in the next segment.
    fn roll(&mut self) -> Result<(), JournalError> {
        let snapshot = self.state.rows(&self.views.offsets());
        let rolled = self.store.commit_snapshot(snapshot);
        rolled.map(drop).map_err(|failure| self.refusal(&failure))
    }

    fn set_aside(&mut self, demand: Demand) -> Room {
        let Demand { batches, rows } = demand;
        // What gives space back comes last to its end, so it is asked for first.
        let freeing = self.check_room(Purpose::Freeing, rows);
        let rows = freeing.and_then(|()| self.check_room(Purpose::Rows, rows));
        let all = batches.saturating_add(demand.rows);
        let batches = rows.and_then(|()| self.check_room(Purpose::Batches, all));
        Room {
            batches,
            rows,
            freeing,
        }
    }

    fn check_room(&mut self, purpose: Purpose, bytes: u64) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Stopped);
        }
        let checked = self.store.check_room(purpose, bytes);
        checked.map_err(|failure| self.refusal(&failure))
    }

    /// Why nothing is appended this turn: the device is full, or the journal has failed.
    fn refusal(&mut self, failure: &CommitError) -> JournalError {
        match *failure {
            CommitError::Full {
                free_bytes,
                floor_bytes,
            } => self.full(free_bytes, floor_bytes),
            CommitError::TooLarge { .. }
            | CommitError::Failed(_)
            | CommitError::Stopped
            | CommitError::Fenced => self.fail(failure, JournalError::Stopped),
        }
    }

    fn full(&self, free_bytes: u64, floor_bytes: u64) -> JournalError {
        if self.views.write_state() != WriteState::Full {
            error!(
                free_bytes,
                floor_bytes, "the disk is full, publishes are refused"
            );
            self.views.set_write_state(WriteState::Full);
        }
        JournalError::Full {
            free_bytes,
            floor_bytes,
        }
    }

    /// Appends the group, syncs, publishes what changed.
    fn make_durable(&mut self) -> Result<(), JournalError> {
        self.state.put_trimmed_rows();
        let group = core::mem::take(&mut self.state.group);
        let effects = core::mem::take(&mut self.state.effects);
        if group.is_empty() {
            return if self.failed {
                Err(JournalError::Stopped)
            } else {
                Ok(())
            };
        }
        if !group.batches.is_empty() {
            let batches = group.batches.len() as u64;
            let sizes = &self.metrics.writer.group_batches;
            sizes.record(Scale::Count, batches);
        }
        let committed = self
            .store
            .commit(group)
            .and_then(|seq| self.store.durable(seq));
        match committed {
            Ok(()) => {
                self.publish(effects);
                Ok(())
            }
            Err(failure) => Err(self.fail(&failure, JournalError::OutcomeUnknown)),
        }
    }

    /// INVARIANT: the first failure is final. The state holds changes that are not durable, so nothing
    /// may be decided against it any more.
    fn fail(&mut self, failure: &CommitError, outcome: JournalError) -> JournalError {
        // A failed write or sync was logged by the store, with its cause.
        if !self.failed && !matches!(failure, CommitError::Failed(_)) {
            error!(%failure, "the journal failed: no change is accepted until a restart");
        }
        self.failed = true;
        self.views.set_write_state(WriteState::Stopped);
        outcome
    }

    /// ORDER: the catalog first, so that new partitions have views, empty ones: what the group has for
    /// them appears with the rest of it. Watermarks after the store made the batches readable; the
    /// store is told of trims when readers no longer go there.
    fn publish(&mut self, mut effects: Effects) {
        effects.partitions.sort_unstable();
        effects.partitions.dedup();
        effects.topics.iter().for_each(log_topic);
        if effects.is_catalog_changed {
            let catalog = Arc::clone(&self.state.catalog);
            self.views.publish_catalog(catalog, |_| None);
        }
        let states = &self.state.partitions;
        let changed = effects.partitions.iter();
        let changed: Vec<_> = changed
            .filter_map(|id| Some((*id, states.get(id)?)))
            .collect();
        let offsets_count = &mut self.state.offsets_count;
        let changes = effects.offsets;
        let is_changed = !changes.is_empty();
        let change = is_changed.then_some(|offsets: &mut Offsets| {
            for change in changes {
                change.apply(offsets);
            }
            *offsets_count = offsets.len() as u64;
        });
        self.views.publish_group(&changed, change);
        for (id, log_start) in effects.trims {
            self.store.trim(id, log_start);
        }
    }

    /// ORDER: after the answers, which do not depend on it.
    fn tidy(&mut self) {
        if self.tidied.is_empty() {
            return;
        }
        // A segment that is due to roll gets its snapshot first here too. On a full device the next
        // segment takes copies, by which space comes back, before it takes batches.
        let room = self.prepare(Demand::default());
        let is_due = room.batches.is_err() && room.rows.is_ok() && self.store.wants_snapshot();
        if is_due && self.store.check_room(Purpose::Copies, 0).is_ok() {
            // Refused for want of space, copies still go where there is some.
            self.roll().ok();
        }
        if room.rows.is_ok()
            && !self.failed
            && let Err(failure) = self.store.tidy()
        {
            self.refusal(&failure);
        }
        for tidied in self.tidied.drain(..) {
            tidied();
        }
    }

    fn close(self) -> Result<(), CommitError> {
        // INVARIANT: after a failure the state holds what was never written; it must not become a
        // snapshot.
        if self.failed {
            warn!("closing without a clean-stop marker, because the journal had failed");
            return Err(CommitError::Stopped);
        }
        let rows = self.state.rows(&self.views.offsets());
        self.store.close(rows)
    }
}
