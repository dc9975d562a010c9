//! Options of a publisher.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_protocol::Codec;
use falcon_protocol::ids::check_publisher_name;
use falcon_protocol::message::PUBLISH_HEADER_BYTES;
use tokio::sync::{Notify, Semaphore};

use super::Publisher;
use super::intake::{BatchRules, Intake};
use super::lane::Identity;
use super::pump::Pump;
use super::shared::Shared;
use super::verdict::init_producer;
use crate::client::Client;
use crate::error::Error;

const BATCH_BYTES: usize = 512 << 10;
const WINDOW_BYTES: usize = 8 << 20;
/// A window shared by many partitions gives each of them at least so much, or its batches would be small: each costs
/// client and broker some microseconds, whatever is in it.
const WINDOW_SHARE_BYTES: usize = 16 << 10;
/// Up to this in all.
const WINDOW_BYTES_MAX: usize = 32 << 20;
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Smallest batch and window that can be asked for.
const BYTES_MIN: usize = 256;

/// Options of a publisher, made by [`Client::publisher`]. None needs to be set to be fast.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until build is called"]
pub struct PublisherBuilder {
    client: Client,
    topic: String,
    codec: Codec,
    linger: Duration,
    batch_bytes: usize,
    window_bytes: Option<usize>,
    delivery_timeout: Duration,
    name: Option<String>,
    is_idempotent: bool,
}

impl PublisherBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self {
            client,
            topic,
            codec: Codec::None,
            linger: Duration::ZERO,
            batch_bytes: BATCH_BYTES,
            window_bytes: None,
            delivery_timeout: DELIVERY_TIMEOUT,
            name: None,
            is_idempotent: true,
        }
    }

    /// How batches are compressed. Default: not at all.
    pub fn compression(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How long a batch waits for more records although it could leave. Default: not at all;
    /// batches grow by themselves while others are in flight.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Size at which a batch leaves, before compression. Default: 512 KiB. A larger record gets a
    /// batch of its own, up to what the broker accepts.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How much payload may be unacknowledged; `send` waits beyond it. Default: 8 MiB, and for topics of more than
    /// 512 partitions 16 KiB for each, up to 32 MiB.
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = Some(bytes);
        self
    }

    /// How long a record may take until it is acknowledged, with all attempts. Default: 2 min.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Takes over from an older publisher of this name, which is fenced: of two processes that
    /// believe to be the one publisher, only the newer gets through. After a silence of the broker's
    /// `timeouts.producer_expiry_ms` it counts as fenced too: open a new one then.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether batches carry sequences, so that one that is sent again is stored once. Default:
    /// yes. Without them a record whose answer is lost fails with `may_have_happened`, and one
    /// batch per partition is in flight at a time.
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.is_idempotent = is_idempotent;
        self
    }

    /// Looks the topic up, gets an identity and starts.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::InvalidName`], [`Error::InvalidOption`], and whatever
    /// keeps a request from succeeding.
    pub async fn build(self) -> Result<Publisher, Error> {
        let core = Arc::clone(self.client.core());
        self.check()?;
        let session = core.link.session().await?;
        let granted = session.granted();
        if granted.codecs & self.codec.bit() == 0 && self.codec != Codec::None {
            return Err(Error::InvalidOption {
                option: "compression",
                reason: "the broker does not accept this codec",
            });
        }
        let frame_bytes = granted.frame_bytes_max as usize;
        let batch_bytes_max = (granted.batch_bytes_max as usize)
            .min(frame_bytes.saturating_sub(PUBLISH_HEADER_BYTES));
        let topic = core.refresh_topic(&self.topic).await?;
        let rules = BatchRules {
            codec: self.codec,
            batch_bytes: self.batch_bytes.min(batch_bytes_max),
            batch_bytes_max,
        };
        let window_bytes = self
            .window_bytes
            .unwrap_or_else(|| default_window(topic.partitions));
        let window_bytes = window_bytes.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            core: Arc::clone(&core),
            topic: self.topic,
            name: self.name,
            linger: self.linger,
            delivery_timeout: self.delivery_timeout,
            window_bytes,
            line: Semaphore::new(0),
            sent: AtomicU32::new(0),
            intake: Mutex::new(Intake::new(rules, topic.partitions, window_bytes)),
            wake: Arc::new(Notify::new()),
        });
        let identity = if self.is_idempotent {
            init_producer(&shared).await?
        } else {
            Identity::NONE
        };
        if core.draining.is_cancelled() {
            return Err(Error::Closed);
        }
        let pump = Pump::new(Arc::clone(&shared), identity, topic);
        let keep = Arc::clone(&self.client.keep);
        core.publishers.spawn(async move {
            pump.run().await;
            drop(keep);
        });
        Ok(Publisher::new(shared, self.client.keep))
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |option, reason| Err(Error::InvalidOption { option, reason });
        if self.batch_bytes < BYTES_MIN {
            return refuse("batch_bytes", "it is less than 256");
        }
        if self.window_bytes.is_some_and(|bytes| bytes < BYTES_MIN) {
            return refuse("window_bytes", "it is less than 256");
        }
        if self.delivery_timeout.is_zero() {
            return refuse("delivery_timeout", "it is zero");
        }
        if let Some(name) = &self.name {
            if !self.is_idempotent {
                return refuse("name", "a publisher without idempotence cannot be fenced");
            }
            check_publisher_name(name).map_err(|reason| Error::InvalidName {
                name: name.clone(),
                reason,
            })?;
        }
        Ok(())
    }
}

/// For a topic of so many partitions, bytes.
fn default_window(partitions: u32) -> usize {
    let shares = (partitions as usize).saturating_mul(WINDOW_SHARE_BYTES);
    shares.clamp(WINDOW_BYTES, WINDOW_BYTES_MAX)
}
