//! Offsets stored on the broker under a group name.

use std::collections::HashMap;

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::OFFSETS_ENTRIES_MAX;
use falcon_protocol::message::{
    CommitOffsets, CommittedOffset, DeleteOffsets, Empty, FetchOffsets, OffsetCommit,
};
use falcon_protocol::{ErrorCode, Kind, Offset, Partition};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::Error;
use crate::topics::is_outdated;

/// Offsets stored under a group name, made by [`Client::offsets`].
///
/// What is stored is the next offset to read: one more than that of the last record done.
#[derive(Debug, Clone)]
pub struct Offsets {
    client: Client,
    group: String,
}

impl Offsets {
    pub(crate) fn new(client: Client, group: String) -> Self {
        Self { client, group }
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Stores the next offset to read of one partition; durable when this returns.
    pub async fn commit(
        &self,
        topic: &str,
        partition: impl Into<PartitionNumber>,
        next_offset: Offset,
    ) -> Result<(), Error> {
        let PartitionNumber(partition) = partition.into();
        self.commit_all(&[(topic, partition, next_offset)]).await
    }

    /// Stores several, all or nothing; durable when this returns. At most 4096 at a time.
    pub async fn commit_all<T: AsRef<str>>(
        &self,
        offsets: &[(T, Partition, Offset)],
    ) -> Result<(), Error> {
        self.check_name()?;
        if offsets.len() > OFFSETS_ENTRIES_MAX {
            return Err(Error::InvalidOption {
                option: "offsets",
                reason: "at most 4096 can be committed at a time",
            });
        }
        if offsets.is_empty() {
            return Ok(());
        }
        match self.commit_once(offsets).await {
            Err(error) if error.code().is_some_and(is_outdated) => {
                for (topic, _, _) in offsets {
                    self.client.core().topics.forget(topic.as_ref());
                }
                self.commit_once(offsets).await
            }
            settled => settled,
        }
    }

    async fn commit_once<T: AsRef<str>>(
        &self,
        offsets: &[(T, Partition, Offset)],
    ) -> Result<(), Error> {
        let core = self.client.core();
        let mut ids = HashMap::new();
        let mut commits = Vec::with_capacity(offsets.len());
        for (topic, partition, offset) in offsets {
            let topic = topic.as_ref();
            let topic_id = match ids.get(topic) {
                Some(id) => *id,
                None => core.topic(topic).await?.id,
            };
            ids.insert(topic, topic_id);
            commits.push(OffsetCommit {
                topic_id,
                partition: *partition,
                offset: *offset,
                note: String::new(),
            });
        }
        let request = CommitOffsets {
            group: self.group.clone(),
            offsets: commits,
        };
        core.call::<Empty>("commit", Kind::CommitOffsets, &request, Repeat::Safe)
            .await
            .map(drop)
    }

    /// What is stored for a topic; partitions without a stored offset are missing.
    pub async fn fetch(&self, topic: &str) -> Result<Vec<CommittedOffset>, Error> {
        self.fetch_from(Some(topic.to_owned())).await
    }

    /// What is stored for all topics. What does not fit into one answer is asked for topic by topic, and is
    /// then not of one moment.
    pub async fn fetch_all(&self) -> Result<Vec<CommittedOffset>, Error> {
        match self.fetch_from(None).await {
            Err(error) if error.code() == Some(ErrorCode::FrameTooLarge) => {
                self.fetch_by_topic().await
            }
            settled => settled,
        }
    }

    async fn fetch_by_topic(&self) -> Result<Vec<CommittedOffset>, Error> {
        let mut all = Vec::new();
        for topic in self.client.list_topics().await? {
            match self.fetch_from(Some(topic.name)).await {
                Ok(offsets) => all.extend(offsets),
                // Deleted meanwhile, and its offsets with it.
                Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn fetch_from(&self, topic: Option<String>) -> Result<Vec<CommittedOffset>, Error> {
        self.check_name()?;
        let request = FetchOffsets {
            group: self.group.clone(),
            topic,
        };
        self.client
            .core()
            .call("fetch offsets", Kind::FetchOffsets, &request, Repeat::Safe)
            .await
    }

    /// Forgets what is stored for one topic, or for all.
    pub async fn delete(&self, topic: Option<&str>) -> Result<(), Error> {
        self.check_name()?;
        let request = DeleteOffsets {
            group: self.group.clone(),
            topic: topic.map(str::to_owned),
        };
        self.client
            .core()
            .call::<Empty>(
                "delete offsets",
                Kind::DeleteOffsets,
                &request,
                Repeat::Safe,
            )
            .await
            .map(drop)
    }

    fn check_name(&self) -> Result<(), Error> {
        check_group_name(&self.group).map_err(|reason| Error::InvalidName {
            name: self.group.clone(),
            reason,
        })
    }
}

/// A partition, written as a [`Partition`] or as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionNumber(pub Partition);

impl From<Partition> for PartitionNumber {
    fn from(partition: Partition) -> Self {
        Self(partition)
    }
}

impl From<u32> for PartitionNumber {
    fn from(partition: u32) -> Self {
        Self(Partition(partition))
    }
}
