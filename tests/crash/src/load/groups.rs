//! Groups: read on from where they committed, and commit.

use std::collections::BTreeMap;

use falcon_client::{Client, Error, Offset, Offsets, Partition};
use tokio_util::sync::CancellationToken;

use super::notes::{Notes, number};
use super::{Shared, TOPIC, first_offset, retry, subscribers};
use crate::error::CrashError;
use crate::history::{Entry, NO_OFFSET, Op, Outcome, ValueId, now_ns};

/// Groups of a run, by number.
pub(super) const GROUPS: u32 = 2;
/// Records between two commits.
const COMMIT_EVERY: usize = 20;
/// Subscribers and groups are told apart by the operation, not by the number.
const fn entry(op: Op, group: u32, invoked_ns: u64) -> Entry {
    Entry {
        op,
        outcome: Outcome::Ok,
        partition: 0,
        actor: group,
        value: ValueId::FOREIGN,
        offset: NO_OFFSET,
        invoked_ns,
        completed_ns: 0,
    }
}

/// The offsets of a group.
pub(super) fn offsets_of(client: &Client, group: u32) -> Offsets {
    client.offsets(format!("group-{group}"))
}

/// Consumes until told to stop. The commits of a group must have ended before it runs again.
pub(super) async fn run(
    shared: &Shared,
    group: u32,
    mut notes: Notes,
    stop: CancellationToken,
) -> Result<(), CrashError> {
    if let Some(client) = shared.connect(&stop).await {
        consume(shared, &client, group, (&mut notes, &stop)).await?;
    }
    notes.finish()
}

async fn consume(
    shared: &Shared,
    client: &Client,
    group: u32,
    (notes, stop): (&mut Notes, &CancellationToken),
) -> Result<(), CrashError> {
    let offsets = offsets_of(client, group);
    let attempt = || async { fetch(shared, &offsets, group).await.ok() };
    let found = retry(stop, attempt).await;
    let Some(found) = found else { return Ok(()) };
    let mut starts = Vec::new();
    for fetched in &found {
        notes.push(fetched)?;
        let stored = Some(fetched.offset).filter(|offset| *offset != NO_OFFSET);
        starts.push((u32::from(fetched.partition), first_offset(stored)));
    }
    let Some(mut records) = subscribers::open_at(shared, client, &starts, stop).await else {
        return Ok(());
    };
    let mut done: BTreeMap<Partition, Offset> = BTreeMap::new();
    let mut since_commit = 0;
    while let Some(record) = subscribers::next(shared, &mut records, stop).await {
        notes.read(Op::Read, &record)?;
        done.insert(record.partition, record.next_offset());
        since_commit += 1;
        if since_commit >= COMMIT_EVERY {
            since_commit = 0;
            let positions = std::mem::take(&mut done);
            for committed in commit(&offsets, group, &positions, stop).await {
                notes.push(&committed)?;
            }
        }
    }
    Ok(())
}

/// What the group has stored, one entry for each partition.
pub(super) async fn fetch(
    shared: &Shared,
    offsets: &Offsets,
    group: u32,
) -> Result<Vec<Entry>, Error> {
    let invoked_ns = now_ns();
    let stored = offsets.fetch(TOPIC).await?;
    let completed_ns = now_ns();
    let entries = shared.partition_numbers().map(|partition| {
        let found = stored.iter().find(|row| row.partition.0 == partition);
        Entry {
            partition: number(partition),
            offset: found.map_or(NO_OFFSET, |row| row.offset.get()),
            completed_ns,
            ..entry(Op::Fetch, group, invoked_ns)
        }
    });
    Ok(entries.collect())
}

async fn commit(
    offsets: &Offsets,
    group: u32,
    positions: &BTreeMap<Partition, Offset>,
    stop: &CancellationToken,
) -> Vec<Entry> {
    let rows = positions.iter();
    let rows: Vec<(&str, Partition, Offset)> = rows
        .map(|(partition, offset)| (TOPIC, *partition, *offset))
        .collect();
    let invoked_ns = now_ns();
    let outcome = match stop.run_until_cancelled(offsets.commit_all(&rows)).await {
        Some(Ok(())) => Outcome::Ok,
        Some(Err(error)) if !error.may_have_happened() => Outcome::Failed,
        Some(Err(_)) | None => Outcome::Unknown,
    };
    let completed_ns = now_ns();
    let entries = rows.iter().map(|(_, partition, offset)| Entry {
        outcome,
        partition: number(partition.0),
        offset: offset.get(),
        completed_ns,
        ..entry(Op::Commit, group, invoked_ns)
    });
    entries.collect()
}
