//! What other tasks, and handlers, may do with a consumer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::grant::Owner;
use super::shared::Shared;
use crate::client::Client;
use crate::core::Keep;
use crate::error::CommitError;
use crate::step::Step;
use crate::subscription::Delivered;

/// A consumer's handle for other tasks and for handlers. A clone is cheap.
#[derive(Clone)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
    keep: Arc<Keep>,
}

impl ConsumerHandle {
    pub(super) fn new(shared: Arc<Shared>, keep: Arc<Keep>) -> Self {
        Self { shared, keep }
    }

    /// An atomic step of the consumer: records and commits, all or nothing.
    pub fn step(&self) -> Step {
        let client = Client {
            keep: Arc::clone(&self.keep),
        };
        let owner = Owner(Arc::clone(&self.shared));
        Step::new(client, Arc::clone(&self.shared.lanes), Some(owner))
    }

    /// Commits a record, and with it every one of its partition before; see
    /// [`Consumer::commit`](super::Consumer::commit).
    ///
    /// # Errors
    /// Besides, inside `run`, [`CommitError::SkipsUnfinished`].
    pub async fn commit(&self, record: &Delivered) -> Result<(), CommitError> {
        self.shared.commit(record).await
    }

    /// Ends [`Consumer::run`](super::Consumer::run) in order: no further handler begins, those that
    /// run end, what is finished is committed. Without a run it ends the next one.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.running.notify_one();
    }
}

impl core::fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ConsumerHandle")
            .field("group", &self.shared.group)
            .finish_non_exhaustive()
    }
}
