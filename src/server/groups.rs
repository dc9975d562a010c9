//! Consumer groups: the coordinator inside the broker, and the requests of members and of people.
//!
//! Owns the task that drives the coordinator, who waits for an answer of it, and what members say of
//! their progress. Promises: a member's request is answered once, or dropped with its connection; what
//! members asked before a timer is looked at before the timer is; waiting for the writer holds up nobody
//! who does not need it; memory is bounded by members and partitions. Must not know: how a partition
//! moves, what a fence is in the journal.

mod ask;
mod describe;
mod fencing;
mod members;
mod offsets;
mod partitions;
mod roster;
mod task;
mod told;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use falcon_protocol::{OwnerEpoch, PartitionId};
use tokio::sync::mpsc;

use crate::clock;
use crate::group::coordinator::{Coordinator, Figures, Times};
use crate::metrics::Metrics;
use crate::writer::{Views, WriterHandle};
pub(super) use ask::ChangeError;
use ask::{Ask, Asked};
use fencing::Fencing;
use roster::Roster;
use task::Task;

/// LIMIT: questions to the coordinator that may wait.
const ASKS_MAX: usize = 1024;

/// The way to the coordinator. Its task ends with the token it was started under.
#[derive(Debug)]
pub struct Groups {
    asks: mpsc::Sender<Asked>,
    active: Arc<Active>,
}

/// Groups with members, for those who must not wait.
#[derive(Debug, Default)]
struct Active(RwLock<BTreeMap<String, Figures>>);

/// What the coordinator needs.
pub struct Needs {
    /// What is durable.
    pub views: Arc<Views>,
    /// Where fences are made durable.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Partitions of all groups together.
    pub partitions_max: usize,
}

impl Groups {
    /// A coordinator with the durable fences, and the future that drives it.
    pub fn new(
        needs: Needs,
        fences: Vec<(String, PartitionId, OwnerEpoch)>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let catalog = needs.views.catalog();
        let coordinator = Coordinator::new(Times::default(), catalog, fences)
            .with_partitions_max(needs.partitions_max);
        let (to, asks) = mpsc::channel(ASKS_MAX);
        let active = Arc::new(Active::default());
        let (fencing, jobs, done) = Fencing::new();
        let task = Task {
            coordinator,
            calls: std::collections::HashMap::new(),
            tickets: 0,
            roster: Roster::default(),
            active: Arc::clone(&active),
            views: needs.views,
            metrics: needs.metrics,
            fencing,
            until: clock::monotonic_ms(),
            members: 0,
            warned: None,
        };
        let writer = needs.writer;
        let driven = async move {
            tokio::join!(task.run(asks, done), fencing::hand_over(jobs, writer));
        };
        (Self { asks: to, active }, driven)
    }

    /// Whether a group has members.
    pub(super) fn is_active(&self, group: &str) -> bool {
        self.active.read().contains_key(group)
    }

    /// Groups with members behind a name, at most so many, with how many members.
    fn active_after(&self, after: Option<&str>, max: usize) -> BTreeMap<String, usize> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let active = self.active.read();
        let rows = active.range::<str, _>((from, Unbounded)).take(max);
        rows.map(|(name, figures)| (name.clone(), figures.members))
            .collect()
    }

    /// Waits for room, then asks. `false`: the broker is shutting down.
    ///
    /// CANCEL SAFETY: when dropped before it completes, nothing was asked.
    async fn ask(&self, ask: Ask) -> bool {
        let at = clock::monotonic_ms();
        self.asks.send(Asked { at, ask }).await.is_ok()
    }
}

impl Active {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Figures>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a group's figures in place; what they were.
    fn put(&self, group: &str, figures: Figures) -> Figures {
        let is_there = self.read().get(group).copied();
        if is_there.unwrap_or_default() == figures {
            return figures;
        }
        let mut active = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if figures.members == 0 {
            active.remove(group);
        } else {
            active.insert(group.to_owned(), figures);
        }
        is_there.unwrap_or_default()
    }
}
