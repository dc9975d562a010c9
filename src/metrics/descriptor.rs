//! Every metric, declared once: name, kind, labels, meaning. The admin port and the check of
//! `docs/OPERATIONS.md` read this table.

/// What a metric's number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, from 0 at the start.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is a distribution.
    Histogram,
}

impl MetricKind {
    /// Its name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name.
    pub name: &'static str,
    /// What its number does.
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($name:ident $wire:literal $kind:ident [$($label:literal)*] $meaning:literal;)*) => {
        /// The metrics by name.
        pub mod table {
            use super::{Descriptor, MetricKind};
            $(#[doc = $meaning] pub const $name: Descriptor = Descriptor {
                name: $wire,
                kind: MetricKind::$kind,
                labels: &[$($label,)*],
                meaning: $meaning,
            };)*
        }

        /// Every metric, in the order of the documentation.
        pub const TABLE: &[Descriptor] = &[$(table::$name,)*];
    };
}

metrics! {
    BUILD_INFO "falcon_build_info" Gauge ["version"]
        "Always 1; the label says which version runs.";
    START_TIME "falcon_start_time_seconds" Gauge []
        "When the process started, Unix time.";
    READY "falcon_ready" Gauge []
        "1 while `/readyz` answers 200.";
    DEGRADED "falcon_degraded" Gauge []
        "Reasons that `/readyz` shows although the broker is ready.";
    RECOVERY "falcon_recovery_seconds" Gauge []
        "How long the last recovery took; 0 until it is over.";
    RECOVERY_SEGMENTS_READ "falcon_recovery_segments_read" Gauge []
        "Segments that recovery has looked at so far.";
    RECOVERY_SEGMENTS "falcon_recovery_segments" Gauge []
        "Segments that recovery has to look at.";
    INDEX_REBUILDS "falcon_index_rebuilds_total" Counter []
        "Indexes built again from the journal after a start.";
    INDEX_BY_FOOTERS "falcon_index_by_footers" Gauge []
        "1 while footers are the index because sled cannot be used.";

    CONNECTIONS "falcon_connections" Gauge []
        "Connections open, those before their handshake included.";
    CONNECTIONS_ACCEPTED "falcon_connections_accepted_total" Counter []
        "Connections accepted; those refused for want of room are not among them.";
    SUBSCRIPTIONS "falcon_subscriptions" Gauge []
        "Subscriptions open.";
    FRAMES_RECEIVED "falcon_frames_received_total" Counter ["kind"]
        "Frames received, requests among them.";
    FRAMES_SENT "falcon_frames_sent_total" Counter ["kind"]
        "Frames queued for peers, answers and deliveries among them.";
    BYTES_RECEIVED "falcon_received_bytes_total" Counter []
        "Bytes read from connections.";
    BYTES_SENT "falcon_sent_bytes_total" Counter []
        "Bytes written to connections.";
    RECORDS_DELIVERED "falcon_delivered_records_total" Counter []
        "Records handed to connections for subscriptions and fetches.";
    REQUEST_SECONDS "falcon_request_seconds" Histogram ["kind"]
        "From a request's header to its answer; a fetch includes the time it was told to wait.";
    ERRORS "falcon_errors_total" Counter ["code"]
        "Refusals and ends sent, by error code.";
    REJECTIONS "falcon_rejections_total" Counter ["reason"]
        "Decisions to refuse or close a peer because of what it did, by reason (below).";
    IN_FLIGHT "falcon_in_flight_bytes" Gauge []
        "Bytes of unanswered publishes.";
    IN_FLIGHT_LIMIT "falcon_in_flight_limit_bytes" Gauge []
        "What `limits.in_flight_bytes_total` allows.";

    BATCHES_ACKED "falcon_publish_batches_acked_total" Counter []
        "Batches acknowledged, duplicates included.";
    RECORDS_ACKED "falcon_publish_records_acked_total" Counter []
        "Records acknowledged, duplicates not.";
    BYTES_ACKED "falcon_publish_bytes_acked_total" Counter []
        "Bytes of batches acknowledged, duplicates not.";
    DUPLICATES "falcon_publish_duplicates_total" Counter []
        "Batches acknowledged that had been appended before.";
    QUEUE_SECONDS "falcon_queue_wait_seconds" Histogram []
        "How long commands waited for the writer, room in its queue included.";
    GROUP_BATCHES "falcon_commit_group_batches" Histogram []
        "Batches in each commit group that had any.";
    RECORDS_TRIMMED "falcon_trimmed_records_total" Counter []
        "Records let go by retention.";

    WRITES_STOPPED "falcon_writes_stopped" Gauge []
        "1 after a failed write or sync, until a restart.";
    STORAGE_IS_FULL "falcon_storage_is_full" Gauge []
        "1 while publishes are refused because the device is full.";
    GROUPS "falcon_commit_groups_total" Counter []
        "Commit groups written, snapshots left out.";
    GROUP_BYTES "falcon_commit_group_bytes_total" Counter []
        "Bytes of these commit groups.";
    SYNC_SECONDS "falcon_sync_seconds" Histogram []
        "How long syncs of commit groups took.";
    SYNC_FAILURES "falcon_sync_failures_total" Counter []
        "Syncs of the journal that failed. The first stops all writing.";
    WRITE_FAILURES "falcon_write_failures_total" Counter []
        "Writes to the journal that failed, and new segments that could not be begun. The first stops all writing.";
    ROLLS "falcon_segments_begun_total" Counter []
        "Segments begun.";
    RECLAIMED "falcon_segments_reclaimed_total" Counter []
        "Segments whose records were all dead, given back.";
    BYTES_COPIED "falcon_copied_forward_bytes_total" Counter []
        "Bytes of batches copied forward.";
    BYTES_PREPARED "falcon_prepared_bytes_total" Counter []
        "Zeros written into segments that are prepared, so that commit groups overwrite.";
    JOURNAL_BYTES "falcon_journal_bytes" Gauge []
        "Bytes of the segments on disk, prepared ones left out.";
    LIVE_BYTES "falcon_live_bytes" Gauge []
        "Bytes of the batches that partitions keep.";
    SEGMENTS "falcon_segments" Gauge []
        "Segments on disk, prepared ones left out.";
    FREE_BYTES "falcon_free_bytes" Gauge []
        "Free bytes on the device of the data folder.";
    FREE_FLOOR "falcon_free_floor_bytes" Gauge []
        "What `storage.free_floor_bytes` says must stay free.";

    CACHE_HITS "falcon_cache_hits_total" Counter []
        "Reads answered by the tail cache, or by what was just read.";
    CACHE_MISSES "falcon_cache_misses_total" Counter []
        "Reads that went to the device.";
    DAMAGED_RANGES "falcon_damaged_ranges" Gauge []
        "Ranges of records known to be damaged.";
    DAMAGED_RECORDS "falcon_damaged_records" Gauge []
        "Records in these ranges.";
    DAMAGED_RANGE "falcon_damaged_range_records" Gauge ["topic" "partition" "from" "to"]
        "Records of each damaged range; `to` is the offset after the last. At most 100 are listed.";
    DAMAGE_FOUND "falcon_damage_found_total" Counter []
        "Damaged ranges found after the start, each counted once.";

    TOPICS "falcon_topics" Gauge []
        "Topics.";
    PARTITIONS "falcon_partitions" Gauge []
        "Partitions of all topics.";
    COMMITTED_OFFSETS "falcon_committed_offsets" Gauge []
        "Committed offsets of all groups.";
    LAG "falcon_group_lag_records" Gauge ["group" "topic" "partition"]
        "High watermark less committed offset. At most `admin.lag_series_max` are listed.";
    LAG_LEFT_OUT "falcon_group_lag_left_out" Gauge []
        "Committed offsets whose lag is not listed.";

    GROUPS_ACTIVE "falcon_groups" Gauge []
        "Consumer groups with members.";
    GROUP_MEMBERS "falcon_group_members" Gauge []
        "Members of all consumer groups.";
    OWNERLESS "falcon_group_ownerless_partitions" Gauge []
        "Partitions that a member wants and nobody has, of all groups together.";
    REBALANCES "falcon_group_rebalances_total" Counter []
        "Changes of who of a group shall have which partition.";
    LET_GO "falcon_group_members_let_go_total" Counter []
        "Members let go because they were silent for their session.";
    OVERDUE "falcon_group_overdue_partitions_total" Counter []
        "Partitions taken from members that did not give them up in time.";

    ADMIN_REQUESTS "falcon_admin_requests_total" Counter []
        "Requests answered by the admin port.";
    ADMIN_REFUSED "falcon_admin_refused_total" Counter []
        "Connections to the admin port closed because 32 were open.";
    ADMIN_LATE "falcon_admin_late_total" Counter []
        "Connections to the admin port closed because they took longer than 10 seconds.";
}
