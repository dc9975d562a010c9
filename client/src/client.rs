//! The client: connect, make handles, shut down.

mod builder;
mod shutdown;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use builder::ClientBuilder;
pub use shutdown::ShutdownReport;

use crate::consumer::ConsumerBuilder;
use crate::core::{Core, Keep};
use crate::error::Error;
use crate::offsets::Offsets;
use crate::publisher::PublisherBuilder;
use crate::step::Step;
use crate::subscription::SubscriptionBuilder;
use crate::typed::{Json, Topic};

/// A connection to a Falcon broker that comes back by itself.
///
/// A clone is cheap and shares the connection. Publishers and subscriptions made from it keep it
/// open; when the last handle is dropped the connection is closed without waiting. To end in
/// order, call [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    pub(crate) keep: Arc<Keep>,
}

impl Client {
    /// Connects with the defaults to `falcon://HOST:PORT` (or `HOST`, `HOST:PORT`, or several with
    /// commas between them, which are tried in turn).
    ///
    /// The first connection is tried once. When it is lost later, another one is made for as long
    /// as the client lives.
    ///
    /// # Errors
    /// [`Error::Address`] and [`Error::Connect`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::builder(address).connect().await
    }

    /// Sets options before connecting.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    /// A publisher of records for a topic.
    pub fn publisher(&self, topic: impl Into<String>) -> PublisherBuilder {
        PublisherBuilder::new(self.clone(), topic.into())
    }

    /// A subscription to a topic.
    pub fn subscribe(&self, topic: impl Into<String>) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.clone(), topic.into())
    }

    /// Offsets stored on the broker under a group name.
    pub fn offsets(&self, group: impl Into<String>) -> Offsets {
        Offsets::new(self.clone(), group.into())
    }

    /// A member of a consumer group.
    pub fn consumer(&self, group: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), group.into())
    }

    /// An atomic step: records for any partitions, all or nothing.
    pub fn step(&self) -> Step {
        Step::new(self.clone(), Arc::clone(&self.core().steps), None)
    }

    /// A topic of values of one type, as JSON unless another codec is chosen.
    pub fn topic<T: Serialize + DeserializeOwned>(
        &self,
        name: impl Into<String>,
    ) -> Topic<T, Json> {
        Topic::new(self.clone(), name.into(), Json)
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.core().link.down_reason().is_none()
    }

    /// The number of the connection in force, `None` while there is none. No two connections of a process have the
    /// same, so another number says that the connection was lost and made again meanwhile.
    pub fn connection_number(&self) -> Option<u64> {
        let state = self.core().link.watch();
        let session = state.borrow().session();
        session.map(|session| session.number())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.keep.core
    }
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}
