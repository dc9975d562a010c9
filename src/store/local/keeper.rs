//! Background work on segments: prepare, seal, index, reclaim.
//!
//! Owns the thread `falcon-keeper`, which does nothing that an ack waits for. Promises: whatever
//! fails here costs time at the next start or space until then, never data. Must not know: who
//! commits or reads.

mod mend;
mod pace;
mod reclaim;
mod remove;
mod seal;
mod spare;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use falcon_protocol::{Offset, PartitionId};

use super::journal::segment::Seal;
use super::{Shared, locked};
use crate::clock::Instant;
use pace::Pace;
use remove::Removal;
use spare::Filling;
pub(super) use spare::zero_filled;

#[derive(Debug, Default)]
struct Wanted {
    is_woken: bool,
    is_stopping: bool,
    spares: VecDeque<PathBuf>,
}

/// Why the keeper does not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Something may have to be done.
    Work,
    /// Nothing happened for as long as it wanted to wait.
    Pause,
    /// Finish what is cheap and end.
    Stop,
}

/// What the keeper is told, and what it has prepared.
#[derive(Debug, Default)]
pub(super) struct Signal {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Signal {
    /// Asks the keeper to look for work.
    pub(super) fn wake(&self) {
        locked(&self.wanted).is_woken = true;
        self.changed.notify_one();
    }

    /// Asks the keeper to finish what is cheap and end.
    pub(super) fn stop(&self) {
        locked(&self.wanted).is_stopping = true;
        self.changed.notify_one();
    }

    pub(super) fn take_spare(&self) -> Option<PathBuf> {
        locked(&self.wanted).spares.pop_front()
    }

    pub(super) fn add_spare(&self, path: PathBuf) {
        locked(&self.wanted).spares.push_back(path);
    }

    /// Makes `path` the only spare, and answers those there were.
    pub(super) fn put_aside(&self, path: PathBuf) -> VecDeque<PathBuf> {
        std::mem::replace(&mut locked(&self.wanted).spares, VecDeque::from([path]))
    }

    /// Undoes [`put_aside`](Self::put_aside).
    pub(super) fn put_back(&self, spares: VecDeque<PathBuf>) {
        locked(&self.wanted).spares = spares;
    }

    pub(super) fn spares(&self) -> usize {
        locked(&self.wanted).spares.len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        locked(&self.wanted).is_stopping
    }

    /// Blocks until there may be work, but no longer than `pause`.
    fn wait(&self, pause: Option<Duration>) -> Call {
        let mut wanted = locked(&self.wanted);
        while !wanted.is_woken && !wanted.is_stopping {
            let Some(pause) = pause else {
                let waited = self.changed.wait(wanted);
                wanted = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.changed.wait_timeout(wanted, pause);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            wanted = woken;
            if timeout.timed_out() {
                break;
            }
        }
        let is_woken = std::mem::take(&mut wanted.is_woken);
        match (wanted.is_stopping, is_woken) {
            (true, _) => Call::Stop,
            (false, true) => Call::Work,
            (false, false) => Call::Pause,
        }
    }
}

/// Starts the keeper.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    shared.signal.wake();
    std::thread::Builder::new()
        .name("falcon-keeper".to_owned())
        .spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    let mut keeper = Keeper {
        shared,
        given_up: HashSet::new(),
        unindexed: HashSet::new(),
        waiting: HashSet::new(),
        is_tree_broken: false,
        filling: None,
        removals: VecDeque::new(),
        cut_due: Instant::now(),
        look_due: Instant::now(),
        is_pacing: false,
        pace: Pace::new(
            (shared.config.reuse_within, shared.config.busy_for),
            Instant::now(),
        ),
    };
    loop {
        let call = shared.signal.wait(keeper.pause());
        if call != Call::Stop {
            keeper.remove_on();
            if call == Call::Work || keeper.is_look_due() {
                // ORDER: a dead segment is a spare that costs nothing.
                keeper.reclaim();
                keeper.prepare_spares();
            }
        }
        if call == Call::Pause {
            continue;
        }
        let goes_on = call == Call::Work;
        keeper.seal_all();
        // What is not in sled yet is found by its footer at the next start.
        if !goes_on {
            keeper.remove_rest();
            return;
        }
        keeper.look_at_tree();
        keeper.look_at_footers();
        keeper.reclaim();
        // Reclaiming may have freed the space that a spare did not get before.
        keeper.prepare_spares();
        // One segment at a time: sled may take longer for one than the writer to fill the next.
        if keeper.index_next() {
            shared.signal.wake();
        }
    }
}

/// The keeper's own state.
struct Keeper<'a> {
    shared: &'a Shared,
    /// Segments that could not be sealed or mended; the next start scans them.
    given_up: HashSet<u64>,
    /// Segments that could not be brought into sled, since their footers cannot be read any more.
    unindexed: HashSet<u64>,
    /// Segments whose footer waits for space.
    waiting: HashSet<u64>,
    is_tree_broken: bool,
    filling: Option<Filling>,
    /// The first is being cut; no piece is cut off before the time beside it.
    removals: VecDeque<Removal>,
    cut_due: Instant,
    /// A look that nobody asked for is not taken before.
    look_due: Instant,
    /// Dead segments wait until they may be removed.
    is_pacing: bool,
    pace: Pace,
}

