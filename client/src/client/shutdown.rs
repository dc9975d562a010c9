//! Ending in order.

use core::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::Kind;
use tokio::time::timeout;

use super::Client;

/// How long [`Client::shutdown`] gives publishers to get their records acknowledged.
const GRACE: Duration = Duration::from_secs(30);
/// How long the broker may take to answer the goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What became of the records this client handled in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Records published and acknowledged: durable.
    pub acked: u64,
    /// Records whose publishing failed before the shutdown, each reported by its ticket.
    pub failed: u64,
    /// Records not acknowledged when the time for the shutdown was over. Their tickets say
    /// whether they may have been stored.
    pub abandoned: u64,
    /// Records that subscriptions handed to the application.
    pub delivered: u64,
}

impl ShutdownReport {
    /// Whether every record that was taken for publishing is durable.
    pub const fn is_clean(&self) -> bool {
        self.failed == 0 && self.abandoned == 0
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acked,
            failed,
            abandoned,
            delivered,
        } = self;
        write!(
            f,
            "{acked} acked, {failed} failed, {abandoned} abandoned, {delivered} delivered"
        )
    }
}

impl Client {
    /// Ends in order: publishers take no more records and get those they have acknowledged (for
    /// up to 30 s), subscriptions end, the broker is told goodbye, the connection is closed and
    /// every task has ended when this returns. Handles and clones of the client then answer
    /// `Closed`; a second call reports again.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.shutdown_within(GRACE).await
    }

    /// [`shutdown`](Self::shutdown) with another limit for the publishers.
    pub async fn shutdown_within(&self, grace: Duration) -> ShutdownReport {
        let core = self.core();
        core.draining.cancel();
        core.publishers.close();
        // The time over is no error: what is left then is abandoned and reported.
        timeout(grace, core.publishers.wait()).await.ok();
        self.say_goodbye().await;
        core.stop.cancel();
        core.tracker.close();
        core.publishers.wait().await;
        core.tracker.wait().await;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        ShutdownReport {
            acked: count(&core.counters.acked),
            failed: count(&core.counters.failed),
            abandoned: count(&core.counters.abandoned),
            delivered: core.counters.delivered(),
        }
    }

    async fn say_goodbye(&self) {
        let Some(session) = self.core().link.watch().borrow().session() else {
            return;
        };
        session.leave();
        if let Ok(answer) = session.start(Kind::Goodbye, Bytes::new()) {
            // Without an answer the connection is closed all the same.
            timeout(GOODBYE, answer).await.ok();
        }
    }
}
