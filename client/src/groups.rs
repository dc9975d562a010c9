//! Consumer groups from outside: who is in them, how far they are, and changing that by hand.

use std::collections::HashMap;

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::{OFFSETS_ENTRIES_MAX, PAGE_ROWS_MAX};
use falcon_protocol::message::{
    DeleteGroup, DescribeGroup, Empty, GroupDescription, GroupPartition, GroupPartitionPage,
    GroupSummary, GroupSummaryPage, ListGroupPartitions, OffsetCommit, ResetOffsets,
    SummarizeGroups,
};
use falcon_protocol::{Kind, Offset, Partition};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::Error;

impl Client {
    /// All groups that have members or committed offsets, by name.
    pub async fn summarize_groups(&self) -> Result<Vec<GroupSummary>, Error> {
        let mut groups: Vec<GroupSummary> = Vec::new();
        loop {
            let request = SummarizeGroups {
                after: groups.last().map(|group| group.group.clone()),
                rows_max: PAGE_ROWS_MAX,
            };
            let kind = Kind::SummarizeGroups;
            let core = self.core();
            let page: GroupSummaryPage = core
                .call("list groups", kind, &request, Repeat::Safe)
                .await?;
            // A page that does not advance would be asked for again and again.
            let is_last = !page.has_more || page.groups.is_empty();
            groups.extend(page.groups);
            if is_last {
                return Ok(groups);
            }
        }
    }

    /// All members of a group.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownGroup`](crate::ErrorCode::UnknownGroup) when it has neither members nor offsets.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        check_group(group)?;
        let mut all: Option<GroupDescription> = None;
        loop {
            let last = all.as_ref().and_then(|all| all.members.last());
            let request = DescribeGroup {
                group: group.to_owned(),
                after: last.map(|member| member.member),
                rows_max: PAGE_ROWS_MAX,
            };
            let kind = Kind::DescribeGroup;
            let core = self.core();
            let page: GroupDescription = core
                .call("describe group", kind, &request, Repeat::Safe)
                .await?;
            let is_last = !page.has_more || page.members.is_empty();
            let members = all.map(|all| all.members).unwrap_or_default();
            let described = GroupDescription {
                members: members.into_iter().chain(page.members).collect(),
                ..page
            };
            if is_last {
                return Ok(described);
            }
            all = Some(described);
        }
    }

    /// All partitions of a group that have an offset or that a member wants, by topic number and partition.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownGroup`](crate::ErrorCode::UnknownGroup) when it has neither members nor offsets.
    pub async fn group_partitions(&self, group: &str) -> Result<Vec<GroupPartition>, Error> {
        check_group(group)?;
        let mut partitions: Vec<GroupPartition> = Vec::new();
        loop {
            let request = ListGroupPartitions {
                group: group.to_owned(),
                after: partitions.last().map(|row| row.partition),
                rows_max: PAGE_ROWS_MAX,
            };
            let kind = Kind::ListGroupPartitions;
            let core = self.core();
            let page: GroupPartitionPage = core
                .call("list group partitions", kind, &request, Repeat::Safe)
                .await?;
            let is_last = !page.has_more || page.partitions.is_empty();
            partitions.extend(page.partitions);
            if is_last {
                return Ok(partitions);
            }
        }
    }

    /// Stores where a group reads next, also further back; durable when this returns. With `is_forced`
    /// although it has members: they read on from there. At most 4096 at a time, all or nothing.
    ///
    /// # Errors
    /// [`ErrorCode::GroupActive`](crate::ErrorCode::GroupActive) when it has members and is not forced.
    pub async fn reset_offsets<T: AsRef<str>>(
        &self,
        group: &str,
        offsets: &[(T, Partition, Offset)],
        is_forced: bool,
    ) -> Result<(), Error> {
        check_group(group)?;
        if offsets.is_empty() || offsets.len() > OFFSETS_ENTRIES_MAX {
            return Err(Error::InvalidOption {
                option: "offsets",
                reason: "1 to 4096 can be set at a time",
            });
        }
        let core = self.core();
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
        let request = ResetOffsets {
            group: group.to_owned(),
            offsets: commits,
            is_forced,
        };
        let kind = Kind::ResetOffsets;
        core.call::<Empty>("reset offsets", kind, &request, Repeat::Safe)
            .await
            .map(drop)
    }

    /// Forgets a group, its offsets and who owned what; durable when this returns. With `is_forced` although
    /// it has members: they begin anew.
    ///
    /// # Errors
    /// [`ErrorCode::GroupActive`](crate::ErrorCode::GroupActive) when it has members and is not forced. After
    /// [`Error::Lost`] it may have been deleted.
    pub async fn delete_group(&self, group: &str, is_forced: bool) -> Result<(), Error> {
        check_group(group)?;
        let request = DeleteGroup {
            group: group.to_owned(),
            is_forced,
        };
        let kind = Kind::DeleteGroup;
        self.core()
            .call::<Empty>("delete group", kind, &request, Repeat::Unsafe)
            .await
            .map(drop)
    }
}

fn check_group(group: &str) -> Result<(), Error> {
    check_group_name(group).map_err(|reason| Error::InvalidName {
        name: group.to_owned(),
        reason,
    })
}
