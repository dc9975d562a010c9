//! What is known about topics: their numbers and partitions.

use std::collections::HashMap;
use std::sync::Mutex;

use falcon_protocol::ids::check_topic_name;
use falcon_protocol::message::{MetadataRequest, MetadataResponse};
use falcon_protocol::{ErrorCode, Kind, TopicId};

use crate::core::{Core, Repeat};
use crate::error::Error;
use crate::sync::lock;

/// Topics remembered; beyond that all are forgotten and asked for again.
const TOPICS_MAX: usize = 10_000;

/// A topic as last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicMeta {
    pub(crate) id: TopicId,
    pub(crate) partitions: u32,
}

/// Remembers topics by name.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    known: Mutex<HashMap<String, TopicMeta>>,
}

impl Topics {
    /// Forgets a topic, so that it is asked for again.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.known).remove(name);
    }
}

impl Core {
    /// The topic, from memory or from the broker.
    pub(crate) async fn topic(&self, name: &str) -> Result<TopicMeta, Error> {
        let known = lock(&self.topics.known).get(name).copied();
        match known {
            Some(meta) => Ok(meta),
            None => self.refresh_topic(name).await,
        }
    }

    /// The topic, from the broker.
    pub(crate) async fn refresh_topic(&self, name: &str) -> Result<TopicMeta, Error> {
        check_topic(name)?;
        let request = MetadataRequest {
            topics: Some(vec![name.to_owned()]),
        };
        let answer: MetadataResponse = self
            .call("metadata", Kind::Metadata, &request, Repeat::Safe)
            .await?;
        let found = answer.topics.iter().find(|topic| topic.name == name);
        let Some(found) = found.filter(|topic| !topic.partitions.is_empty()) else {
            self.topics.forget(name);
            return Err(Error::UnknownTopic {
                topic: name.to_owned(),
            });
        };
        let meta = TopicMeta {
            id: found.topic_id,
            partitions: u32::try_from(found.partitions.len()).unwrap_or(u32::MAX),
        };
        let mut known = lock(&self.topics.known);
        if known.len() >= TOPICS_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), meta);
        Ok(meta)
    }

    /// Runs `work` with the topic, and once more with fresh knowledge when the broker says that
    /// what was remembered is out of date.
    // Not `AsyncFn`: its future cannot be named, and so not be said to be `Send`.
    pub(crate) async fn with_topic<T, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        name: &str,
        work: impl Fn(TopicMeta) -> F + Send,
    ) -> Result<T, Error> {
        let meta = self.topic(name).await?;
        match work(meta).await {
            Err(error) if error.code().is_some_and(is_outdated) => {
                work(self.refresh_topic(name).await?).await
            }
            settled => settled,
        }
    }
}

/// Whether a code says that what is remembered about a topic is out of date.
pub(crate) fn is_outdated(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::NotOwner
    )
}

/// Refuses what cannot be a topic name before asking the broker.
pub(crate) fn check_topic(name: &str) -> Result<(), Error> {
    check_topic_name(name).map_err(|reason| Error::InvalidName {
        name: name.to_owned(),
        reason,
    })
}
