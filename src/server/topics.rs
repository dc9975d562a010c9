//! Requests about topics and metadata.

use std::sync::Arc;

use falcon_protocol::limits::PAGE_ROWS_MAX;
use falcon_protocol::message::{
    self, AlterTopic, BrokerAddress, CreateTopic, DeleteTopic, DescribeTopic, Empty, InitProducer,
    ListTopics, MetadataRequest, MetadataResponse, PartitionDescription, PartitionMetadata,
    TopicCreated, TopicDescription, TopicMetadata, TopicPage, TopicSummary,
};
use falcon_protocol::{ErrorCode, Kind};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Connection;
use super::outbox::Outbox;
use super::refusal::Refusal;
use crate::catalog::Topic;
use crate::writer::{Answer, Command, TopicAlteration};

/// LIMIT: partitions in one metadata answer.
const METADATA_ROWS_MAX: usize = 100_000;
/// LIMIT: bytes of a request that creates or alters a topic; its settings are few.
const TOPIC_BYTES_MAX: usize = 64 * 1024;
/// Number of this broker: the only one, until there are several.
const BROKER_ID: u32 = 1;

impl Connection {
    pub(super) fn metadata(&self, body: &[u8]) -> Result<MetadataResponse, Refusal> {
        let request: MetadataRequest = message::decode(body)?;
        let catalog = self.shared.views.catalog();
        let epoch = self.shared.epoch;
        let mut names = request.topics.unwrap_or_default();
        if names.len() > PAGE_ROWS_MAX as usize {
            let text = format!("at most {PAGE_ROWS_MAX} topics can be asked for at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        names.sort_unstable();
        names.dedup();
        let found = || names.iter().filter_map(|name| catalog.by_name(name));
        let rows: usize = found().map(|topic| topic.partitions as usize).sum();
        if rows > METADATA_ROWS_MAX {
            let text = format!("these topics have {rows} partitions; ask for fewer at a time");
            return Err(Refusal::new(ErrorCode::FrameTooLarge, text));
        }
        let topics = found().map(|topic| TopicMetadata {
            name: topic.name.clone(),
            topic_id: topic.id,
            partitions: topic
                .partition_ids()
                .map(|id| PartitionMetadata {
                    partition: id.partition,
                    owner: BROKER_ID,
                    epoch,
                })
                .collect(),
        });
        let address = self.address.clone();
        let brokers = vec![BrokerAddress {
            broker_id: BROKER_ID,
            address,
        }];
        Ok(MetadataResponse {
            brokers,
            topics: topics.collect(),
        })
    }

    pub(super) fn describe_topic(&self, body: &[u8]) -> Result<TopicDescription, Refusal> {
        let request: DescribeTopic = message::decode(body)?;
        let topic = self.topic_by_name(&request.name)?;
        let partitions = topic.partition_ids().filter_map(|id| {
            let view = self.shared.views.partition(id)?;
            Some(PartitionDescription {
                partition: id.partition,
                log_start: view.log_start(),
                high_watermark: view.high_watermark(),
                bytes: view.bytes(),
            })
        });
        Ok(TopicDescription {
            name: topic.name.clone(),
            topic_id: topic.id,
            created_ms: topic.created_ms,
            config: topic.config.to_entries(),
            partitions: partitions.collect(),
        })
    }

    pub(super) fn topic_by_name(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        let catalog = self.shared.views.catalog();
        catalog.by_name(name).cloned().ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownTopic,
                format!("topic {name:?} does not exist"),
            )
        })
    }

    pub(super) fn list_topics(&self, body: &[u8]) -> Result<TopicPage, Refusal> {
        let request: ListTopics = message::decode(body)?;
        let rows_max = page_rows(request.rows_max);
        let catalog = self.shared.views.catalog();
        let mut rows = catalog.topics_after(request.after.as_deref());
        let summaries = rows.by_ref().take(rows_max).map(|topic| TopicSummary {
            name: topic.name.clone(),
            topic_id: topic.id,
            partitions: topic.partitions,
            config: topic.config.to_entries(),
        });
        let topics = summaries.collect();
        Ok(TopicPage {
            topics,
            has_more: rows.next().is_some(),
        })
    }

    pub(super) async fn create_topic(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        check_size(body)?;
        let request: CreateTopic = message::decode(body)?;
        let created = |topic_id| TopicCreated { topic_id };
        let answer = self.deferred(Kind::CreateTopic, correlation, created).await;
        let (name, partitions) = (request.name, request.partitions);
        self.change(Command::CreateTopic(
            name,
            partitions,
            request.config,
            answer,
        ))
        .await
    }

    pub(super) async fn alter_topic(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        check_size(body)?;
        let request: AlterTopic = message::decode(body)?;
        let answer = self
            .deferred(Kind::AlterTopic, correlation, |()| Empty {})
            .await;
        let change = TopicAlteration {
            name: request.name,
            config: request.config,
            partitions: request.partitions,
        };
        self.change(Command::AlterTopic(change, answer)).await
    }

    pub(super) async fn delete_topic(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: DeleteTopic = message::decode(body)?;
        let answer = self
            .deferred(Kind::DeleteTopic, correlation, |()| Empty {})
            .await;
        self.change(Command::DeleteTopic(request.name, answer))
            .await
    }

    pub(super) async fn init_producer(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: InitProducer = message::decode(body)?;
        let answer = self
            .deferred(Kind::InitProducer, correlation, |granted| granted)
            .await;
        self.change(Command::InitProducer(request.name, answer))
            .await
    }

    pub(super) async fn change(&self, command: Command) -> Result<(), Refusal> {
        self.shared
            .writer
            .send(command)
            .await
            .map_err(Refusal::from)
    }

    /// An answer for the writer that encodes the outcome into the outbox. Takes a place among the
    /// requests in flight until then.
    pub(super) async fn deferred<T, M, E>(
        &mut self,
        kind: Kind,
        correlation: u32,
        message: impl FnOnce(T) -> M + Send + 'static,
    ) -> Answer<T, E>
    where
        M: Serialize,
        Refusal: From<E>,
    {
        let permits: [Option<OwnedSemaphorePermit>; 2] =
            [self.request_permit().await, self.paid.take()];
        let (outbox, begun) = (Arc::clone(&self.outbox), self.begun);
        Box::new(move |result| {
            match result {
                Ok(value) => push_message(&outbox, kind, correlation, &message(value)),
                Err(error) => outbox.refuse(kind, correlation, &Refusal::from(error)),
            }
            outbox.answered(kind, begun);
            drop(permits);
        })
    }
}

/// Checked before anything is decoded: many empty settings are small on the wire and large in memory.
fn check_size(body: &[u8]) -> Result<(), Refusal> {
    if body.len() <= TOPIC_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "a topic's settings have {} bytes, at most {TOPIC_BYTES_MAX} are allowed",
        body.len()
    );
    Err(Refusal::new(ErrorCode::InvalidTopicConfig, text).range(TOPIC_BYTES_MAX as u64, 0))
}

fn push_message<M: Serialize>(outbox: &Outbox, kind: Kind, correlation: u32, message: &M) {
    match message::encode(message) {
        Ok(body) => outbox.answer(kind, correlation, body),
        Err(error) => {
            let refusal = Refusal::new(ErrorCode::Internal, error.to_string());
            outbox.refuse(kind, correlation, &refusal);
        }
    }
}

/// Rows of a page: as asked, within the limit.
pub(super) fn page_rows(asked: u32) -> usize {
    asked.clamp(1, PAGE_ROWS_MAX) as usize
}