impl Keeper<'_> {
    /// Runs something on sled, which may panic. Answers whether it worked.
    fn on_tree(
        &mut self,
        work: impl FnOnce(&super::index::TreeIndex) -> Result<(), Arc<sled::Error>>,
    ) -> bool {
        let tree = self.shared.index.tree();
        let Some(tree) = tree.filter(|_| !self.is_tree_broken) else {
            return false;
        };
        let reason = match catch_unwind(AssertUnwindSafe(|| work(tree))) {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        self.is_tree_broken = true;
        self.shared.config.metrics.process.index_by_footers.set(1);
        tracing::warn!(
            reason,
            "sled cannot be used, footers are the index until the next start"
        );
        self.abandon_tree();
        false
    }

    /// Gives sled up when readers found it failing.
    fn look_at_tree(&mut self) {
        let index = &self.shared.index;
        // Before it is known which segments sled has, nothing could be looked up elsewhere.
        if index.is_suspect() && !self.is_tree_broken && index.report().is_some() {
            let reason = "a lookup failed".to_owned();
            self.on_tree(|_| Err(Arc::new(sled::Error::Unsupported(reason))));
        }
    }

    /// Looks up by footer what sled holds: a database that failed once promises nothing of what it still
    /// answers.
    fn abandon_tree(&mut self) {
        let seals: Vec<(u64, Seal)> = {
            let infos = self.shared.segments.infos();
            let indexed = infos.iter().filter(|(_, info)| info.is_indexed);
            indexed
                .filter_map(|(segment, info)| Some((*segment, info.seal?)))
                .collect()
        };
        for (segment, seal) in &seals {
            if !self.mend(*segment, seal) {
                // Other segments may still be found in sled.
                return;
            }
        }
        let mut infos = self.shared.segments.infos_mut();
        for info in infos.values_mut().filter(|info| info.is_indexed) {
            info.is_by_footer = true;
            info.is_indexed = false;
        }
        drop(infos);
        self.shared.index.recount_footers();
        self.shared.index.abandon_tree();
    }
}

/// Ends the partitions that are not `live`, and moves the starts of those that are.
pub(super) fn retain(shared: &Shared, live: &[(PartitionId, Offset)]) {
    let known: Vec<PartitionId> = locked(&shared.bounds).keys().copied().collect();
    let live: HashMap<PartitionId, Offset> = live.iter().copied().collect();
    for partition in known {
        trim(shared, partition, live.get(&partition).copied());
    }
    super::open::gaps::look(shared);
}

/// Moves the start of a partition, or ends it, and lets the keeper look for dead segments.
pub(super) fn trim(shared: &Shared, partition: PartitionId, log_start: Option<Offset>) {
    {
        let mut bounds = locked(&shared.bounds);
        match (log_start, bounds.get_mut(&partition)) {
            (None, Some(_)) => {
                bounds.remove(&partition);
            }
            (Some(start), Some(bounds)) if start > bounds.start => bounds.start = start,
            // Nothing changes: an earlier start, or a partition without records.
            (None, None) | (Some(_), _) => return,
        }
    }
    locked(&shared.trims).push((partition, log_start));
    locked(&shared.damage).retain_mut(|damage| {
        if damage.partition == partition {
            let start = log_start.unwrap_or(Offset(u64::MAX));
            damage.range.start = damage.range.start.max(start);
        }
        damage.range.start < damage.range.end
    });
    shared.signal.wake();
}
