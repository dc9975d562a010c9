//! What people ask of groups and members.

use std::collections::BTreeMap;

use falcon_protocol::message::{
    self, AssignorKind, DescribeGroup, GroupDescription, GroupMember, GroupSummary,
    GroupSummaryPage, SummarizeGroups,
};
use falcon_protocol::{ErrorCode, MemberId, Offset, PartitionId};
use tokio::sync::oneshot;

use super::ask::{Ask, Members, Standings};
use super::members::check_group;
use super::task::Task;
use crate::group::assign::Assignor;
use crate::group::coordinator::{MemberView, Standing};
use crate::server::connection::Connection;
use crate::server::refusal::Refusal;
use crate::server::topics::page_rows;

/// LIMIT: bytes of a member's patterns that are shown.
const PATTERNS_BYTES_MAX: usize = 256;

impl Connection {
    pub(in crate::server) fn summarize_groups(
        &self,
        body: &[u8],
    ) -> Result<GroupSummaryPage, Refusal> {
        let request: SummarizeGroups = message::decode(body)?;
        let rows_max = page_rows(request.rows_max);
        let after = request.after.as_deref();
        let mut rows = self.shared.groups.active_after(after, rows_max + 1);
        // Each row stands for a page of names, so the first of the union are among them.
        let committed = self.committed_after(after, rows_max + 1);
        for name in committed.keys() {
            rows.entry(name.clone()).or_default();
        }
        let has_more = rows.len() > rows_max;
        let groups = rows.into_iter().take(rows_max).map(|(group, members)| {
            let offsets = committed.get(&group).map(Vec::as_slice).unwrap_or_default();
            let lags = offsets.iter().filter_map(|(id, offset)| {
                let view = self.shared.views.partition(*id)?;
                Some(view.high_watermark().since(*offset))
            });
            GroupSummary {
                lag: lags.fold(0, u64::saturating_add),
                members: count(members),
                offsets: count(offsets.len()),
                group,
            }
        });
        Ok(GroupSummaryPage {
            groups: groups.collect(),
            has_more,
        })
    }

    /// Offsets of the first groups behind a name. The writer waits for the guard: nothing but copying
    /// is done under it.
    fn committed_after(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> BTreeMap<String, Vec<(PartitionId, Offset)>> {
        let offsets = self.shared.views.offsets();
        let names = offsets.groups_after(after).take(max);
        let rows = names.map(|name| {
            let committed = offsets.group(name).into_iter().flatten();
            let committed = committed.map(|(id, committed)| (*id, committed.offset));
            (name.to_owned(), committed.collect())
        });
        rows.collect()
    }

    pub(in crate::server) async fn describe_group(
        &self,
        body: &[u8],
    ) -> Result<GroupDescription, Refusal> {
        let request: DescribeGroup = message::decode(body)?;
        check_group(&request.group)?;
        let rows_max = page_rows(request.rows_max);
        let (answer, answered) = oneshot::channel();
        let group = request.group.clone();
        let ask = Ask::Members(group, request.after, rows_max, answer);
        self.shared.groups.ask(ask).await;
        let Ok(members) = answered.await else {
            return Err(Refusal::of(ErrorCode::Draining).retry_later());
        };
        if !members.is_known && self.shared.views.offsets().group(&request.group).is_none() {
            return Err(unknown(&request.group));
        }
        Ok(GroupDescription {
            generation: members.generation,
            members: members.rows,
            has_more: members.has_more,
        })
    }
}

impl Task {
    pub(super) fn members(&self, group: &str, after: Option<MemberId>, max: usize) -> Members {
        let mut views = self.coordinator.members_after(group, after);
        let members = views.by_ref().take(max);
        let rows = members.map(|view| self.member(group, view)).collect();
        let has_more = views.next().is_some();
        let is_active = self.coordinator.figures(group).members > 0;
        Members {
            is_known: self.coordinator.knows(group),
            generation: if is_active {
                self.coordinator.generation(group)
            } else {
                0
            },
            rows,
            has_more,
        }
    }

    fn member(&self, group: &str, view: MemberView<'_>) -> GroupMember {
        let origin = self.roster.origin(group, view.member);
        let mut patterns = String::new();
        for pattern in &view.wish.patterns {
            let comma = if patterns.is_empty() { "" } else { "," };
            patterns.push_str(comma);
            patterns.push_str(pattern.as_str());
        }
        // All of a pattern is ASCII, so this is no cut inside a character.
        patterns.truncate(PATTERNS_BYTES_MAX);
        GroupMember {
            member: view.member,
            instance: view.wish.instance.clone(),
            client: origin.map_or_else(String::new, |origin| origin.client.clone()),
            address: origin.map_or_else(String::new, |origin| origin.address.clone()),
            patterns,
            assignor: match view.wish.assignor {
                Assignor::Sticky => AssignorKind::Sticky,
                Assignor::Range => AssignorKind::Range,
            },
            session_ms: view.wish.session_ms,
            silent_ms: self.until.saturating_sub(view.heard),
            partitions: count(view.partitions),
        }
    }

    pub(super) fn standings(
        &self,
        group: &str,
        after: Option<PartitionId>,
        max: usize,
    ) -> Standings {
        let rows = self.coordinator.standings_after(group, after, max);
        let now = self.until;
        let rows = rows.into_iter().map(|(id, standing)| {
            let owner = owner(standing);
            let progress = owner.and_then(|owner| self.roster.progress(group, owner, id, now));
            (id, standing, progress)
        });
        Standings {
            is_known: self.coordinator.knows(group),
            now,
            rows: rows.collect(),
        }
    }
}

const fn owner(standing: Standing) -> Option<MemberId> {
    match standing {
        Standing::Granted { owner, .. }
        | Standing::Held { owner, .. }
        | Standing::GivingUp { owner, .. } => Some(owner),
        Standing::Unwanted | Standing::Waiting { .. } | Standing::Fencing { .. } => None,
    }
}

pub(super) fn unknown(group: &str) -> Refusal {
    let text = format!("group {group:?} has no members and no committed offsets");
    Refusal::new(ErrorCode::UnknownGroup, text)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
