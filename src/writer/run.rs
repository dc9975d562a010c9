//! The writer's loop: drain, decide, commit; then finish the turn, or hand it to the thread that does.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::answers::Answers;
use super::error::JournalError;
use super::finish::{self, Finisher, PanicWatch, Turned, Visible};
use super::handle::{Queued, WriterHandle};
use super::lane::Lane;
use super::state::State;
use super::turn::{Demand, Turn};
use super::views::{Views, WriteState};
use crate::clock::{self, Instant};
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

/// From this size of a group on it pays to lay the next one out meanwhile.
const OVERLAP_BYTES: u64 = 256 << 10;

/// Starts the writer on threads of its own. They end, closing the store, when every handle is gone.
pub fn spawn(
    state: State,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
) -> std::io::Result<Running> {
    spawn_overlapping(state, store, metrics, OVERLAP_BYTES)
}

/// As [`spawn`], for groups of publishes alone from this size on.
pub(super) fn spawn_overlapping(
    mut state: State,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    overlap_bytes: u64,
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
    let finisher = Arc::new(Finisher {
        store,
        views: Arc::clone(&views),
    });
    let lane = Arc::new(Lane::new());
    let syncer = std::thread::Builder::new()
        .name("falcon-syncer".into())
        .spawn({
            let (lane, finisher) = (Arc::clone(&lane), Arc::clone(&finisher));
            let metrics = Arc::clone(&metrics);
            move || finish::run(&lane, &finisher, &metrics)
        })?;
    let writer = Writer {
        state,
        views: Arc::clone(&views),
        metrics,
        answers: Answers::default(),
        tidied: Vec::new(),
        finisher,
        lane: Arc::clone(&lane),
        overlap_bytes,
    };
    let thread = std::thread::Builder::new()
        .name("falcon-writer".into())
        .spawn(move || {
            finish::hurry();
            let watch = PanicWatch::new(&writer.views, &writer.lane);
            let closed = writer.run(commands, syncer);
            watch.done();
            closed
        });
    if thread.is_err() {
        lane.close();
    }
    Ok(Running {
        handle,
        views,
        thread: thread?,
    })
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
    pub(super) views: Arc<Views>,
    metrics: Arc<Metrics>,
    pub(super) answers: Answers,
    /// Who waits for the store to be tidied.
    pub(super) tidied: Vec<Box<dyn FnOnce() + Send>>,
    finisher: Arc<Finisher>,
    /// To the thread that finishes large turns.
    lane: Arc<Lane<Turned>>,
    overlap_bytes: u64,
}

impl Writer {
    fn run(
        mut self,
        mut commands: mpsc::Receiver<Queued>,
        syncer: JoinHandle<()>,
    ) -> Result<(), CommitError> {
        let metrics = Arc::clone(&self.metrics);
        while let Some(first) = commands.blocking_recv() {
            metrics.writer.turns.begin();
            // What arrives until then becomes one group.
            self.lane.wait_for_room();
            let taken = Instant::now();
            let turn = Turn::take(first, &mut commands, &|queued| {
                let waited = taken.since(queued.since);
                metrics.writer.queue_seconds.record_time(waited);
            });
            self.turn(turn);
            metrics.writer.turns.end();
        }
        metrics.writer.turns.begin();
        self.lane.close();
        if syncer.join().is_err() {
            error!("the thread that syncs ended by a panic");
        }
        let closed = self.close();
        metrics.writer.turns.end();
        closed
    }

    /// ORDER: all but publishes is decided against what is durable, and shown by itself.
    fn turn(&mut self, turn: Turn) {
        if !turn.is_publishes {
            self.lane.wait_until_idle();
        }
        let room = self.prepare(turn.demand);
        let (bytes, count) = (turn.demand.batches, turn.commands.len() as u64);
        // Many small batches are better off in fewer and larger groups.
        let is_large =
            bytes >= self.overlap_bytes && bytes / count.max(1) >= self.overlap_bytes / 4;
        for command in turn.commands {
            self.admit(command, room);
        }
        let turned = self.commit(bytes);
        if turn.is_publishes && (is_large || !self.lane.is_idle()) {
            if let Err(mut left) = self.lane.put(turned) {
                left.answers.give(Err(JournalError::OutcomeUnknown));
            }
            return;
        }
        if let Some(count) = self.finisher.finish(turned) {
            self.state.offsets_count = count;
        }
        self.tidy();
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
        if self.finisher.store.wants_snapshot() {
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
        self.lane.wait_until_idle();
        if self.finisher.has_failed() {
            return Err(JournalError::Stopped);
        }
        let snapshot = self.state.rows(&self.views.offsets());
        let rolled = self.finisher.store.commit_snapshot(snapshot);
        rolled.map(drop).map_err(|failure| self.refusal(&failure))
    }

    fn set_aside(&self, demand: Demand) -> Room {
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

    fn check_room(&self, purpose: Purpose, bytes: u64) -> Result<(), JournalError> {
        if self.finisher.has_failed() {
            return Err(JournalError::Stopped);
        }
        let checked = self.finisher.store.check_room(purpose, bytes);
        checked.map_err(|failure| self.refusal(&failure))
    }

    /// Why nothing is appended this turn: the device is full, or the journal has failed.
    fn refusal(&self, failure: &CommitError) -> JournalError {
        match *failure {
            CommitError::Full {
                free_bytes,
                floor_bytes,
            } => self.full(free_bytes, floor_bytes),
            CommitError::TooLarge { .. }
            | CommitError::Failed(_)
            | CommitError::Stopped
            | CommitError::Fenced => self.finisher.fail(failure, JournalError::Stopped),
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

    /// Hands the group to the store; its batches have about `bytes`.
    fn commit(&mut self, bytes: u64) -> Turned {
        self.state.put_trimmed_rows();
        let group = core::mem::take(&mut self.state.group);
        let effects = core::mem::take(&mut self.state.effects);
        let visible = Visible::of(effects, &self.state);
        let answers = core::mem::take(&mut self.answers);
        if !group.batches.is_empty() {
            let batches = group.batches.len() as u64;
            let sizes = &self.metrics.writer.group_batches;
            sizes.record(Scale::Count, batches);
        }
        let committed = if group.is_empty() {
            Ok(None)
        } else {
            let committed = self.finisher.store.commit(group);
            committed
                .map(Some)
                .map_err(|failure| self.finisher.fail(&failure, JournalError::OutcomeUnknown))
        };
        Turned {
            committed,
            bytes,
            visible,
            answers,
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
        let is_due =
            room.batches.is_err() && room.rows.is_ok() && self.finisher.store.wants_snapshot();
        if is_due && self.finisher.store.check_room(Purpose::Copies, 0).is_ok() {
            // Refused for want of space, copies still go where there is some.
            self.roll().ok();
        }
        if room.rows.is_ok()
            && !self.finisher.has_failed()
            && let Err(failure) = self.finisher.store.tidy()
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
        if self.finisher.has_failed() {
            warn!("closing without a clean-stop marker, because the journal had failed");
            return Err(CommitError::Stopped);
        }
        let rows = self.state.rows(&self.views.offsets());
        self.finisher.store.close(rows)
    }
}
