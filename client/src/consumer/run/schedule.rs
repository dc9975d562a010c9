//! Which record may begin: a queue per key or partition, one at a time from each. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use falcon_protocol::PartitionId;
use tokio::time::Instant;

use super::options::Order;
use crate::subscription::Delivered;

/// What comes one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Line {
    partition: Option<PartitionId>,
    key: Option<Bytes>,
}

/// A record to be handled.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) record: Delivered,
    /// Attempts that failed.
    pub(super) attempts: u32,
    line: Line,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Whether its first job runs or waits for its next attempt.
    is_busy: bool,
}

/// Records by line, and which lines may begin.
#[derive(Debug)]
pub(super) struct Schedule {
    order: Order,
    lines: HashMap<Line, Waiting>,
    /// Lines whose first job may begin, in turn.
    ready: VecDeque<Line>,
    /// Jobs that wait for their next attempt; the number tells equal times apart.
    retries: BTreeMap<(Instant, u64), Job>,
    next_number: u64,
}

impl Schedule {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            lines: HashMap::new(),
            ready: VecDeque::new(),
            retries: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Takes a record in; those of a line come in order.
    pub(super) fn push(&mut self, record: Delivered) {
        let line = Line {
            partition: record.grant.map(|grant| grant.hold.partition),
            key: match self.order {
                Order::Key => record.key.clone(),
                Order::Partition => None,
            },
        };
        let waiting = self.lines.entry(line.clone()).or_default();
        if waiting.jobs.is_empty() && !waiting.is_busy {
            self.ready.push_back(line.clone());
        }
        waiting.jobs.push_back(Job {
            record,
            attempts: 0,
            line,
        });
    }

    /// How many could begin now.
    pub(super) fn startable(&self) -> usize {
        self.ready.len()
    }

    /// The next job to begin; its line waits until [`Self::done`] or the end of another attempt.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Job> {
        if let Some(entry) = self
            .retries
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            return Some(entry.remove());
        }
        let line = self.ready.pop_front()?;
        let waiting = self.lines.get_mut(&line)?;
        waiting.is_busy = true;
        waiting.jobs.pop_front()
    }

    /// A job is to be tried again at `due`; its line waits.
    pub(super) fn again(&mut self, mut job: Job, due: Instant) {
        job.attempts = job.attempts.saturating_add(1);
        self.next_number += 1;
        self.retries.insert((due, self.next_number), job);
    }

    /// When the next attempt is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.retries.keys().next().map(|(due, _)| *due)
    }

    /// A job has ended: the next of its line may begin.
    pub(super) fn done(&mut self, job: &Job) {
        let Some(waiting) = self.lines.get_mut(&job.line) else {
            return;
        };
        waiting.is_busy = false;
        if waiting.jobs.is_empty() {
            self.lines.remove(&job.line);
        } else {
            self.ready.push_back(job.line.clone());
        }
    }
}
