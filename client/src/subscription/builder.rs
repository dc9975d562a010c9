//! Options of a subscription.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use falcon_protocol::codes::Outcome;
use falcon_protocol::message::StartPosition;
use falcon_protocol::{Partition, TopicId};
use tokio::sync::{Notify, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Subscription;
use super::driver::{drive, open_first};
use super::events::EVENTS_KEPT;
use super::shared::Shared;
use super::state::{Place, State};
use crate::client::Client;
use crate::error::{Error, SubscribeError};
use crate::offsets::PartitionNumber;
use crate::start::Start;
use crate::topics::TopicMeta;

const BUFFER_BYTES: u64 = 4 << 20;
/// Smallest buffer that can be asked for.
const BUFFER_BYTES_MIN: u64 = 1;

/// What to do in a partition whose position does not exist (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// Report the error and leave the partition.
    #[default]
    Stop,
    /// Report the error and go on at the first record still kept.
    Earliest,
    /// Report the error and go on behind the last record.
    Latest,
}

impl Reset {
    pub(super) const fn place(self) -> Place {
        match self {
            Self::Stop => Place::Ended,
            Self::Earliest => Place::Start(StartPosition::Earliest),
            Self::Latest => Place::Start(StartPosition::Latest),
        }
    }
}

/// Options of a subscription, made by [`Client::subscribe`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens until open is called"]
pub struct SubscriptionBuilder {
    client: Client,
    topic: String,
    start: Start,
    /// Empty: all partitions, those to come included.
    partitions: BTreeMap<Partition, Option<Start>>,
    buffer_bytes: u64,
    reset: Reset,
}

impl SubscriptionBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self {
            client,
            topic,
            start: Start::Latest,
            partitions: BTreeMap::new(),
            buffer_bytes: BUFFER_BYTES,
            reset: Reset::Stop,
        }
    }

    /// Where to start. Default: [`Start::Latest`], only what is new.
    pub fn from(mut self, start: impl Into<Start>) -> Self {
        self.start = start.into();
        self
    }

    /// Reads this partition; may be called for several. Default: all, those added to the topic
    /// later included.
    pub fn partition(mut self, partition: impl Into<PartitionNumber>) -> Self {
        self.partitions.insert(partition.into().0, None);
        self
    }

    /// Reads this partition from a place of its own.
    pub fn partition_from(
        mut self,
        partition: impl Into<PartitionNumber>,
        start: impl Into<Start>,
    ) -> Self {
        self.partitions
            .insert(partition.into().0, Some(start.into()));
        self
    }

    /// Bytes of records that may be on their way ahead of `next`, plus one delivery. Default:
    /// 4 MiB.
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What to do where retention overtook the position. Default: [`Reset::Stop`].
    pub fn on_out_of_range(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Subscribes; when this returns, every partition has its starting offset.
    ///
    /// # Errors
    /// [`SubscribeError::OffsetOutOfRange`] for an offset that does not exist, and through
    /// [`SubscribeError::Client`] an unknown topic or partition, and whatever keeps a request from
    /// succeeding within the request timeout.
    pub async fn open(self) -> Result<Subscription, SubscribeError> {
        if self.buffer_bytes < BUFFER_BYTES_MIN || self.buffer_bytes > u64::MAX / 4 {
            return Err(SubscribeError::Client(Error::InvalidOption {
                option: "buffer_bytes",
                reason: "it is not a size from 1 byte on",
            }));
        }
        let core = Arc::clone(self.client.core());
        let limit = core.request_timeout;
        let opened = timeout(limit, async {
            let meta = core.refresh_topic(&self.topic).await?;
            let shared = Arc::new(self.shared(meta)?);
            open_first(&shared).await.map(|line| (shared, line))
        });
        let (shared, line) = match opened.await {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(SubscribeError::Client(Error::Timeout {
                    operation: "subscribe",
                    after: limit,
                    outcome: Outcome::NotApplied,
                    reason: core.link.down_reason(),
                }));
            }
        };
        core.tracker.spawn(drive(Arc::clone(&shared), line));
        let tally = shared.core.counters.open_tally();
        Ok(Subscription {
            shared,
            current: None,
            tally,
            _keep: Arc::clone(&self.client.keep),
        })
    }

    fn shared(&self, meta: TopicMeta) -> Result<Shared, Error> {
        let state = self.state(meta.id, meta.partitions)?;
        let core = Arc::clone(self.client.core());
        Ok(Shared {
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            topic: self.topic.as_str().into(),
            reset: self.reset,
            has_all_partitions: self.partitions.is_empty(),
            state: Mutex::new(state),
            restart: Notify::new(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            core,
        })
    }

    fn state(&self, topic_id: TopicId, partitions: u32) -> Result<State, Error> {
        let mut state = State::new(topic_id, self.buffer_bytes);
        if self.partitions.is_empty() {
            for partition in (0..partitions).map(Partition) {
                state.add_partition(partition, self.start.position());
            }
        }
        for (partition, start) in &self.partitions {
            if partition.0 >= partitions {
                return Err(Error::UnknownPartition {
                    topic: self.topic.clone(),
                    partition: partition.0,
                    partitions,
                });
            }
            state.add_partition(*partition, start.unwrap_or(self.start).position());
        }
        Ok(state)
    }
}
