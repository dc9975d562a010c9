//! What everybody but the writer sees: only what is durable.
//!
//! The writer publishes here after each sync; readers load without waiting for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use falcon_protocol::{Offset, PartitionId, TopicId};
use tokio::sync::Notify;

use super::command::Flush;
use super::watermark::{Rises, Watermark};
use crate::catalog::Catalog;
use crate::group::Offsets;
use crate::partition::PartitionState;

/// Whether changes are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// They are.
    Accepting,
    /// Publishes are refused until space returns.
    Full,
    /// A write or sync failed: nothing is accepted until a restart.
    Stopped,
}

/// Who is told of what changes in a partition, on the thread that made it durable.
///
/// ORDER: called under a lock that dropping a [`Watch`] takes too: must not drop one, nor block.
pub trait Watcher: Send + Sync {
    /// Something has changed.
    fn wake(&self);

    /// Something has changed, and so little that it may be sent by this thread, when the turn gives its answers:
    /// answers who has something to send then, and has not been answered before in this turn.
    fn catch_up(&self, view: &PartitionView) -> Option<Arc<dyn Flush>>;
}

impl Watcher for Notify {
    fn wake(&self) {
        self.notify_one();
    }

    fn catch_up(&self, _view: &PartitionView) -> Option<Arc<dyn Flush>> {
        self.notify_one();
        None
    }
}

/// Who is told by a partition, by number: tens of thousands may come and go at a time.
#[derive(Default)]
struct Watchers {
    all: HashMap<u64, Arc<dyn Watcher>>,
    next: u64,
}

impl core::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut all = f.debug_struct("Watchers");
        all.field("count", &self.all.len()).finish_non_exhaustive()
    }
}

/// Those who may still catch up in a turn, and who of them has something to send.
///
/// LIMIT: so few that publishes do not wait for it; the others are woken and send for themselves.
#[derive(Default)]
pub(super) struct Followers {
    left: usize,
    pub(super) flushes: Vec<Arc<dyn Flush>>,
}

impl Followers {
    pub(super) const fn new(left: usize) -> Self {
        let flushes = Vec::new();
        Self { left, flushes }
    }
}

/// The bounds of one partition at some time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogBounds {
    log_start: Offset,
    log_end: Offset,
    bytes: u64,
}

impl From<&PartitionState> for LogBounds {
    fn from(state: &PartitionState) -> Self {
        Self {
            log_start: state.log_start,
            log_end: state.log_end,
            bytes: state.bytes,
        }
    }
}

/// The durable bounds of one partition.
#[derive(Debug)]
pub struct PartitionView {
    /// Which partition.
    pub id: PartitionId,
    log_start: AtomicU64,
    high_watermark: Watermark,
    bytes: AtomicU64,
    is_deleted: AtomicBool,
    watchers: Mutex<Watchers>,
}

impl PartitionView {
    fn new(id: PartitionId, rises: &Rises, state: LogBounds) -> Self {
        Self {
            id,
            log_start: AtomicU64::new(state.log_start.0),
            high_watermark: Watermark::new(rises, state.log_end),
            bytes: AtomicU64::new(state.bytes),
            is_deleted: AtomicBool::new(false),
            watchers: Mutex::default(),
        }
    }

    /// First offset kept.
    pub fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// First offset not yet durable. Who finds a commit group's records here finds them in all other
    /// partitions from then on, and its committed offsets too.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.get()
    }

    /// Bytes of the batches kept.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the topic was deleted.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// Tells `watcher` whenever something changes here, until the watch is dropped.
    pub fn watch(self: &Arc<Self>, watcher: Arc<dyn Watcher>) -> Watch {
        let mut watchers = self.lock_watchers();
        let number = watchers.next;
        watchers.next += 1;
        watchers.all.insert(number, watcher);
        drop(watchers);
        Watch {
            view: Arc::clone(self),
            number,
        }
    }

    /// ORDER: after the high watermark, which is never below it.
    fn publish_rest(&self, state: LogBounds, followers: &mut Followers) {
        self.log_start.store(state.log_start.0, Ordering::Release);
        self.bytes.store(state.bytes, Ordering::Relaxed);
        let watchers = self.lock_watchers();
        if watchers.all.len() > followers.left {
            watchers.all.values().for_each(|watcher| watcher.wake());
            return;
        }
        followers.left -= watchers.all.len();
        let watchers = watchers.all.values();
        let flushes = watchers.filter_map(|watcher| watcher.catch_up(self));
        followers.flushes.extend(flushes);
    }

    fn wake(&self) {
        for watcher in self.lock_watchers().all.values() {
            watcher.wake();
        }
    }

    fn lock_watchers(&self) -> std::sync::MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps somebody woken by a partition.
