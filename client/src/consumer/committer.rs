//! The task that stores offsets: one request at a time, with everything wanted so far.

use std::sync::Arc;

use falcon_protocol::limits::OFFSETS_ENTRIES_MAX;
use falcon_protocol::message::{CommitOwned, Empty};
use falcon_protocol::{ErrorCode, Kind};

use super::desk::Entry;
use super::shared::Shared;
use crate::core::Repeat;
use crate::error::{CommitError, Error};
use crate::sync::lock;

/// Stores offsets until the consumer ends.
pub(super) async fn store(shared: Arc<Shared>) {
    // CANCEL SAFETY: a commit cut short is answered with an error below.
    shared.stop.run_until_cancelled(serve(&shared)).await;
    lock(&shared.desk).abandon_commits();
}

async fn serve(shared: &Shared) {
    loop {
        let entries = lock(&shared.desk).take_dirty(OFFSETS_ENTRIES_MAX);
        if entries.is_empty() {
            shared.dirty.notified().await;
            continue;
        }
        // What is refused as a whole is halved until it is clear which entry it is about.
        let mut parts = vec![entries];
        while let Some(mut part) = parts.pop() {
            let Some(stale) = store_part(shared, &mut part).await else {
                continue;
            };
            match stale {
                Stale::One(entry) => {
                    let (hold, offset) = (entry.hold, entry.commit.offset);
                    let name = lock(&shared.desk).refused_stale(entry);
                    shared.grant_is_over(hold, name, offset);
                }
                Stale::Some => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
            }
        }
        // Whoever gives a partition up waits for its commits.
        shared.membership.notify_one();
        shared.running.notify_one();
    }
}

/// What a refusal as `stale_owner` was about.
enum Stale {
    One(Entry),
    Some,
}

/// One request. `None`: it was answered, and so were those who waited.
async fn store_part(shared: &Shared, part: &mut Vec<Entry>) -> Option<Stale> {
    let request = CommitOwned {
        group: shared.group.clone(),
        offsets: part.iter().map(|entry| entry.commit.clone()).collect(),
    };
    // A commit that is sent again changes nothing, and no other is under way.
    let stored: Result<Empty, Error> = shared
        .core
        .call("commit", Kind::CommitOwned, &request, Repeat::Safe)
        .await;
    match stored {
        Ok(Empty {}) => lock(&shared.desk).stored(std::mem::take(part)),
        Err(error) if error.code() == Some(ErrorCode::StaleOwner) => {
            if part.len() > 1 {
                return Some(Stale::Some);
            }
            return part.pop().map(Stale::One);
        }
        Err(error) => {
            tracing::warn!(group = shared.group, %error, "offsets not stored");
            let error = CommitError::from(error);
            lock(&shared.desk).not_stored(std::mem::take(part), &error);
        }
    }
    None
}
