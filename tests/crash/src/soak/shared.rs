//! What all clients of a run share: the broker's address, and what they count and find.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use falcon_client::{Client, ErrorCode, SubscribeError};

use crate::process::Program;
use crate::trial::Findings;

/// Findings kept in words.
const SAID_MAX: usize = 40;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Inside>);

#[derive(Debug)]
pub(super) struct Inside {
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) seed: u64,
    pub(super) tally: Tally,
    broken: Mutex<Vec<String>>,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) acked: AtomicU64,
    pub(super) read: AtomicU64,
    pub(super) clients_made: AtomicU64,
    pub(super) clients_killed: AtomicU64,
    pub(super) clients_silent: AtomicU64,
    pub(super) silent_closed_by_broker: AtomicU64,
    pub(super) old_publishers_refused: AtomicU64,
    pub(super) topics_made: AtomicU64,
    pub(super) topics_deleted: AtomicU64,
    pub(super) groups_made: AtomicU64,
    pub(super) groups_deleted: AtomicU64,
    pub(super) offset_commits: AtomicU64,
    pub(super) readers_overtaken: AtomicU64,
}

impl std::ops::Deref for Shared {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.0
    }
}

impl Shared {
    pub(super) fn new(program: &Program, seed: u64) -> Self {
        Self(Arc::new(Inside {
            address: program.address(),
            port: program.port,
            seed,
            tally: Tally::default(),
            broken: Mutex::default(),
        }))
    }
}

/// Adds to a figure.
pub(super) fn count(figure: &AtomicU64, n: u64) {
    figure.fetch_add(n, Ordering::Relaxed);
}

/// How a client ends.
pub(super) async fn end(shared: &Shared, client: Client, is_polite: bool) {
    if is_polite {
        client.shutdown().await;
    } else {
        count(&shared.tally.clients_killed, 1);
    }
}

impl Inside {
    /// A random source of its own for each task.
    pub(super) fn random(&self, task: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed << 32 ^ task)
    }

    /// A connection; the broker is always there.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        count(&self.tally.clients_made, 1);
        let connected = Client::connect(&self.address).await;
        connected.map_err(|error| format!("a client could not connect: {error}"))
    }

    pub(super) fn complain(&self, complaint: String) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.len() < SAID_MAX {
            broken.push(complaint);
        }
    }

    /// Keeps what a task found.
    pub(super) fn heard<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|complaint| self.complain(complaint)).ok()
    }

    /// Whether a reader came too late, which may happen to one that is slow or begins at the start.
    pub(super) fn is_overtaken(&self, error: &SubscribeError) -> bool {
        let SubscribeError::OffsetOutOfRange {
            position,
            available,
            ..
        } = error
        else {
            return false;
        };
        let is_late = *position < available.start;
        count(&self.tally.readers_overtaken, u64::from(is_late));
        is_late
    }

    pub(super) fn report(&self, findings: &mut Findings) {
        let tally = &self.tally;
        let figures = [
            ("records_acked", &tally.acked),
            ("records_read", &tally.read),
            ("clients_made", &tally.clients_made),
            ("clients_killed", &tally.clients_killed),
            ("clients_silent", &tally.clients_silent),
            ("silent_closed_by_broker", &tally.silent_closed_by_broker),
            ("old_publishers_refused", &tally.old_publishers_refused),
            ("topics_made", &tally.topics_made),
            ("topics_deleted", &tally.topics_deleted),
            ("groups_made", &tally.groups_made),
            ("groups_deleted", &tally.groups_deleted),
            ("offset_commits", &tally.offset_commits),
            ("readers_overtaken", &tally.readers_overtaken),
        ];
        for (name, value) in figures {
            findings.figure(name, value.load(Ordering::Relaxed));
        }
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        findings.broken.append(&mut broken);
    }
}

/// Whether a topic was deleted under a client's hands.
pub(super) fn is_deleted(error: &SubscribeError) -> bool {
    matches!(
        error,
        SubscribeError::TopicDeleted { .. } | SubscribeError::NothingLeft
    ) || matches!(error, SubscribeError::PartitionEnded { refusal, .. } if refusal.code == ErrorCode::UnknownTopic)
}
