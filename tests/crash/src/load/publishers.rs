//! Publishers: idempotent, several records in flight.

use std::collections::VecDeque;
use std::time::Duration;

use falcon_client::{Client, Compression, PublishError, Publisher, Receipt, Record, Ticket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::notes::{Notes, number};
use super::{Shared, TOPIC, retry};
use crate::error::CrashError;
use crate::history::{Entry, NO_OFFSET, Op, Outcome, ValueId, now_ns};
use crate::payload;

/// Longer than any broker is away in a run.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(90);
/// Keys of one publisher: its records go to several partitions.
const KEYS: u32 = 7;

/// How a publisher publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    in_flight_max: usize,
    name: Option<&'static str>,
    /// Whether it waits at its end for every outcome.
    is_patient: bool,
}

impl Plan {
    pub(super) const fn lasting(in_flight_max: usize) -> Self {
        Self {
            in_flight_max,
            name: None,
            is_patient: true,
        }
    }

    pub(super) const fn fresh(in_flight_max: usize, name: Option<&'static str>) -> Self {
        Self {
            in_flight_max,
            name,
            is_patient: false,
        }
    }
}

#[derive(Debug)]
struct InFlight {
    value: ValueId,
    invoked_ns: u64,
    ticket: Ticket,
}

/// Publishes until told to stop.
pub(super) async fn run(
    shared: &Shared,
    plan: Plan,
    mut notes: Notes,
    stop: CancellationToken,
) -> Result<(), CrashError> {
    while let Some(client) = shared.connect(&stop).await {
        // A publisher that had to end is followed by another one, with an order of its own.
        let number = shared.next_publisher();
        let client = &client;
        let attempt = || async move { build(client, plan, number).await.ok() };
        let publisher = retry(&stop, attempt).await;
        let Some(publisher) = publisher else { break };
        publish(&publisher, plan, number, (&mut notes, &stop)).await?;
    }
    notes.finish()
}

async fn build(
    client: &Client,
    plan: Plan,
    number: u32,
) -> Result<Publisher, falcon_client::Error> {
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    let codec = codecs
        .into_iter()
        .cycle()
        .nth(number as usize % codecs.len());
    let builder = client
        .publisher(TOPIC)
        .compression(codec.unwrap_or(Compression::None))
        .batch_bytes(32 << 10)
        .window_bytes(128 << 10)
        .delivery_timeout(DELIVERY_TIMEOUT);
    match plan.name {
        Some(name) => builder.name(name).build().await,
        None => builder.build().await,
    }
}

async fn publish(
    publisher: &Publisher,
    plan: Plan,
    number: u32,
    (notes, stop): (&mut Notes, &CancellationToken),
) -> Result<(), CrashError> {
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    for sequence in 0.. {
        let value = ValueId {
            publisher: number,
            sequence,
        };
        let invoked_ns = now_ns();
        // CANCEL SAFETY: a `send` that is dropped has not published.
        match stop
            .run_until_cancelled(publisher.send(record(value)))
            .await
        {
            None => break,
            Some(Ok(ticket)) => in_flight.push_back(InFlight {
                value,
                invoked_ns,
                ticket,
            }),
            Some(Err(error)) => {
                let is_over = !error.is_retryable();
                notes.push(&ended(value, invoked_ns, Some(&Err(error))))?;
                if is_over {
                    break;
                }
            }
        }
        if in_flight.len() >= plan.in_flight_max
            && let Some(mut oldest) = in_flight.pop_front()
        {
            let waited = stop.run_until_cancelled(&mut oldest.ticket).await;
            match waited {
                Some(result) => {
                    notes.push(&ended(oldest.value, oldest.invoked_ns, Some(&result)))?;
                }
                None => in_flight.push_front(oldest),
            }
        }
        if stop.is_cancelled() {
            break;
        }
    }
    let patience = if plan.is_patient {
        DELIVERY_TIMEOUT * 2
    } else {
        Duration::ZERO
    };
    for mut sent in in_flight {
        let result = timeout(patience, &mut sent.ticket).await.ok();
        notes.push(&ended(sent.value, sent.invoked_ns, result.as_ref()))?;
    }
    Ok(())
}

/// The record that carries a value.
pub(super) fn record(value: ValueId) -> Record {
    let key = format!("{}-{}", value.publisher, value.sequence % KEYS);
    Record::new(payload::encode(value)).key(key)
}

/// Writes the end of a publish into its entry; without a result nothing is known.
pub(super) fn settle(entry: &mut Entry, result: Option<&Result<Receipt, PublishError>>) {
    entry.completed_ns = now_ns();
    entry.outcome = match result {
        Some(Ok(receipt)) => {
            entry.partition = number(receipt.partition.0);
            entry.offset = receipt.offset.get();
            Outcome::Ok
        }
        Some(Err(error)) if !error.may_have_happened() => Outcome::Failed,
        Some(Err(_)) | None => Outcome::Unknown,
    };
}

fn ended(value: ValueId, invoked_ns: u64, result: Option<&Result<Receipt, PublishError>>) -> Entry {
    let mut entry = Entry {
        op: Op::Publish,
        outcome: Outcome::Unknown,
        partition: 0,
        actor: 0,
        value,
        offset: NO_OFFSET,
        invoked_ns,
        completed_ns: 0,
    };
    settle(&mut entry, result);
    entry
}
