//! Requests that change what is stored of a group, from outside of it.

use falcon_protocol::limits::OFFSETS_ENTRIES_MAX;
use falcon_protocol::message::{self, DeleteGroup, Empty, ResetOffsets};
use falcon_protocol::{ErrorCode, Kind, PartitionId};
use tokio::sync::oneshot;

use super::ask::{Ask, Change};
use super::members::check_group;
use crate::server::connection::Connection;
use crate::server::refusal::Refusal;
use crate::writer::CommitOffsets;

impl Connection {
    pub(in crate::server) async fn reset_offsets(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: ResetOffsets = message::decode(body)?;
        check_group(&request.group)?;
        if request.offsets.is_empty() || request.offsets.len() > OFFSETS_ENTRIES_MAX {
            let text = format!("1 to {OFFSETS_ENTRIES_MAX} offsets can be set at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let offsets = request.offsets.into_iter().map(|commit| {
            let id = PartitionId {
                topic: commit.topic_id,
                partition: commit.partition,
            };
            (id, commit.offset, commit.note)
        });
        let commit = CommitOffsets {
            group: request.group,
            offsets: offsets.collect(),
        };
        let change = (Change::Reset(commit), request.is_forced);
        self.change_group(Kind::ResetOffsets, correlation, change)
            .await
    }

    pub(in crate::server) async fn delete_group(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: DeleteGroup = message::decode(body)?;
        check_group(&request.group)?;
        let change = (Change::Delete(request.group), request.is_forced);
        self.change_group(Kind::DeleteGroup, correlation, change)
            .await
    }

    /// By way of the coordinator, which knows whether there are members, and must know of it before
    /// whoever asked.
    async fn change_group(
        &mut self,
        kind: Kind,
        correlation: u32,
        (change, is_forced): (Change, bool),
    ) -> Result<(), Refusal> {
        let request = self.request_permit().await;
        let paid = self.paid.take();
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Change(change, is_forced, answer);
        if !self.shared.groups.ask(ask).await {
            return Err(Refusal::of(ErrorCode::Draining).retry_later());
        }
        let replies = self.replies(kind, correlation);
        let token = self.token.clone();
        let work = async move {
            let answer = match answered.await {
                Ok(Ok(())) => Ok(Empty {}),
                Ok(Err(error)) => Err(Refusal::from(error)),
                Err(_) => Err(Refusal::of(ErrorCode::Draining).retry_later()),
            };
            replies.give(answer, request).await;
            drop(paid);
        };
        self.tasks.spawn(async move {
            let _cancelled = token.run_until_cancelled(work).await;
        });
        Ok(())
    }

    /// Offsets of a group with members are theirs.
    pub(in crate::server) fn check_inactive(&self, group: &str) -> Result<(), Refusal> {
        if self.shared.groups.is_active(group) {
            return Err(Refusal::of(ErrorCode::GroupActive));
        }
        Ok(())
    }
}
