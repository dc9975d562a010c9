//! Numbers about what happens: plain atomics that every room may write.
//!
//! Owns every metric's name, kind, labels and meaning ([`TABLE`]) and the counters behind them. Promises:
//! writing is one or two relaxed atomic operations, never a lock or an allocation; numbers that one
//! room's threads write share no cache line with those of another. Must not know: HTTP, tokio, the
//! text form, who reads.
//!
//! What is a state and not an event (lag, free space, known damage) is not kept here: whoever
//! shows it asks for it then.

mod descriptor;
mod family;
mod rejection;
#[cfg(test)]
mod tests;
mod value;

use crate::clock;

pub use descriptor::{Descriptor, MetricKind, TABLE, table};
pub use family::{ByCode, ByKind, ByRejection};
pub use rejection::Rejection;
pub use value::{BUCKETS, Beat, Counter, Gauge, Histogram, Scale};

/// Everything that is counted in one broker.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The process.
    pub process: ProcessMetrics,
    /// Connections and frames.
    pub server: ServerMetrics,
    /// Consumer groups.
    pub groups: GroupMetrics,
    /// What the writer's thread counts.
    pub writer: WriterMetrics,
    /// The journal's write side.
    pub journal: JournalMetrics,
    /// The read side, and background work.
    pub reads: ReadMetrics,
    /// The admin port.
    pub admin: AdminMetrics,
}

/// The process: start, recovery, loops.
#[derive(Debug)]
#[repr(align(128))]
pub struct ProcessMetrics {
    /// When it started, Unix milliseconds.
    pub started_ms: i64,
    /// How long recovery took, microseconds.
    pub recovery_us: Gauge,
    /// Segments that recovery has looked at.
    pub recovery_segments_read: Gauge,
    /// Segments that it has to look at.
    pub recovery_segments: Gauge,
    /// Indexes built again from the journal.
    pub index_rebuilds: Counter,
    /// Whether footers are the index, because sled cannot be used.
    pub index_by_footers: Gauge,
    /// Turns of housekeeping.
    pub housekeeping: Beat,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self {
            started_ms: clock::now_unix_ms(),
            recovery_us: Gauge::default(),
            recovery_segments_read: Gauge::default(),
            recovery_segments: Gauge::default(),
            index_rebuilds: Counter::default(),
            index_by_footers: Gauge::default(),
            housekeeping: Beat::default(),
        }
    }
}

/// Connections and frames.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServerMetrics {
    /// Accepted so far.
    pub accepted: Counter,
    /// Open now, handshake included.
    pub open: Gauge,
    /// Open subscriptions.
    pub subscriptions: Gauge,
    /// Frames that came, by kind.
    pub frames_received: ByKind<Counter>,
    /// Frames of a kind that this broker does not know.
    pub frames_unknown: Counter,
    /// Frames that were queued for a peer, by kind.
    pub frames_sent: ByKind<Counter>,
    /// Bytes read from sockets.
    pub bytes_received: Counter,
    /// Bytes written to sockets.
    pub bytes_sent: Counter,
    /// Refusals and ends sent, by error code.
    pub errors: ByCode,
    /// Decisions against a peer.
    pub rejections: ByRejection,
    /// From a request's header to its answer, by kind.
    pub request_seconds: ByKind<Histogram>,
    /// Records sent to subscribers.
    pub records_delivered: Counter,
}

/// Consumer groups, written by the coordinator's task alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct GroupMetrics {
    /// Groups with members.
    pub active: Gauge,
    /// Their members.
    pub members: Gauge,
    /// Partitions that a member wants and nobody has.
    pub ownerless: Gauge,
    /// Changes of who shall have what.
    pub rebalances: Counter,
    /// Members let go because they were silent.
    pub let_go: Counter,
    /// Partitions taken from members that did not give them up in time.
    pub overdue: Counter,
}

/// What the writer's thread counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WriterMetrics {
    /// Batches acknowledged, duplicates included.
    pub batches_acked: Counter,
    /// Records acknowledged, duplicates not.
    pub records_acked: Counter,
    /// Bytes of batches acknowledged, duplicates not.
    pub bytes_acked: Counter,
    /// Batches acknowledged that had been appended before.
    pub duplicates: Counter,
    /// How long commands waited in the queue.
    pub queue_seconds: Histogram,
    /// Batches in each commit group that had any.
    pub group_batches: Histogram,
    /// Records trimmed by retention.
    pub records_trimmed: Counter,
    /// Turns of the writer.
    pub turns: Beat,
    /// Turns that are finished beside it.
    pub finishes: Beat,
}

/// The journal's write side.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct JournalMetrics {
    /// Commit groups written.
    pub groups: Counter,
    /// Their bytes.
    pub group_bytes: Counter,
    /// Syncs of commit groups.
    pub sync_seconds: Histogram,
    /// Syncs that failed.
    pub sync_failures: Counter,
    /// Writes that failed.
    pub write_failures: Counter,
    /// Segments begun.
    pub rolls: Counter,
    /// Bytes of batches copied forward.
    pub bytes_copied: Counter,
    /// Zeros written into segments that are prepared.
    pub bytes_prepared: Counter,
}

/// The read side, and background work.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReadMetrics {
    /// Reads answered by the tail cache.
    pub cache_hits: Counter,
    /// Reads that went to the device.
    pub cache_misses: Counter,
    /// Damaged ranges that a read found, each counted once.
    pub damage_found: Counter,
    /// Segments reclaimed.
    pub segments_reclaimed: Counter,
}

/// The admin port.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct AdminMetrics {
    /// Requests answered.
    pub requests: Counter,
    /// Connections closed because there was no room.
    pub refused: Counter,
    /// Connections closed because they took too long.
    pub late: Counter,
}

impl ServerMetrics {
    /// An error was sent, perhaps because of what the peer did.
    pub fn refused(&self, code: falcon_protocol::ErrorCode, rejection: Option<Rejection>) {
        self.errors.add(code);
        if let Some(rejection) = rejection {
            self.rejections.add(rejection);
        }
    }
}
