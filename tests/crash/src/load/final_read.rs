//! The full read that everything else is compared with.

use std::collections::BTreeMap;
use std::time::Duration;

use falcon_client::{Client, Offset, Partition, Start};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::groups::{GROUPS, fetch, offsets_of};
use super::notes::Notes;
use super::{Shared, TOPIC, subscribe, topics};
use crate::error::CrashError;
use crate::history::{Entry, NO_TOPIC, Op, now_ns};

/// How often a read begins anew because of a trim.
const TRIES_MAX: u32 = 5;
/// Longest time between two records.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads every partition to its end. What cannot be read is a complaint.
pub(super) async fn read_all(shared: &Shared, mut notes: Notes, op: Op) -> Result<(), CrashError> {
    let never = CancellationToken::new();
    let client = timeout(PATIENCE, shared.connect(&never)).await;
    if let Ok(Some(client)) = client {
        if let Err(error) = read(shared, &client, (&mut notes, op)).await? {
            shared.complain(format!("the full read: {error}"));
        }
    } else {
        shared.complain("the full read: the broker accepts nobody".into());
    }
    notes.finish()
}

/// What kept the read from its end.
type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn read(
    shared: &Shared,
    client: &Client,
    (notes, op): (&mut Notes, Op),
) -> Result<Result<(), Trouble>, CrashError> {
    let mut tries = 0;
    loop {
        match read_records(shared, client, (notes, op)).await {
            Ok(Some(entries)) => {
                entries.iter().try_for_each(|entry| notes.push(entry))?;
                break;
            }
            // A trim that was due when the broker started takes records away from under the reader. Nobody
            // publishes any more, so the next read has them gone from its beginning.
            Ok(None) if tries < TRIES_MAX => tries += 1,
            Ok(None) => return Ok(Err("records go while nobody publishes".into())),
            Err(trouble) => return Ok(Err(trouble)),
        }
    }
    if shared.has_topics
        && let Err(trouble) = read_topics(shared, client, notes).await?
    {
        return Ok(Err(trouble));
    }
    for group in 0..GROUPS {
        match fetch(shared, &offsets_of(client, group), group).await {
            Ok(found) => found.iter().try_for_each(|entry| notes.push(entry))?,
            Err(error) => return Ok(Err(error.into())),
        }
    }
    Ok(Ok(()))
}

/// Every record of the lasting topic; `None` when some were trimmed meanwhile.
async fn read_records(
    shared: &Shared,
    client: &Client,
    (notes, op): (&Notes, Op),
) -> Result<Option<Vec<Entry>>, Trouble> {
    let ends = client.latest_offsets(TOPIC).await?;
    let ends = ends.iter().filter(|end| end.offset > Offset::ZERO);
    let mut left: BTreeMap<Partition, Offset> =
        ends.map(|end| (end.partition, end.offset)).collect();
    let mut records = subscribe(client).from(Start::Earliest).open().await?;
    let mut entries = Vec::new();
    while !left.is_empty() {
        match timeout(PATIENCE, records.next()).await {
            Ok(Some(Ok(record))) => {
                entries.push(notes.entry(op, &record));
                if left.get(&record.partition) == Some(&record.next_offset()) {
                    left.remove(&record.partition);
                }
            }
            Ok(Some(Err(error))) if shared.is_late(&error) => return Ok(None),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => return Err("the stream ended".into()),
            Err(_) => return Err(format!("it waits for the ends of {left:?}").into()),
        }
    }
    Ok(Some(entries))
}

/// All topics that are there, and what is in the short-lived ones.
async fn read_topics(
    shared: &Shared,
    client: &Client,
    notes: &mut Notes,
) -> Result<Result<(), Trouble>, CrashError> {
    let begun = now_ns();
    let listed = match client.list_topics().await {
        Ok(listed) => listed,
        Err(error) => return Ok(Err(error.into())),
    };
    if listed.len() > topics::NAMES as usize + 1 {
        return Ok(Err(format!("topics nobody created: {listed:?}").into()));
    }
    for name in topics::LASTING..=topics::NAMES {
        let seen = topics::seen(&listed, name, begun);
        notes.push(&seen)?;
        if name == topics::LASTING || seen.value.publisher == NO_TOPIC {
            continue;
        }
        let read = topics::read_all(shared, client, name, notes);
        if !timeout(PATIENCE, read).await.unwrap_or(Ok(false))? {
            return Ok(Err(format!("topic {name} cannot be read").into()));
        }
    }
    Ok(Ok(()))
}
