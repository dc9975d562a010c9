//! The lanes of a client, or of a consumer with a publisher id.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::Lane;
use crate::core::Core;
use crate::error::Error;
use crate::identity::Identity;
use crate::sync::lock;

/// LIMIT: steps in flight of one client, or of one publisher id.
const LANES: usize = 16;

/// Hands out lanes, each to one step at a time.
#[derive(Debug)]
pub(crate) struct StepLanes {
    name: Option<String>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Lane>>,
    is_fenced: AtomicBool,
}

impl StepLanes {
    /// Lanes that get identities when they are first used.
    pub(crate) fn anonymous() -> Arc<Self> {
        Arc::new(Self::new(None))
    }

    fn new(name: Option<String>) -> Self {
        Self {
            name,
            permits: Arc::new(Semaphore::new(LANES)),
            // The last is used first: so few identities are taken where few are needed.
            idle: Mutex::new((0..LANES).rev().map(Lane::new).collect()),
            is_fenced: AtomicBool::new(false),
        }
    }

    /// Takes over every lane of this publisher id: an older self may have used any of them.
    pub(crate) async fn take_over(core: &Core, name: String) -> Result<Arc<Self>, Error> {
        let lanes = Self::new(Some(name));
        let names = (0..LANES).map(|number| lanes.lane_name(number));
        let asked = names.map(|name| async move { core.init_producer(name.as_deref()).await });
        let identities: Vec<Identity> = try_join_all(asked).await?;
        for lane in lock(&lanes.idle).iter_mut() {
            if let Some(identity) = identities.get(lane.number) {
                lane.adopt(*identity);
            }
        }
        Ok(Arc::new(lanes))
    }

    /// The longest publisher id, so that the names of its lanes are allowed.
    pub(crate) const ID_BYTES_MAX: usize =
        falcon_protocol::limits::PUBLISHER_NAME_BYTES_MAX - ".step-15".len();

    pub(super) fn lane_name(&self, number: usize) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(format!("{name}.step-{number}"))
    }

    pub(super) const fn is_named(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::Acquire)
    }

    /// A newer self was seen: no lane succeeds any more.
    pub(super) fn fence(&self) {
        self.is_fenced.store(true, Ordering::Release);
    }

    /// A lane of one's own; waits while all are in use.
    pub(super) async fn take(self: &Arc<Self>) -> LaneGuard {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let lane = lock(&self.idle).pop();
        LaneGuard {
            lanes: Arc::clone(self),
            // There is a lane for each permit.
            lane: lane.unwrap_or_else(|| Lane::new(LANES)),
            _permit: permit,
        }
    }
}

/// A lane in use; goes back when dropped.
pub(super) struct LaneGuard {
    lanes: Arc<StepLanes>,
    pub(super) lane: Lane,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        let lane = std::mem::replace(&mut self.lane, Lane::new(LANES));
        // ORDER: back before the permit, which is dropped after this.
        lock(&self.lanes.idle).push(lane);
    }
}
