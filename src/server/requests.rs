//! From a control frame to its handler.

use bytes::Bytes;
use falcon_protocol::message::{self, Credit, Unsubscribe};
use falcon_protocol::{ErrorCode, Kind};
use serde::Serialize;

use super::connection::Connection;
use super::refusal::Refusal;
use crate::metrics::Rejection;

impl Connection {
    /// Handles every request but publish and goodbye.
    pub(super) async fn control(&mut self, kind: Kind, correlation: u32, body: Bytes) {
        let outcome = match kind {
            Kind::Ping => {
                self.outbox.answer(kind, correlation, Bytes::new());
                Ok(())
            }
            Kind::Credit => self.credit(correlation, &body),
            Kind::Metadata => self
                .metadata(&body)
                .map(|answer| self.reply(kind, correlation, &answer)),
            Kind::DescribeTopic => self
                .describe_topic(&body)
                .map(|answer| self.reply(kind, correlation, &answer)),
            Kind::ListTopics => self
                .list_topics(&body)
                .map(|answer| self.reply(kind, correlation, &answer)),
            Kind::FetchOffsets => self
                .fetch_offsets(&body)
                .map(|answer| self.reply(kind, correlation, &answer)),
            Kind::ListGroups => self
                .list_groups(&body)
                .map(|answer| self.reply(kind, correlation, &answer)),
            Kind::CreateTopic => self.create_topic(correlation, &body).await,
            Kind::AlterTopic => self.alter_topic(correlation, &body).await,
            Kind::DeleteTopic => self.delete_topic(correlation, &body).await,
            Kind::InitProducer => self.init_producer(correlation, &body).await,
            Kind::CommitOffsets => self.commit_offsets(correlation, &body).await,
            Kind::DeleteOffsets => self.delete_offsets(correlation, &body).await,
            Kind::Fetch => self.fetch(correlation, &body).await,
            Kind::ListOffsets => self.list_offsets(correlation, &body).await,
            Kind::Subscribe => self.subscribe(correlation, &body).await,
            Kind::Unsubscribe => self.unsubscribe(correlation, &body).await,
            Kind::Hello
            | Kind::Goodbye
            | Kind::Publish
            | Kind::Draining
            | Kind::Window
            | Kind::Deliver
            | Kind::PartitionEnded => {
                let text = format!("{} is not expected here", kind.name());
                Err(Refusal::new(ErrorCode::MalformedRequest, text))
            }
        };
        // What was not refused may be answered later, or never.
        let is_over = outcome.is_err() || is_answered_at_once(kind);
        if let Err(refusal) = outcome {
            self.refuse(kind, correlation, &refusal);
        }
        if is_over {
            self.outbox.answered(kind, self.begun);
        }
    }

    /// Answers with a control message.
    pub(super) fn reply<T: Serialize>(&self, kind: Kind, correlation: u32, answer: &T) {
        match message::encode(answer) {
            Ok(body) if body.len() <= self.frame_bytes_max as usize => {
                self.outbox.answer(kind, correlation, body);
            }
            Ok(body) => {
                let text = format!(
                    "the answer has {} bytes; ask for less at a time",
                    body.len()
                );
                let refusal = Refusal::new(ErrorCode::FrameTooLarge, text);
                self.refuse(kind, correlation, &refusal);
            }
            Err(error) => {
                let refusal = Refusal::new(ErrorCode::Internal, error.to_string());
                self.refuse(kind, correlation, &refusal);
            }
        }
    }

    fn credit(&mut self, subscription: u32, body: &[u8]) -> Result<(), Refusal> {
        let credit = Credit::decode(body)?;
        // A grant may cross the end of its subscription on the way: nothing to complain about.
        let handle = self.subscriptions.get(&subscription);
        if !handle.is_some_and(|handle| handle.grant(&credit)) {
            let rejections = &self.shared.metrics.server.rejections;
            rejections.add(Rejection::CreditIgnored);
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, correlation: u32, body: &[u8]) -> Result<(), Refusal> {
        let request: Unsubscribe = message::decode(body)?;
        let Some(handle) = self.subscriptions.remove(&request.subscription) else {
            return Err(Refusal::of(ErrorCode::UnknownSubscription));
        };
        let permit = self.request_permit().await;
        if handle.end(correlation, permit) {
            Ok(())
        } else {
            Err(Refusal::of(ErrorCode::UnknownSubscription))
        }
    }
}

const fn is_answered_at_once(kind: Kind) -> bool {
    match kind {
        Kind::Ping
        | Kind::Metadata
        | Kind::DescribeTopic
        | Kind::ListTopics
        | Kind::FetchOffsets
        | Kind::ListGroups => true,
        Kind::Credit
        | Kind::CreateTopic
        | Kind::AlterTopic
        | Kind::DeleteTopic
        | Kind::InitProducer
        | Kind::CommitOffsets
        | Kind::DeleteOffsets
        | Kind::Fetch
        | Kind::ListOffsets
        | Kind::Subscribe
        | Kind::Unsubscribe
        | Kind::Hello
        | Kind::Goodbye
        | Kind::Publish
        | Kind::Draining
        | Kind::Window
        | Kind::Deliver
        | Kind::PartitionEnded => false,
    }
}
