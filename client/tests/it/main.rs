//! The client against a scripted peer: a small broker over a real socket that can be told to
//! misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails may panic, and the peer indexes what it has made itself"
)]

mod batches;
mod connecting;
mod peer;
mod publishing;
mod refusals;
mod requests;
mod sendable;
mod shutting_down;
mod subscribing;
mod typed;
mod windows;

use std::time::Duration;

/// How long anything in these tests may take before it counts as hanging.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a future, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it hangs")
}
