//! How the partitions of a group stand: who has them, how far they are, what is in the way.

use std::collections::BTreeMap;

use falcon_protocol::message::{
    self, GroupPartition, GroupPartitionPage, GroupProgress, ListGroupPartitions, Standing as Said,
};
use falcon_protocol::{ErrorCode, Kind, Offset, PartitionId};
use tokio::sync::oneshot;

use super::ask::{Ask, Standings};
use super::describe::unknown;
use super::members::check_group;
use crate::clock;
use crate::group::coordinator::Standing;
use crate::reader::Reader;
use crate::server::Shared;
use crate::server::connection::Connection;
use crate::server::refusal::Refusal;
use crate::server::topics::page_rows;
use crate::store::Damage;

/// Charged for each row: what it is made of, and the answer.
const ROW_BYTES: usize = 1024;

/// A partition of a page before it is looked up.
struct Row {
    standing: Said,
    progress: Option<GroupProgress>,
    committed: Option<Offset>,
}

impl Connection {
    pub(in crate::server) async fn list_group_partitions(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: ListGroupPartitions = message::decode(body)?;
        check_group(&request.group)?;
        let permit = self.request_permit().await;
        let rows_max = page_rows(request.rows_max);
        // ORDER: pay before the work is begun; who does not read answers is not read any more.
        let paid = self.budget.pay(rows_max * ROW_BYTES).await;
        let (answer, answered) = oneshot::channel();
        let group = request.group.clone();
        let ask = Ask::Standings(group, request.after, rows_max + 1, answer);
        if !self.shared.groups.ask(ask).await {
            return Err(Refusal::of(ErrorCode::Draining).retry_later());
        }
        let replies = self.replies(Kind::ListGroupPartitions, correlation);
        let (shared, budget) = (std::sync::Arc::clone(&self.shared), self.budget.clone());
        let token = self.token.clone();
        let work = async move {
            let Ok(standings) = answered.await else {
                let refusal = Refusal::of(ErrorCode::Draining).retry_later();
                return replies
                    .give::<GroupPartitionPage>(Err(refusal), permit)
                    .await;
            };
            let Some(turn) = budget.turn().await else {
                return;
            };
            let page = page(&shared, &request, standings).await;
            // ORDER: the answer is paid for anew, when it is large.
            drop((turn, paid));
            replies.give(page, permit).await;
        };
        self.tasks.spawn(async move {
            let _cancelled = token.run_until_cancelled(work).await;
        });
        Ok(())
    }
}

async fn page(
    shared: &Shared,
    request: &ListGroupPartitions,
    standings: Standings,
) -> Result<GroupPartitionPage, Refusal> {
    let rows_max = page_rows(request.rows_max);
    let mut rows: BTreeMap<PartitionId, Row> = BTreeMap::new();
    for (id, standing, progress) in standings.rows {
        let row = Row {
            standing: said(standing, standings.now),
            progress,
            committed: None,
        };
        rows.insert(id, row);
    }
    let is_known = {
        let offsets = shared.views.offsets();
        let committed = offsets.group(&request.group);
        add_committed(&mut rows, committed, request.after, rows_max + 1);
        standings.is_known || committed.is_some()
    };
    if !is_known {
        return Err(unknown(&request.group));
    }
    let has_more = rows.len() > rows_max;
    let rows: Vec<(PartitionId, Row)> = rows.into_iter().take(rows_max).collect();
    let partitions = look_up(shared, rows).await?;
    Ok(GroupPartitionPage {
        partitions,
        has_more,
    })
}

type Committed = BTreeMap<PartitionId, crate::group::Committed>;

/// Puts the committed offsets in, also of partitions that nobody wants; `max` of these at most.
fn add_committed(
    rows: &mut BTreeMap<PartitionId, Row>,
    committed: Option<&Committed>,
    after: Option<PartitionId>,
    max: usize,
) {
    use std::ops::Bound::{Excluded, Unbounded};
    let Some(committed) = committed else {
        return;
    };
    for (id, row) in rows.iter_mut() {
        row.committed = committed.get(id).map(|committed| committed.offset);
    }
    let from = after.map_or(Unbounded, Excluded);
    for (id, committed) in committed.range((from, Unbounded)).take(max) {
        let committed = Some(committed.offset);
        rows.entry(*id).or_insert(Row {
            standing: Said::Unwanted,
            progress: None,
            committed,
        });
    }
}

/// LIMIT: one look into the index for each row, on the blocking pool.
async fn look_up(
    shared: &Shared,
    rows: Vec<(PartitionId, Row)>,
) -> Result<Vec<GroupPartition>, Refusal> {
    let catalog = shared.views.catalog();
    let reader: &Reader = &shared.reader;
    let damage = reader.damage();
    let mut partitions = Vec::with_capacity(rows.len());
    let mut behind = Vec::new();
    for (id, row) in rows {
        // Deleted meanwhile.
        let Some((topic, view)) = catalog.by_id(id.topic).zip(shared.views.partition(id)) else {
            continue;
        };
        let (log_start, high_watermark) = (view.log_start(), view.high_watermark());
        let next = row.committed.unwrap_or(log_start).max(log_start);
        if row.committed.is_some() && next < high_watermark {
            behind.push((partitions.len(), (id, next)));
        }
        partitions.push(GroupPartition {
            topic: topic.name.clone(),
            partition: id,
            standing: row.standing,
            progress: row.progress,
            committed: row.committed,
            log_start,
            high_watermark,
            lag_ms: None,
            damaged: damaged(&damage, id, next),
        });
    }
    let (numbers, places): (Vec<usize>, Vec<_>) = behind.into_iter().unzip();
    let times = reader.append_times(places).await?;
    let now_ms = clock::now_unix_ms();
    for (number, time) in numbers.into_iter().zip(times) {
        if let Some(partition) = partitions.get_mut(number) {
            let age = |time: i64| u64::try_from(now_ms.saturating_sub(time)).unwrap_or(0);
            partition.lag_ms = time.map(age);
        }
    }
    Ok(partitions)
}

/// The first damaged range that is not wholly before an offset.
fn damaged(damage: &[Damage], id: PartitionId, next: Offset) -> Option<(Offset, Offset)> {
    let ahead = |damage: &&Damage| damage.partition == id && damage.range.end > next;
    let first = damage.iter().filter(ahead).min_by_key(|d| d.range.start);
    first.map(|damage| (damage.range.start, damage.range.end))
}

fn said(standing: Standing, now: u64) -> Said {
    let left = |at: u64| at.saturating_sub(now);
    match standing {
        Standing::Unwanted => Said::Unwanted,
        Standing::Waiting { target, until } => Said::Waiting {
            target,
            for_ms: until.map_or(0, left),
        },
        Standing::Fencing { since, .. } => Said::Fencing {
            since_ms: now.saturating_sub(since),
        },
        Standing::Granted { owner, epoch } => Said::Granted { owner, epoch },
        Standing::Held { owner, epoch } => Said::Held { owner, epoch },
        Standing::GivingUp {
            owner,
            target,
            deadline,
        } => Said::GivingUp {
            owner,
            target,
            for_ms: left(deadline),
        },
    }
}
