//! Atomic steps: records for any partitions and commits of a group, all of it or nothing.
//!
//! Owns what a step consists of, the lanes steps are sent on, and sending one until its end is
//! known. Promises: a step happens once or not at all, across lost connections; an error says when
//! that is not known; steps of one client run side by side; a refused step costs no other anything.
//!
//! Must not know: how partitions come to a consumer, and what it does with them.

mod deliver;
mod lane;
mod plan;
mod pool;
#[cfg(test)]
mod tests;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::{Offset, Record};
use tokio::sync::oneshot;

pub(crate) use pool::StepLanes;

use crate::client::Client;
use crate::consumer::{Grant, Owner};
use crate::error::{CommitError, Error, StepError};
use crate::offsets::PartitionNumber;
use crate::publisher::Receipt;
use crate::subscription::Delivered;
use deliver::{Job, deliver};
use plan::{Part, Target};

/// How long a step may take with all attempts, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Records and commits that become durable and visible together, or not at all. Made by
/// [`Client::step`] and [`Consumer::step`](crate::Consumer::step); nothing happens until it is
/// awaited.
///
/// ```no_run
/// # async fn example(falcon: falcon_client::Client) -> Result<(), falcon_client::StepError> {
/// let receipt = falcon
///     .step()
///     .publish("charges", "17.50 EUR")
///     .publish_to("ledger", 0, "charge 17")
///     .expect_offset(falcon_client::Offset(17))
///     .await?;
/// println!("{:?}", receipt.records);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Step {
    client: Client,
    lanes: Arc<StepLanes>,
    owner: Option<Owner>,
    parts: Vec<Part>,
    marks: Vec<(Grant, Offset)>,
    fault: Option<StepError>,
    timeout: Duration,
}

/// A step that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepReceipt {
    /// Where its records are, in the order in which they were added.
    pub records: Vec<Receipt>,
}

impl Step {
    pub(crate) fn new(client: Client, lanes: Arc<StepLanes>, owner: Option<Owner>) -> Self {
        Self {
            client,
            lanes,
            owner,
            parts: Vec::new(),
            marks: Vec::new(),
            fault: None,
            timeout: TIMEOUT,
        }
    }

    /// Adds a record; its key chooses the partition. Records without a key go to one partition
    /// per topic and step, any.
    pub fn publish(mut self, topic: impl Into<String>, record: impl Into<Record>) -> Self {
        self.parts
            .push(Part::new(topic.into(), Target::ByKey, record.into()));
        self
    }

    /// Adds a record for this partition. Records of a partition are stored in the order in which
    /// they were added, without others between them.
    pub fn publish_to(
        mut self,
        topic: impl Into<String>,
        partition: impl Into<PartitionNumber>,
        record: impl Into<Record>,
    ) -> Self {
        let target = Target::Partition(partition.into().0);
        self.parts
            .push(Part::new(topic.into(), target, record.into()));
        self
    }

    /// The step happens only if this is the next offset of the last record's partition: of several
    /// that expect the same offset one wins, and the others end with
    /// [`StepError::OffsetMismatch`].
    pub fn expect_offset(mut self, offset: Offset) -> Self {
        match self.parts.last_mut() {
            Some(part) => part.expected = Some(offset),
            None => {
                self.fault
                    .get_or_insert(StepError::Client(Error::InvalidOption {
                        option: "expect_offset",
                        reason: "it belongs behind a record",
                    }));
            }
        }
        self
    }

    /// Commits this record, and with it every one of its partition before.
    pub fn commit(mut self, record: &Delivered) -> Self {
        let grant = record.grant.filter(|grant| {
            let owner = self.owner.as_ref();
            owner.is_some_and(|owner| owner.member() == grant.member)
        });
        if let Some(grant) = grant {
            self.marks.push((grant, record.next_offset()));
        } else {
            let topic = record.topic.to_string();
            let error = StepError::Commit(CommitError::NotDelivered { topic });
            self.fault.get_or_insert(error);
        }
        self
    }

    /// How long it may take with all attempts. Default: 2 min.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Does it; when this returns it is durable. The same as awaiting the step.
    ///
    /// CANCEL SAFETY: once begun it goes on although this is dropped.
    ///
    /// # Errors
    /// [`StepError`]; after most of them nothing has happened, see
    /// [`StepError::may_have_happened`].
    pub async fn send(self) -> Result<StepReceipt, StepError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.parts.is_empty() && self.marks.is_empty() {
            return Err(StepError::Empty);
        }
        let core = Arc::clone(self.client.core());
        let abandoned = StepError::Abandoned {
            is_uncertain: false,
        };
        if core.draining.is_cancelled() {
            return Err(abandoned);
        }
        let job = Job {
            core: Arc::clone(&core),
            lanes: self.lanes,
            owner: self.owner,
            parts: self.parts,
            marks: self.marks,
            timeout: self.timeout,
        };
        let (reply, ended) = oneshot::channel();
        let keep = Arc::clone(&self.client.keep);
        core.publishers.spawn(async move {
            // Nobody waiting any more is no reason to leave it half known.
            reply.send(deliver(job).await).ok();
            drop(keep);
        });
        ended.await.unwrap_or(Err(abandoned))
    }
}

impl IntoFuture for Step {
    type Output = Result<StepReceipt, StepError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
