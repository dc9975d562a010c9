//! How the broker is configured under abuse, and what its memory is bounded by then.
//!
//! Promises: the bound is the sum that docs/OPERATIONS.md gives under "Memory", with nothing in it that
//! depends on what peers do. Limits are small, so that what is not bounded shows.

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The program itself, its allocator, the commit group that is being written, and buffers of reads and
/// checks, which have a number each.
const PROCESS_BYTES: u64 = 48 * MIB;
/// A connection that has nothing to do.
pub(super) const IDLE_BYTES: u64 = 32 * KIB;
/// What was read from a connection ahead.
pub(super) const READ_BYTES: u64 = 192 * KIB;
/// Answers of a connection that wait or are being written.
pub(super) const ANSWER_BYTES: u64 = 2 * (MIB + 128 * KIB);
/// The largest answer to a control request.
pub(super) const CONTROL_BYTES: u64 = 4 * MIB;
/// A request that waits, beside its body.
pub(super) const REQUEST_BYTES: u64 = 4 * KIB;
/// A subscription, and each partition of it.
pub(super) const SUBSCRIPTION_BYTES: u64 = 4 * KIB;
pub(super) const WATCH_BYTES: u64 = 256;
/// Rows of tables: in memory, and once more while a snapshot is written.
pub(super) const TOPIC_ROW_BYTES: u64 = 3 * KIB;
pub(super) const OFFSET_ROW_BYTES: u64 = 4 * KIB;
pub(super) const PRODUCER_ROW_BYTES: u64 = 2 * KIB;

/// The settings that differ from their defaults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) connections_max: u64,
    pub(super) batch_bytes_max: u64,
    pub(super) in_flight_bytes_total: u64,
    pub(super) in_flight_bytes_per_connection: u64,
    pub(super) delivery_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) requests: u64,
    pub(super) subscriptions: u64,
    pub(super) topics_max: u64,
    pub(super) offsets_max: u64,
    pub(super) producers_max: u64,
    pub(super) handshake_ms: u64,
    pub(super) stall_ms: u64,
    pub(super) heartbeat_ms: u64,
    pub(super) idle_ms: u64,
}

impl Settings {
    pub(super) const fn small() -> Self {
        Self {
            connections_max: 1_024,
            batch_bytes_max: MIB,
            in_flight_bytes_total: 16 * MIB,
            in_flight_bytes_per_connection: 4 * MIB,
            delivery_bytes: 256 * KIB,
            cache_bytes: 4 * MIB,
            requests: 1_024,
            subscriptions: 128,
            topics_max: 500,
            offsets_max: 20_000,
            producers_max: 20_000,
            handshake_ms: 1_000,
            stall_ms: 1_500,
            heartbeat_ms: 500,
            idle_ms: 2_000,
        }
    }

    /// As variables of the broker's environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let numbers = [
            ("LIMITS_CONNECTIONS_MAX", self.connections_max),
            ("LIMITS_BATCH_BYTES_MAX", self.batch_bytes_max),
            ("LIMITS_IN_FLIGHT_BYTES_TOTAL", self.in_flight_bytes_total),
            (
                "LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION",
                self.in_flight_bytes_per_connection,
            ),
            ("LIMITS_DELIVERY_BYTES_PER_CONNECTION", self.delivery_bytes),
            ("LIMITS_REQUESTS_IN_FLIGHT_PER_CONNECTION", self.requests),
            ("LIMITS_SUBSCRIPTIONS_PER_CONNECTION", self.subscriptions),
            ("LIMITS_TOPICS_MAX", self.topics_max),
            ("LIMITS_COMMITTED_OFFSETS_MAX", self.offsets_max),
            ("LIMITS_PRODUCERS_MAX", self.producers_max),
            ("STORAGE_CACHE_BYTES", self.cache_bytes),
            ("STORAGE_SEGMENT_BYTES", 16 * MIB),
            ("TIMEOUTS_HANDSHAKE_MS", self.handshake_ms),
            ("TIMEOUTS_STALL_MS", self.stall_ms),
            ("TIMEOUTS_HEARTBEAT_MS", self.heartbeat_ms),
            ("TIMEOUTS_IDLE_MS", self.idle_ms),
        ];
        let numbers = numbers.into_iter();
        numbers
            .map(|(name, number)| (format!("FALCON_{name}"), number.to_string()))
            .collect()
    }

    pub(super) fn batch_bytes(&self) -> usize {
        usize::try_from(self.batch_bytes_max).unwrap_or(usize::MAX)
    }

    pub(super) fn requests_in_flight(&self) -> usize {
        usize::try_from(self.requests).unwrap_or(usize::MAX)
    }

    /// Most memory while peers make the broker hold `held_bytes` in the ways that have limits.
    pub(super) const fn bound_bytes(&self, held_bytes: u64) -> u64 {
        // Slow subscribers may keep what left the cache, up to one and a half times as much.
        let cache_bytes = self.cache_bytes * 5 / 2;
        PROCESS_BYTES + 2 * self.in_flight_bytes_total + cache_bytes + held_bytes
    }

    /// What deliveries of one connection may hold: the budget, or one thing that is larger, and an eighth more.
    pub(super) const fn delivery_bytes_max(&self) -> u64 {
        if self.delivery_bytes > CONTROL_BYTES {
            self.delivery_bytes * 9 / 8
        } else {
            CONTROL_BYTES * 9 / 8
        }
    }
}