#[derive(Debug)]
pub struct Watch {
    view: Arc<PartitionView>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watcher = self.view.lock_watchers().all.remove(&self.number);
        // ORDER: outside the lock: it may be the last of somebody who watches.
        drop(watcher);
    }
}

/// All views.
#[derive(Debug)]
pub struct Views {
    catalog: RwLock<Arc<Catalog>>,
    partitions: RwLock<HashMap<PartitionId, Arc<PartitionView>>>,
    offsets: RwLock<Offsets>,
    rises: Rises,
    write_state: AtomicU8,
    /// The topics changed; for the coordinator alone.
    catalog_changed: Notify,
}

impl Views {
    pub(super) fn new(
        catalog: Arc<Catalog>,
        states: &HashMap<PartitionId, PartitionState>,
        offsets: Offsets,
    ) -> Self {
        let views = Self {
            catalog: RwLock::default(),
            partitions: RwLock::default(),
            offsets: RwLock::new(offsets),
            rises: Rises::default(),
            write_state: AtomicU8::new(WriteState::Accepting as u8),
            catalog_changed: Notify::new(),
        };
        views.publish_catalog(catalog, states);
        views
    }

    /// The topics.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One partition.
    pub fn partition(&self, id: PartitionId) -> Option<Arc<PartitionView>> {
        self.partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Committed offsets. Hold the guard briefly: the writer waits for it.
    pub fn offsets(&self) -> RwLockReadGuard<'_, Offsets> {
        self.offsets.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether changes are accepted.
    pub fn write_state(&self) -> WriteState {
        match self.write_state.load(Ordering::Acquire) {
            0 => WriteState::Accepting,
            1 => WriteState::Full,
            _ => WriteState::Stopped,
        }
    }

    /// INVARIANT: nothing takes back that it stopped; two threads say such things.
    pub(super) fn set_write_state(&self, state: WriteState) {
        let unless_stopped = |now| (now != WriteState::Stopped as u8).then_some(state as u8);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _changed = self
            .write_state
            .fetch_update(order.0, order.1, unless_stopped);
    }

    /// Makes a commit group visible: its high watermarks and, when there are any, its committed offsets
    /// at once; then whoever waits is told. A partition comes once.
    ///
    /// ORDER: watermarks while nobody can look at the offsets, so that who has seen either sees both.
    pub(super) fn publish_group(
        &self,
        changed: &[(PartitionId, LogBounds)],
        offsets: Option<impl FnOnce(&mut Offsets)>,
        followers: &mut Followers,
    ) {
        let views = changed
            .iter()
            .filter_map(|(id, state)| Some((self.partition(*id)?, *state)));
        let views: Vec<_> = views.collect();
        let rise = self.rises.next();
        for (view, state) in &views {
            view.high_watermark.prepare(rise, state.log_end);
        }
        match offsets {
            None => self.rises.show(rise),
            Some(change) => {
                let mut guard = self.offsets.write().unwrap_or_else(PoisonError::into_inner);
                change(&mut guard);
                self.rises.show(rise);
            }
        }
        for (view, state) in views {
            view.publish_rest(state, followers);
        }
    }

    /// Makes a catalog visible: new partitions appear as in `found`, empty when they are not there; those of deleted topics wake and end.
    pub(super) fn publish_catalog(
        &self,
        catalog: Arc<Catalog>,
        found: &HashMap<PartitionId, PartitionState>,
    ) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.retain(|id, view| {
            let keep = catalog.by_id(id.topic).is_some();
            if !keep {
                view.is_deleted.store(true, Ordering::Release);
                view.wake();
            }
            keep
        });
        for id in catalog.topics().flat_map(|topic| topic.partition_ids()) {
            let state = found.get(&id).map_or_else(LogBounds::default, Into::into);
            partitions
                .entry(id)
                .or_insert_with(|| Arc::new(PartitionView::new(id, &self.rises, state)));
        }
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog;
        self.catalog_changed.notify_one();
    }

    /// Waits until the topics have changed since the last call. For one caller.
    ///
    /// CANCEL SAFETY: a change not waited for is not lost.
    pub async fn catalog_changed(&self) {
        self.catalog_changed.notified().await;
    }

    /// Whether a topic of this number exists.
    pub fn has_topic(&self, id: TopicId) -> bool {
        self.catalog().by_id(id).is_some()
    }
}
