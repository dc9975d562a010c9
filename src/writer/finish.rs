//! What follows a commit: the sync, what becomes visible, the answers.
//!
//! Promises: nothing is visible or answered before the sync it depends on, and turns are finished in their order.
//! Must not know: what commands are decided against.

use std::collections::HashMap;
use std::sync::Arc;

use falcon_protocol::{Offset, PartitionId};
use tracing::{debug, error, info};

use super::answers::Answers;
use super::error::JournalError;
use super::lane::Lane;
use super::state::{Effects, OffsetChange, State, TopicChange};
use super::views::{Followers, LogBounds, Views, WriteState};
use crate::catalog::Catalog;
use crate::group::Offsets;
use crate::io::environment;
use crate::metrics::Metrics;
use crate::store::{CommitError, CommitSeq, Store};

/// LIMIT: bytes of a turn's batches up to which subscribers may be sent what they have by the writer's thread.
const DIRECT_BYTES_MAX: u64 = 16 << 10;
/// LIMIT: subscribers of a turn's partitions up to which they are.
const DIRECT_MAX: usize = 4;

/// What the views show after the sync, as it was when the group was committed: the state moves on.
#[derive(Debug, Default)]
pub(super) struct Visible {
    partitions: Vec<(PartitionId, LogBounds)>,
    catalog: Option<Arc<Catalog>>,
    offsets: Vec<OffsetChange>,
    trims: Vec<(PartitionId, Option<Offset>)>,
    topics: Vec<TopicChange>,
}

impl Visible {
    pub(super) fn of(mut effects: Effects, state: &State) -> Self {
        effects.partitions.sort_unstable();
        effects.partitions.dedup();
        let changed = effects.partitions.iter();
        let bounds = |id: &PartitionId| Some((*id, state.partitions.get(id)?.into()));
        Self {
            partitions: changed.filter_map(bounds).collect(),
            catalog: effects
                .is_catalog_changed
                .then(|| Arc::clone(&state.catalog)),
            offsets: effects.offsets,
            trims: effects.trims,
            topics: effects.topics,
        }
    }
}

/// A turn whose commands were decided on.
pub(super) struct Turned {
    /// Its group, unless it has none or was not taken.
    pub(super) committed: Result<Option<CommitSeq>, JournalError>,
    /// About how many its batches have.
    pub(super) bytes: u64,
    pub(super) visible: Visible,
    pub(super) answers: Answers,
}

/// Finishes turns, on the writer's thread or beside it.
pub(super) struct Finisher {
    pub(super) store: Arc<dyn Store>,
    pub(super) views: Arc<Views>,
}

impl Finisher {
    /// Whether nothing is accepted any more.
    pub(super) fn has_failed(&self) -> bool {
        self.views.write_state() == WriteState::Stopped
    }

    /// INVARIANT: the first failure is final. The state holds changes that are not durable, so nothing
    /// may be decided against it any more.
    pub(super) fn fail(&self, failure: &CommitError, outcome: JournalError) -> JournalError {
        // A failed write or sync was logged by the store, with its cause.
        if !self.has_failed() && !matches!(failure, CommitError::Failed(_)) {
            error!(%failure, "the journal failed: no change is accepted until a restart");
        }
        self.views.set_write_state(WriteState::Stopped);
        outcome
    }

    /// Waits until a turn is durable, shows it, and gives its answers. Answers how many offsets are stored, when
    /// they changed.
    pub(super) fn finish(&self, turned: Turned) -> Option<u64> {
        let Turned {
            committed,
            bytes,
            visible,
            mut answers,
        } = turned;
        let is_small = bytes <= DIRECT_BYTES_MAX;
        let mut followers = Followers::new(if is_small { DIRECT_MAX } else { 0 });
        let mut offsets_count = None;
        let outcome = match committed {
            // A thread that ended by a panic may have left a hole before it; and a turn of duplicates alone repeats
            // what was not made durable. Refusals have their own words.
            Ok(_) if self.has_failed() => Err(JournalError::OutcomeUnknown),
            Ok(Some(seq)) => match self.store.durable(seq) {
                Ok(()) => {
                    offsets_count = self.show(visible, &mut followers);
                    Ok(())
                }
                Err(failure) => Err(self.fail(&failure, JournalError::OutcomeUnknown)),
            },
            Ok(None) => Ok(()),
            Err(refused) => Err(refused),
        };
        answers.flush(followers.flushes);
        answers.give(outcome);
        offsets_count
    }

    /// ORDER: the catalog first, so that new partitions have views, empty ones: what the group has for
    /// them appears with the rest of it. Watermarks after the store made the batches readable; the
    /// store is told of trims when readers no longer go there.
    fn show(&self, visible: Visible, followers: &mut Followers) -> Option<u64> {
        visible.topics.iter().for_each(log_topic);
        if let Some(catalog) = visible.catalog {
            self.views.publish_catalog(catalog, &HashMap::new());
        }
        let changes = visible.offsets;
        let mut count = None;
        let is_changed = !changes.is_empty();
        let change = is_changed.then_some(|offsets: &mut Offsets| {
            for change in changes {
                change.apply(offsets);
            }
            count = Some(offsets.len() as u64);
        });
        self.views
            .publish_group(&visible.partitions, change, followers);
        for (id, log_start) in visible.trims {
            self.store.trim(id, log_start);
        }
        count
    }
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

/// Says that nothing is written any more when a thread ends by a panic.
pub(super) struct PanicWatch {
    views: Arc<Views>,
    lane: Arc<Lane<Turned>>,
    is_done: bool,
}

impl PanicWatch {
    pub(super) fn new(views: &Arc<Views>, lane: &Arc<Lane<Turned>>) -> Self {
        Self {
            views: Arc::clone(views),
            lane: Arc::clone(lane),
            is_done: false,
        }
    }

    /// It ended as it should.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if !self.is_done {
            self.views.set_write_state(WriteState::Stopped);
            self.lane.abandon();
            error!("the writer panicked: no change is accepted until a restart");
        }
    }
}

/// Everybody waits for the writer's threads, and they wait for the device most of the time: behind each of their short
/// turns on a processor that is busy, the device would be idle. Without the right to precedence nothing is lost but time.
pub(super) fn hurry() {
    if let Err(error) = environment::hurry_this_thread() {
        debug!(%error, "the writer's threads have no precedence");
    }
}

/// What `falcon-syncer` does: finishes turns that it is handed, until there are no more.
pub(super) fn run(lane: &Arc<Lane<Turned>>, finisher: &Finisher, metrics: &Metrics) {
    hurry();
    let watch = PanicWatch::new(&finisher.views, lane);
    while let Some(turned) = lane.take() {
        metrics.writer.finishes.begin();
        // Such turns change no offsets.
        let _none = finisher.finish(turned);
        metrics.writer.finishes.end();
    }
    watch.done();
}
