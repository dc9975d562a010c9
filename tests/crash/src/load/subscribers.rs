//! Subscribers: write down what they are given.

use falcon_client::{Client, Delivered, Offset, Start, SubscribeError, Subscription};
use tokio_util::sync::CancellationToken;

use super::notes::Notes;
use super::{Shared, retry, subscribe};
use crate::error::CrashError;
use crate::history::Op;

/// Reads from `start` until told to stop.
pub(super) async fn run(
    shared: &Shared,
    start: Start,
    mut notes: Notes,
    stop: CancellationToken,
) -> Result<(), CrashError> {
    if let Some(client) = shared.connect(&stop).await
        && let Some(mut records) = open(shared, &client, start, &stop).await
    {
        while let Some(record) = next(shared, &mut records, &stop).await {
            notes.read(Op::Read, &record)?;
        }
    }
    notes.finish()
}

async fn open(
    shared: &Shared,
    client: &Client,
    start: Start,
    stop: &CancellationToken,
) -> Option<Subscription> {
    let attempt = || async move { shared.heard(subscribe(client).from(start).open().await) };
    retry(stop, attempt).await
}

/// Opens a subscription with a start of its own for each partition.
pub(super) async fn open_at(
    shared: &Shared,
    client: &Client,
    starts: &[(u32, Offset)],
    stop: &CancellationToken,
) -> Option<Subscription> {
    let attempt = || async move {
        let mut builder = subscribe(client);
        for (partition, offset) in starts {
            builder = builder.partition_from(*partition, *offset);
        }
        shared.heard(builder.open().await)
    };
    retry(stop, attempt).await
}

/// The next record; `None` when told to stop, or when the stream has ended.
pub(super) async fn next(
    shared: &Shared,
    records: &mut Subscription,
    stop: &CancellationToken,
) -> Option<Delivered> {
    loop {
        // CANCEL SAFETY: a record not returned stays.
        match stop.run_until_cancelled(records.next()).await?? {
            Ok(record) => return Some(record),
            Err(error) => {
                shared.heard::<()>(Err(error.clone()));
                if error == SubscribeError::NothingLeft {
                    return None;
                }
            }
        }
    }
}

impl Shared {
    /// Keeps an error that no fault of a run may bring about: a lost connection is expected,
    /// missing or damaged records are not.
    pub(super) fn heard<T>(&self, result: Result<T, SubscribeError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(SubscribeError::Client(error)) if error.is_retryable() => None,
            Err(error) if self.is_late(&error) => None,
            Err(error) => {
                self.complain(format!("a subscriber was told: {error}"));
                None
            }
        }
    }

    /// Whether retention overtook a subscriber, which may happen.
    pub(super) fn is_late(&self, error: &SubscribeError) -> bool {
        let SubscribeError::OffsetOutOfRange {
            position,
            available,
            ..
        } = error
        else {
            return false;
        };
        self.retention_bytes.is_some() && *position < available.start
    }
}
