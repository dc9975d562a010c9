//! Options of a client.

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::limits::{CREDENTIAL_BYTES_MAX, PEER_NAME_BYTES_MAX};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Client;
use crate::address::Addresses;
use crate::connection::{DialOptions, Link, dial, supervise};
use crate::core::{Core, Counters, Keep};
use crate::error::Error;
use crate::step::StepLanes;
use crate::topics::Topics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of a client, made by [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens until connect is called"]
pub struct ClientBuilder {
    address: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    name: String,
    credential: Vec<u8>,
}

impl ClientBuilder {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            name: concat!("falcon-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            credential: Vec::new(),
        }
    }

    /// How long one attempt to connect may take, handshake included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request may take, waiting for a connection included. Default: 30 s. Publishing
    /// has a limit of its own: [`delivery_timeout`](crate::PublisherBuilder::delivery_timeout).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// What the broker's log calls this client, such as `billing/1.4`; at most 200 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Proof of identity, as the broker wants it; at most 2048 bytes. Default: empty.
    pub fn credential(mut self, credential: impl Into<Vec<u8>>) -> Self {
        self.credential = credential.into();
        self
    }

    /// Connects: every address once, in turn.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::InvalidOption`], and [`Error::Connect`] when no address
    /// answered as a broker should; it has the last one's reason.
    pub async fn connect(self) -> Result<Client, Error> {
        let options = self.check()?;
        let tracker = TaskTracker::new();
        let session = dial(&options, &tracker).await?;
        let (link, state) = Link::new(Arc::clone(&session));
        let stop = CancellationToken::new();
        let supervisor = supervise(options, tracker.clone(), session, state, stop.clone());
        tracker.spawn(supervisor);
        let core = Core {
            link,
            tracker,
            publishers: TaskTracker::new(),
            draining: stop.child_token(),
            stop,
            topics: Topics::default(),
            counters: Counters::default(),
            steps: StepLanes::anonymous(),
            request_timeout: self.request_timeout,
        };
        let keep = Keep {
            core: Arc::new(core),
        };
        Ok(Client {
            keep: Arc::new(keep),
        })
    }

    fn check(&self) -> Result<DialOptions, Error> {
        let refuse = |option, reason| Err(Error::InvalidOption { option, reason });
        if self.name.len() > PEER_NAME_BYTES_MAX {
            return refuse("name", "it is longer than 200 bytes");
        }
        if self.credential.len() > CREDENTIAL_BYTES_MAX {
            return refuse("credential", "it is longer than 2048 bytes");
        }
        Ok(DialOptions {
            addresses: Addresses::parse(&self.address)?,
            connect_timeout: self.connect_timeout,
            name: self.name.clone(),
            credential: self.credential.clone(),
        })
    }
}
