//! Administration: topics and groups.

use std::time::Duration;

use falcon_protocol::ids::TopicId;
use falcon_protocol::limits::PAGE_ROWS_MAX;
use falcon_protocol::message::{
    AlterTopic, ConfigEntry, CreateTopic, DeleteTopic, DescribeTopic, Empty, GroupPage, ListGroups,
    ListOffsets, ListTopics, ListedOffset, OffsetQuery, TopicConfig, TopicCreated,
    TopicDescription, TopicPage, TopicSummary,
};
use falcon_protocol::{ErrorCode, Kind, Partition};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::Error;
use crate::start::Start;
use crate::topics::{TopicMeta, check_topic};

/// How a topic is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    partitions: u32,
    config: TopicConfig,
}

impl TopicOptions {
    /// A topic of so many partitions (1 to 4096) that keeps its records for ever.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            config: TopicConfig::default(),
        }
    }

    /// Lets records older than this be trimmed; whole milliseconds count.
    #[must_use]
    pub fn retention_age(mut self, age: Duration) -> Self {
        self.config.retention_age_ms = Some(whole_ms(age));
        self
    }

    /// Lets the oldest records of a partition be trimmed when it holds more bytes than this.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.config.retention_bytes = Some(bytes);
        self
    }
}

/// What to change about a topic; what is not named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicChange {
    partitions: Option<u32>,
    config: Vec<ConfigEntry>,
}

impl TopicChange {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trims records older than this; `None`: no longer by age.
    #[must_use]
    pub fn retention_age(self, age: Option<Duration>) -> Self {
        self.set(TopicConfig::RETENTION_AGE_MS, age.map(whole_ms))
    }

    /// Trims the oldest records of a partition beyond so many bytes; `None`: no longer by size.
    #[must_use]
    pub fn retention_bytes(self, bytes: Option<u64>) -> Self {
        self.set(TopicConfig::RETENTION_BYTES, bytes)
    }

    /// Raises the number of partitions. Keys may then belong to other partitions than before.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    fn set(mut self, key: &str, value: Option<u64>) -> Self {
        self.config.retain(|entry| entry.key != key);
        self.config.push(ConfigEntry {
            key: key.to_owned(),
            value: value.map(|value| value.to_string()),
        });
        self
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Client {
    /// Creates a topic; durable when this returns.
    ///
    /// # Errors
    /// [`ErrorCode::TopicExists`] when there is one of this name. After [`Error::Lost`] it may
    /// have been created.
    pub async fn create_topic(&self, name: &str, options: TopicOptions) -> Result<TopicId, Error> {
        check_topic(name)?;
        let request = CreateTopic {
            name: name.to_owned(),
            partitions: options.partitions,
            config: options.config.to_entries(),
        };
        let created: TopicCreated = self
            .core()
            .call("create topic", Kind::CreateTopic, &request, Repeat::Unsafe)
            .await?;
        self.core().topics.forget(name);
        Ok(created.topic_id)
    }

    /// The topic of this name, created with `options` when there is none. One that exists stays as
    /// it is, also when its partitions or settings differ.
    pub async fn ensure_topic(&self, name: &str, options: TopicOptions) -> Result<TopicId, Error> {
        match self.create_topic(name, options).await {
            Err(error) if error.code() == Some(ErrorCode::TopicExists) => {
                Ok(self.describe_topic(name).await?.topic_id)
            }
            outcome => outcome,
        }
    }

    /// One topic in full: settings, and what each partition holds.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        check_topic(name)?;
        let request = DescribeTopic {
            name: name.to_owned(),
        };
        let described = self
            .core()
            .call(
                "describe topic",
                Kind::DescribeTopic,
                &request,
                Repeat::Safe,
            )
            .await;
        described.map_err(|error| named(error, name))
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, Error> {
        let mut topics: Vec<TopicSummary> = Vec::new();
        loop {
            let request = ListTopics {
                after: topics.last().map(|topic| topic.name.clone()),
                rows_max: PAGE_ROWS_MAX,
            };
            let page: TopicPage = self
                .core()
                .call("list topics", Kind::ListTopics, &request, Repeat::Safe)
                .await?;
            // A page that does not advance would be asked for again and again.
            let is_last = !page.has_more || page.topics.is_empty();
            topics.extend(page.topics);
            if is_last {
                return Ok(topics);
            }
        }
    }

    /// Changes a topic's settings, or adds partitions; durable when this returns.
    pub async fn alter_topic(&self, name: &str, change: TopicChange) -> Result<(), Error> {
        check_topic(name)?;
        let request = AlterTopic {
            name: name.to_owned(),
            config: change.config,
            partitions: change.partitions,
        };
        // Setting the same values twice is setting them once.
        let altered: Result<Empty, Error> = self
            .core()
            .call("alter topic", Kind::AlterTopic, &request, Repeat::Safe)
            .await;
        self.core().topics.forget(name);
        altered.map(drop).map_err(|error| named(error, name))
    }

    /// Deletes a topic with its records and the offsets committed for it.
    ///
    /// # Errors
    /// After [`Error::Lost`] it may have been deleted.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        check_topic(name)?;
        let request = DeleteTopic {
            name: name.to_owned(),
        };
        let deleted: Result<Empty, Error> = self
            .core()
            .call("delete topic", Kind::DeleteTopic, &request, Repeat::Unsafe)
            .await;
        self.core().topics.forget(name);
        deleted.map(drop).map_err(|error| named(error, name))
    }

    /// The offset of a position in every partition of a topic, by partition.
    pub async fn list_offsets(
        &self,
        topic: &str,
        at: impl Into<Start>,
    ) -> Result<Vec<ListedOffset>, Error> {
        let at = at.into().position();
        let core = self.core();
        let list = |meta: TopicMeta| async move {
            let partitions = (0..meta.partitions).map(Partition);
            let request = ListOffsets {
                topic_id: meta.id,
                queries: partitions
                    .map(|partition| OffsetQuery { partition, at })
                    .collect(),
            };
            core.call("list offsets", Kind::ListOffsets, &request, Repeat::Safe)
                .await
        };
        core.with_topic(topic, list).await
    }

    /// The first offset still kept, for every partition of a topic.
    pub async fn earliest_offsets(&self, topic: &str) -> Result<Vec<ListedOffset>, Error> {
        self.list_offsets(topic, Start::Earliest).await
    }

    /// The offset behind the last durable record, for every partition of a topic.
    pub async fn latest_offsets(&self, topic: &str) -> Result<Vec<ListedOffset>, Error> {
        self.list_offsets(topic, Start::Latest).await
    }

    /// All group names that have committed offsets, in order.
    pub async fn list_groups(&self) -> Result<Vec<String>, Error> {
        let mut groups: Vec<String> = Vec::new();
        loop {
            let request = ListGroups {
                after: groups.last().cloned(),
                rows_max: PAGE_ROWS_MAX,
            };
            let page: GroupPage = self
                .core()
                .call("list groups", Kind::ListGroups, &request, Repeat::Safe)
                .await?;
            let is_last = !page.has_more || page.groups.is_empty();
            groups.extend(page.groups);
            if is_last {
                return Ok(groups);
            }
        }
    }
}

/// Puts the topic's name into an error that is about it.
fn named(error: Error, topic: &str) -> Error {
    match error.code() {
        Some(ErrorCode::UnknownTopic) => Error::UnknownTopic {
            topic: topic.to_owned(),
        },
        Some(_) | None => error,
    }
}
