//! Requests about committed offsets.

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::{CONTROL_BYTES_MAX, OFFSETS_ENTRIES_MAX};
use falcon_protocol::message::{
    self, CommitOffsets, CommittedOffset, DeleteOffsets, Empty, FetchOffsets, GroupPage, ListGroups,
};
use falcon_protocol::{ErrorCode, Kind, PartitionId};

use super::connection::Connection;
use super::refusal::Refusal;
use super::topics::page_rows;
use crate::writer;

/// A committed offset in an answer, without the topic's name and the note.
const ROW_BYTES: usize = 48;

impl Connection {
    pub(super) async fn commit_offsets(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: CommitOffsets = message::decode(body)?;
        if request.offsets.is_empty() || request.offsets.len() > OFFSETS_ENTRIES_MAX {
            let text = format!("1 to {OFFSETS_ENTRIES_MAX} offsets can be committed at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        self.check_inactive(&request.group)?;
        let offsets = request.offsets.into_iter().map(|commit| {
            let id = PartitionId {
                topic: commit.topic_id,
                partition: commit.partition,
            };
            (id, commit.offset, commit.note)
        });
        let commit = writer::CommitOffsets {
            group: request.group,
            offsets: offsets.collect(),
        };
        let answer = self
            .deferred(Kind::CommitOffsets, correlation, |()| Empty {})
            .await;
        self.change(writer::Command::CommitOffsets(commit, answer))
            .await
    }

    pub(super) async fn delete_offsets(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: DeleteOffsets = message::decode(body)?;
        self.check_inactive(&request.group)?;
        let answer = self
            .deferred(Kind::DeleteOffsets, correlation, |()| Empty {})
            .await;
        self.change(writer::Command::DeleteOffsets(
            request.group,
            request.topic,
            answer,
        ))
        .await
    }

    pub(super) fn fetch_offsets(&self, body: &[u8]) -> Result<Vec<CommittedOffset>, Refusal> {
        let request: FetchOffsets = message::decode(body)?;
        if let Err(error) = check_group_name(&request.group) {
            let text = format!("{:?} is no group name: {error}", request.group);
            return Err(Refusal::new(ErrorCode::InvalidName, text));
        }
        let topic = match &request.topic {
            Some(name) => Some(self.topic_by_name(name)?.id),
            None => None,
        };
        let catalog = self.shared.views.catalog();
        let offsets = self.shared.views.offsets();
        let committed = offsets.group(&request.group).into_iter().flatten();
        let wanted = committed.filter(|(id, _)| topic.is_none_or(|topic| id.topic == topic));
        let rows = wanted.filter_map(|(id, committed)| {
            Some(CommittedOffset {
                topic: catalog.by_id(id.topic)?.name.clone(),
                topic_id: id.topic,
                partition: id.partition,
                offset: committed.offset,
                high_watermark: self.shared.views.partition(*id)?.high_watermark(),
                note: committed.note.clone(),
                commit_time_ms: committed.commit_time_ms,
            })
        });
        let mut answer = Vec::new();
        let mut bytes = 0;
        for row in rows {
            bytes += ROW_BYTES + row.topic.len() + row.note.len();
            // Before the rest is collected: a group may have every offset there is.
            if bytes > CONTROL_BYTES_MAX {
                let text = "the group's offsets do not fit into one answer; ask topic by topic";
                return Err(Refusal::new(ErrorCode::FrameTooLarge, text.to_owned()));
            }
            answer.push(row);
        }
        Ok(answer)
    }

    pub(super) fn list_groups(&self, body: &[u8]) -> Result<GroupPage, Refusal> {
        let request: ListGroups = message::decode(body)?;
        let rows_max = page_rows(request.rows_max);
        let offsets = self.shared.views.offsets();
        let mut rows = offsets.groups_after(request.after.as_deref());
        let groups = rows.by_ref().take(rows_max).map(str::to_owned).collect();
        Ok(GroupPage {
            groups,
            has_more: rows.next().is_some(),
        })
    }
}
