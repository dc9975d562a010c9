//! From a control frame to its handler.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::{self, Credit, MessageError, Unsubscribe};
use falcon_protocol::{ErrorCode, FRAME_HEADER_BYTES, Frame, Kind};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::budget::Budget;
use super::connection::Connection;
use super::outbox::{Delivery, Outbox};
use super::refusal::Refusal;
use crate::clock::Instant;
use crate::metrics::Rejection;

/// Answers up to this size wait in the outbox.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// Answers one request.
pub(super) struct Replies {
    kind: Kind,
    correlation: u32,
    outbox: Arc<Outbox>,
    deliveries: mpsc::Sender<Delivery>,
    budget: Budget,
    frame_bytes_max: usize,
    begun: Instant,
}

impl Replies {
    /// Answers, or refuses, late; `request` is its place among those in flight.
    pub(super) async fn give<T: Serialize>(
        self,
        answer: Result<T, Refusal>,
        request: Option<OwnedSemaphorePermit>,
    ) {
        let outcome = match answer {
            Ok(answer) => self.push(&answer, request).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.outbox.refuse(self.kind, self.correlation, &refusal);
        }
        self.outbox.answered(self.kind, self.begun);
    }

    /// Answers with a control message. A large one is paid for like a delivery, so that who does not
    /// read it is not read any more.
    async fn push<T: Serialize>(
        &self,
        answer: &T,
        request: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Refusal> {
        let body = match message::encode(answer) {
            Ok(body) if body.len() <= self.frame_bytes_max => body,
            Ok(body) => return Err(too_much(body.len())),
            Err(MessageError::TooLarge { bytes }) => return Err(too_much(bytes)),
            Err(error) => return Err(Refusal::new(ErrorCode::Internal, error.to_string())),
        };
        if body.len() <= SMALL_BYTES_MAX {
            self.outbox.answer(self.kind, self.correlation, body);
            return Ok(());
        }
        // An answer that cannot be paid for or queued is one of a connection that has ended.
        if let Some(permit) = self.budget.pay(body.len()).await {
            let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES);
            Frame::response(self.kind, self.correlation, body.clone())
                .header
                .encode(&mut head);
            let answer = Delivery {
                kind: self.kind,
                head: head.freeze(),
                batches: vec![body],
                permit: Some(permit),
                request,
            };
            let _closed = self.deliveries.send(answer).await;
        }
        Ok(())
    }
}

impl Connection {
    /// Handles every request but publish, step and goodbye.
    pub(super) async fn control(&mut self, kind: Kind, correlation: u32, body: Bytes) {
        let outcome = match kind {
            Kind::Ping => {
                self.outbox.answer(kind, correlation, Bytes::new());
                Ok(())
            }
            Kind::Credit => self.credit(correlation, &body),
            Kind::Metadata => self.reply(kind, correlation, self.metadata(&body)).await,
            Kind::DescribeTopic => {
                let answer = self.describe_topic(&body);
                self.reply(kind, correlation, answer).await
            }
            Kind::ListTopics => {
                let answer = self.list_topics(&body);
                self.reply(kind, correlation, answer).await
            }
            Kind::FetchOffsets => {
                let answer = self.fetch_offsets(&body);
                self.reply(kind, correlation, answer).await
            }
            Kind::ListGroups => {
                let answer = self.list_groups(&body);
                self.reply(kind, correlation, answer).await
            }
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
            Kind::CommitOwned => self.commit_owned(correlation, &body).await,
            Kind::ResetOffsets => self.reset_offsets(correlation, &body).await,
            Kind::DeleteGroup => self.delete_group(correlation, &body).await,
            Kind::JoinGroup => self.join_group(correlation, &body).await,
            Kind::GroupReport => self.group_report(correlation, &body).await,
            Kind::LeaveGroup => self.leave_group(correlation, &body).await,
            Kind::SummarizeGroups => {
                let answer = self.summarize_groups(&body);
                self.reply(kind, correlation, answer).await
            }
            Kind::DescribeGroup => {
                let answer = self.describe_group(&body).await;
                self.reply(kind, correlation, answer).await
            }
            Kind::ListGroupPartitions => self.list_group_partitions(correlation, &body).await,
            Kind::Hello
            | Kind::Goodbye
            | Kind::Publish
            | Kind::Step
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

    async fn reply<T: Serialize>(
        &self,
        kind: Kind,
        correlation: u32,
        answer: Result<T, Refusal>,
    ) -> Result<(), Refusal> {
        let replies = self.replies(kind, correlation);
        replies.push(&answer?, None).await
    }

    /// A way to answer the request from a task.
    pub(super) fn replies(&self, kind: Kind, correlation: u32) -> Replies {
        Replies {
            kind,
            correlation,
            outbox: Arc::clone(&self.outbox),
            deliveries: self.deliveries.clone(),
            budget: self.budget.clone(),
            frame_bytes_max: self.frame_bytes_max as usize,
            begun: self.begun,
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

fn too_much(bytes: usize) -> Refusal {
    let text = format!("the answer has {bytes} bytes; ask for less at a time");
    Refusal::new(ErrorCode::FrameTooLarge, text)
}

const fn is_answered_at_once(kind: Kind) -> bool {
    match kind {
        Kind::Ping
        | Kind::Metadata
        | Kind::DescribeTopic
        | Kind::ListTopics
        | Kind::FetchOffsets
        | Kind::ListGroups
        | Kind::SummarizeGroups
        | Kind::DescribeGroup => true,
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
        | Kind::Step
        | Kind::CommitOwned
        | Kind::ResetOffsets
        | Kind::DeleteGroup
        | Kind::JoinGroup
        | Kind::GroupReport
        | Kind::LeaveGroup
        | Kind::ListGroupPartitions
        | Kind::Hello
        | Kind::Goodbye
        | Kind::Publish
        | Kind::Draining
        | Kind::Window
        | Kind::Deliver
        | Kind::PartitionEnded => false,
    }
}
