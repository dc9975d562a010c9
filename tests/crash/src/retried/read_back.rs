//! Everything that is there, compared with everything that was acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use falcon_client::{Client, Offset, Start};
use tokio::time::timeout;

use super::TOPIC;
use super::publishers::{Account, End, read_value};

/// Longest time between two records that are there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Findings of a kind kept in words.
const SAID_MAX: u64 = 5;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Judged {
    acked: u64,
    duplicates_answered: u64,
    read: u64,
    duplicates: u64,
    reordered: u64,
    wrong_receipts: u64,
    lost: u64,
    phantom: u64,
    /// In words.
    pub(super) said: Vec<String>,
}

impl Judged {
    /// By name.
    pub(super) fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("acked", self.acked),
            ("duplicates_answered", self.duplicates_answered),
            ("records_compared", self.read),
            ("duplicates", self.duplicates),
            ("reordered", self.reordered),
            ("wrong_receipts", self.wrong_receipts),
            ("lost", self.lost),
            ("phantom", self.phantom),
        ]
    }
}

/// The records of one publisher in one partition.
#[derive(Debug, Default)]
struct Seen {
    positions: Vec<bool>,
    next: usize,
}

/// Reads everything.
pub(super) async fn judge(client: &Client, accounts: &[Account]) -> Judged {
    let mut judged = Judged::default();
    for account in accounts {
        judged.duplicates_answered += account.duplicates_answered;
        judged.said.extend(account.said.iter().take(5).cloned());
    }
    let mut seen = BTreeMap::new();
    if let Err(error) = read(client, accounts, (&mut judged, &mut seen)).await {
        judged.said.push(format!("it cannot be read: {error}"));
    }
    for (publisher, account) in (0..).zip(accounts) {
        for (partition, ends) in (0..).zip(&account.ends) {
            let seen = seen.get(&(partition, publisher));
            judged.find_lost((partition, publisher), ends, seen);
        }
    }
    judged
}

async fn read(
    client: &Client,
    accounts: &[Account],
    (judged, seen): (&mut Judged, &mut BTreeMap<(u32, u32), Seen>),
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ends = client.latest_offsets(TOPIC).await?;
    let left: u64 = ends.iter().map(|end| end.offset.get()).sum();
    let subscription = client.subscribe(TOPIC).from(Start::Earliest);
    let mut records = subscription.open().await?;
    let mut due: BTreeMap<u32, Offset> = BTreeMap::new();
    for _ in 0..left {
        let next = timeout(PATIENCE, records.next()).await;
        let next = next.map_err(|_| format!("{} of {left} came", judged.read))?;
        let record = next.ok_or("the stream ended")??;
        let partition = record.partition.0;
        let due = due.entry(partition).or_insert(Offset::ZERO);
        if record.offset != *due {
            return Err(format!("{partition}: {} came, {due} was due", record.offset).into());
        }
        *due = record.next_offset();
        judged.read += 1;
        let value = record.value.as_deref().and_then(read_value);
        let ends = value.and_then(|(publisher, position)| {
            let ends = accounts
                .get(publisher as usize)?
                .ends
                .get(partition as usize)?;
            let position = usize::try_from(position).ok()?;
            Some(((partition, publisher), position, *ends.get(position)?))
        });
        let Some((whose, position, end)) = ends.filter(|(_, _, end)| *end != End::Refused) else {
            judged.phantom += 1;
            say(&mut judged.said, judged.phantom, || {
                format!("{partition} at {}: nobody sent {value:?}", record.offset)
            });
            continue;
        };
        let seen = seen.entry(whose).or_default();
        judged.compare(seen, whose, (position, end, record.offset));
    }
    Ok(())
}

impl Judged {
    /// Takes in the record at `offset`.
    fn compare(
        &mut self,
        seen: &mut Seen,
        whose: (u32, u32),
        (position, end, offset): (usize, End, Offset),
    ) {
        if seen.positions.len() <= position {
            seen.positions.resize(position + 1, false);
        }
        let is_again = seen
            .positions
            .get_mut(position)
            .is_some_and(|is_seen| std::mem::replace(is_seen, true));
        if is_again {
            self.duplicates += 1;
            return say(&mut self.said, self.duplicates, || {
                format!("{whose:?} {position} is there twice, again at {offset}: {end:?}")
            });
        }
        if position < seen.next {
            self.reordered += 1;
            say(&mut self.said, self.reordered, || {
                format!("{whose:?} {position} at {offset} comes behind later ones")
            });
        }
        seen.next = seen.next.max(position + 1);
        if let End::Acked(acked) = end
            && acked != offset.get()
        {
            self.wrong_receipts += 1;
            say(&mut self.said, self.wrong_receipts, || {
                format!("{whose:?} {position} is at {offset}, its receipt says {acked}")
            });
        }
    }

    fn find_lost(&mut self, whose: (u32, u32), ends: &[End], seen: Option<&Seen>) {
        for (position, end) in ends.iter().enumerate() {
            let End::Acked(offset) = end else { continue };
            self.acked += 1;
            let is_seen = seen.and_then(|seen| seen.positions.get(position));
            if is_seen != Some(&true) {
                self.lost += 1;
                say(&mut self.said, self.lost, || {
                    format!("{whose:?} {position}, acknowledged at {offset}, is lost")
                });
            }
        }
    }
}

/// The first few of a kind.
fn say(said: &mut Vec<String>, nth: u64, what: impl FnOnce() -> String) {
    if nth <= SAID_MAX {
        said.push(what());
    }
}
