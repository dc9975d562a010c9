//! TCP: accept, connections, requests.
//!
//! Owns the listener, one read and one write task per connection, flow control, timeouts, and the
//! only map from errors to codes. Promises: bounded memory per connection and in all; a peer
//! that misbehaves is told why in one frame and closed, others do not notice; shutdown answers
//! what is in flight. Must not know: how records are stored, what a segment is.

mod budget;
mod checks;
mod connection;
mod fetch;
mod frames;
mod groups;
mod handshake;
mod listener;
mod offsets;
mod outbox;
mod publish;
mod receiving;
mod refusal;
mod requests;
mod step;
mod subscribe;
mod topics;
mod warnings;
mod write;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::{Limits, Timeouts};
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::writer::{Views, WriterHandle};

pub use budget::Spare;
pub use checks::Checks;
pub(crate) use connection::semaphore;
pub use groups::{Groups, Needs};
pub use listener::Listener;
pub use receiving::Receiving;
pub use warnings::Warnings;

/// What all connections share.
pub struct Shared {
    /// What bounds memory.
    pub limits: Limits,
    /// What bounds waiting.
    pub timeouts: Timeouts,
    /// Address that clients are told, if not the one they connected to.
    pub advertise: Option<String>,
    /// Identity of the data.
    pub cluster: String,
    /// The owner's epoch.
    pub epoch: u32,
    /// Reads.
    pub reader: Reader,
    /// What is durable.
    pub views: Arc<Views>,
    /// Changes.
    pub writer: WriterHandle,
    /// Bytes of unanswered publishes that all connections together may hold.
    pub in_flight_total: Arc<Semaphore>,
    /// The share of them that bodies may hold which have not arrived in whole.
    pub receiving: Receiving,
    /// What connections together may read ahead beyond their budgets.
    pub spare: Spare,
    /// The coordinator of consumer groups.
    pub groups: Groups,
    /// Places for checking compressed batches.
    pub checks: Checks,
    /// What was logged of peers lately.
    pub warnings: Warnings,
    /// What happened so far.
    pub metrics: Arc<Metrics>,
}
