//! Who publishes: at an even pace, also after a broker was away.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use falcon_client::{Client, PublishError, Publisher, Receipt, Record, Ticket};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Notes, Shared, blank, small};
use crate::error::CrashError;
use crate::history::{Entry, GroupPlace, HistoryWriter, Op, Outcome, ValueId, now_ns};
use crate::payload;
use crate::rebalances::member::topic_name;

/// Longer than any broker is away in a run.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// How often records go out.
const PACE: Duration = Duration::from_millis(20);
/// Keys of a publisher: enough for all partitions of a topic.
const KEYS: u32 = 64;
/// Records of a publisher on their way.
const IN_FLIGHT_MAX: usize = 4096;

/// Publishes to a topic, so many records a second, until told to stop.
pub(super) async fn publish_on(
    shared: &Shared,
    client: &Client,
    (topic, rate): (u16, u32),
    (mut notes, stop): Notes,
) -> Result<(), CrashError> {
    while !stop.is_cancelled() {
        // A publisher that had to end is followed by another one, with an order of its own.
        let number = shared.publishers.fetch_add(1, Ordering::Relaxed);
        let publisher = client.publisher(topic_name(topic));
        let publisher = publisher.delivery_timeout(DELIVERY_TIMEOUT).build().await;
        match publisher {
            Ok(publisher) => {
                let what = (topic, number, rate);
                publish((shared, &publisher), what, (&mut notes, &stop)).await?;
            }
            Err(_) => sleep(RETRY).await,
        }
    }
    notes.finish()
}

/// Sends what is due, again and again; then waits for all outcomes.
async fn publish(
    (shared, publisher): (&Shared, &Publisher),
    (topic, number, rate): (u16, u32, u32),
    (notes, stop): (&mut HistoryWriter, &CancellationToken),
) -> Result<(), CrashError> {
    let mut in_flight: VecDeque<(Entry, Ticket)> = VecDeque::new();
    let mut last = Instant::now();
    let (mut sent, mut due, mut is_over) = (0, 0.0, false);
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !is_over && stop.run_until_cancelled(pace.tick()).await.is_some() {
        let now = Instant::now();
        if !shared.is_backed_up() {
            due += (now - last).as_secs_f64() * f64::from(rate);
        }
        last = now;
        while f64::from(sent) < due && in_flight.len() < IN_FLIGHT_MAX && !is_over {
            let mut entry = Entry {
                value: ValueId {
                    publisher: number,
                    sequence: sent,
                },
                invoked_ns: now_ns(),
                ..blank(Op::Publish)
            };
            let key = format!("{number}-{}", sent % KEYS);
            let record = Record::new(payload::encode_small(entry.value)).key(key);
            sent += 1;
            match publisher.send(record).await {
                Ok(ticket) => in_flight.push_back((entry, ticket)),
                Err(error) => {
                    is_over = !error.is_retryable();
                    settle(&mut entry, topic, &Err(error));
                    notes.push(&entry)?;
                }
            }
        }
        while let Some((mut entry, mut ticket)) = in_flight.pop_front() {
            let Ok(result) = timeout(Duration::ZERO, &mut ticket).await else {
                in_flight.push_front((entry, ticket));
                break;
            };
            settle(&mut entry, topic, &result);
            let is_acked = entry.outcome == Outcome::Ok;
            shared.acked.fetch_add(is_acked.into(), Ordering::Relaxed);
            notes.push(&entry)?;
        }
    }
    for (mut entry, ticket) in in_flight {
        settle(&mut entry, topic, &ticket.await);
        notes.push(&entry)?;
    }
    Ok(())
}

fn settle(entry: &mut Entry, topic: u16, result: &Result<Receipt, PublishError>) {
    entry.completed_ns = now_ns();
    entry.outcome = match result {
        Ok(receipt) => {
            entry.partition = GroupPlace::log(topic, small(receipt.partition.0)).0;
            entry.offset = receipt.offset.get();
            Outcome::Ok
        }
        Err(error) if !error.may_have_happened() => Outcome::Failed,
        Err(_) => Outcome::Unknown,
    };
}
