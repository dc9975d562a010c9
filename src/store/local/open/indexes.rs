//! Choosing the index: trusted, built again, or footers alone. It happens beside the running broker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{CleanMarker, LocalConfig, Shared};
use crate::store::local::IndexReport;
use crate::store::local::index::{self, Opened, TreeIndex};

/// What the last stop says of the index.
#[derive(Debug)]
pub(super) struct IndexPlan {
    is_new: bool,
    /// Of the clean-stop marker.
    token: Option<u64>,
    /// Segments whose extents are in it.
    indexed: Vec<u64>,
}

impl IndexPlan {
    pub(super) fn new(clean: Option<&CleanMarker>, is_new: bool) -> Self {
        Self {
            is_new,
            token: clean.map(|clean| clean.index_token),
            indexed: clean.map_or_else(Vec::new, |clean| clean.indexed.clone()),
        }
    }
}

/// Opens the index on a thread of its own. Lookups go to the footers until it has what they have.
pub(super) fn start(shared: &Arc<Shared>, plan: IndexPlan) -> Option<JoinHandle<()>> {
    if shared.config.index_dir.is_none() {
        let reason = "no folder is configured for it".to_owned();
        take(shared, &plan, (None, IndexReport::Footers { reason }));
        return None;
    }
    let opener = Arc::clone(shared);
    let thread = std::thread::Builder::new()
        .name("falcon-index".to_owned())
        .spawn(move || {
            // sled may panic wherever it is called. Without a decision nothing would be reclaimed any more.
            let is_stopping = || opener.signal.is_stopping();
            let open = || open_index(&opener.config, &plan, &is_stopping);
            let opened = catch_unwind(AssertUnwindSafe(open));
            let opened = opened.unwrap_or_else(|_| {
                let reason = "it panicked".to_owned();
                (None, IndexReport::Footers { reason })
            });
            take(&opener, &plan, opened);
        });
    match thread {
        Ok(thread) => Some(thread),
        Err(error) => {
            let reason = error.to_string();
            let nothing = IndexPlan::new(None, false);
            take(shared, &nothing, (None, IndexReport::Footers { reason }));
            None
        }
    }
}

fn take(shared: &Shared, plan: &IndexPlan, (tree, report): (Option<TreeIndex>, IndexReport)) {
    let metrics = &shared.config.metrics.process;
    match &report {
        IndexReport::Rebuilt { reason } => {
            metrics.index_rebuilds.add(1);
            tracing::info!(reason, "the index is built again from the footers");
        }
        IndexReport::Footers { reason } => {
            metrics.index_by_footers.set(1);
            tracing::warn!(reason, "sled cannot be used, footers are the index");
        }
        IndexReport::Created | IndexReport::Trusted => {}
    }
    // ORDER: sled before the segments say that they are in it, both before anybody adds to it.
    shared.index.set_tree(tree);
    if report == IndexReport::Trusted {
        let mut infos = shared.segments.infos_mut();
        for segment in &plan.indexed {
            if let Some(info) = infos.get_mut(segment).filter(|info| info.is_by_footer) {
                info.is_by_footer = false;
                info.is_indexed = true;
            }
        }
    }
    shared.index.decide(report);
    shared.signal.wake();
}

fn open_index(
    config: &LocalConfig,
    plan: &IndexPlan,
    is_stopping: &dyn Fn() -> bool,
) -> (Option<TreeIndex>, IndexReport) {
    let Some(index_dir) = &config.index_dir else {
        let reason = "no folder is configured for it".to_owned();
        return (None, IndexReport::Footers { reason });
    };
    let reason = match plan.token {
        None if plan.is_new => None,
        None => Some("the last stop was not clean".to_owned()),
        Some(0) => Some("the last stop left no index to trust".to_owned()),
        Some(token) => match index::open(index_dir, config.index_open_timeout, is_stopping) {
            Opened::Ready(tree) if tree.token() == Some(token) => {
                return (Some(tree), IndexReport::Trusted);
            }
            Opened::Ready(tree) if tree.is_of_format_1() => {
                Some("it has the format of an earlier version".to_owned())
            }
            Opened::Ready(_) => Some("it is not the one that the last stop left".to_owned()),
            Opened::Broken(reason) => Some(reason),
            Opened::Hangs => return hangs(),
        },
    };
    if let Err(error) = index::discard(index_dir) {
        let reason = format!("{error}: {}", error.source);
        return (None, IndexReport::Footers { reason });
    }
    match index::open(index_dir, config.index_open_timeout, is_stopping) {
        Opened::Ready(tree) => {
            let report = match reason {
                None => IndexReport::Created,
                Some(reason) => IndexReport::Rebuilt { reason },
            };
            (Some(tree), report)
        }
        Opened::Broken(reason) => (None, IndexReport::Footers { reason }),
        Opened::Hangs => hangs(),
    }
}

fn hangs() -> (Option<TreeIndex>, IndexReport) {
    let reason = "it did not open in time".to_owned();
    (None, IndexReport::Footers { reason })
}

/// Makes the index durable under a token; `false` when it will have to be built again.
pub(super) fn checkpoint(tree: &TreeIndex, token: u64) -> bool {
    match catch_unwind(AssertUnwindSafe(|| tree.checkpoint(token))) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "the index was not synced"
            );
            false
        }
        Err(_) => {
            tracing::warn!("the index panicked while it was synced");
            false
        }
    }
}
