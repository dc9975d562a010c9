//! Every setting, declared once: name, kind, range, meaning. The loader, the flags of
//! `falcon serve`, `falcon config` and the check of `docs/OPERATIONS.md` all read this table;
//! defaults come from [`Config::default`].

use falcon_protocol::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};

use super::Config;
use super::value::{Field, Kind, Value};

/// One setting.
pub struct Key {
    /// Its name in a file, with the section: `limits.connections_max`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    pub(super) get: fn(&Config) -> Value,
    pub(super) set: fn(&mut Config, Value) -> Option<()>,
}

impl Key {
    /// The key of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The environment variable: `FALCON_LIMITS_CONNECTIONS_MAX`.
    pub fn environment(&self) -> String {
        format!("FALCON_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The value in `config`, as it is written in a file.
    pub fn show(&self, config: &Config) -> String {
        self.kind.show(&(self.get)(config))
    }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Millis { min, max }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const FRAME_MAX: u64 = FRAME_BYTES_MAX as u64;
const BATCH_MAX: u64 = BATCH_BYTES_MAX as u64;

macro_rules! keys {
    ($($(($section:ident))? $field:ident, $kind:expr, $meaning:literal;)*) => {
        /// Every setting, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            name: concat!($(stringify!($section), ".",)? stringify!($field)),
            kind: $kind,
            meaning: $meaning,
            get: |config| config$(.$section)?.$field.to_value(),
            set: |config, value| {
                config$(.$section)?.$field = Field::from_value(value)?;
                Some(())
            },
        },)*];
    };
}

keys! {
    data_dir, Kind::Path,
        "Folder that holds everything durable; created when missing. One broker at a time.";
    listen, Kind::SocketAddress,
        "Address to accept connections on; port 0 takes a free one.";
    advertise, Kind::Endpoint,
        "Address that clients are told to connect to; empty: the one they used is right.";
    allow_remote, Kind::Bool,
        "Allow a listen address that other machines can reach. There is no authentication yet.";
    shutdown_grace_ms, millis(0, DAY),
        "How long a shutdown waits for requests in flight.";

    (limits) connections_max, count(1, 65_536),
        "Connections open at a time; one more is refused.";
    (limits) frame_bytes_max, bytes(64 * KIB, FRAME_MAX),
        "Largest frame body, granted to clients in the handshake.";
    (limits) batch_bytes_max, bytes(KIB, BATCH_MAX),
        "Largest record batch as sent; at most limits.frame_bytes_max less 64 bytes.";
    (limits) in_flight_bytes_per_connection, bytes(64 * KIB, 4 * GIB),
        "Publish window: bytes of unanswered publishes of one connection.";
    (limits) in_flight_bytes_total, bytes(64 * KIB, 64 * GIB),
        "Bytes of unanswered publishes of all connections together.";
    (limits) requests_in_flight_per_connection, count(1, 65_536),
        "Unanswered requests of one connection.";
    (limits) subscriptions_per_connection, count(1, 65_536),
        "Subscriptions open on one connection.";
    (limits) delivery_bytes_per_connection, bytes(64 * KIB, GIB),
        "Bytes read for the subscribers of one connection and not yet sent.";
    (limits) topics_max, count(1, 1_000_000),
        "Topics in all.";
    (limits) partitions_max, count(1, 1_000_000),
        "Partitions of all topics together.";
    (limits) committed_offsets_max, count(1, 200_000),
        "Committed offsets in all, one for each group, topic and partition; and as many fences of owners.";
    (limits) producers_max, count(1, 400_000),
        "Producer states in all, one for each idempotent publisher and partition it writes to; and as many names.";

    (timeouts) handshake_ms, millis(100, 600 * SECOND),
        "A new connection must complete its handshake within this time.";
    (timeouts) heartbeat_ms, millis(100, 600 * SECOND),
        "Each side sends something at least this often.";
    (timeouts) idle_ms, millis(200, DAY),
        "A connection is closed after this long without a byte; at least twice timeouts.heartbeat_ms.";
    (timeouts) stall_ms, millis(100, DAY),
        "A connection is closed when it stops in the middle of a frame, or does not read, for this long.";
    (timeouts) queue_ms, millis(1, DAY),
        "A publish waits this long for room in the queue, then is refused with queue_full.";
    (timeouts) producer_expiry_ms, millis(60 * SECOND, 365 * DAY),
        "An idempotent publisher that was silent for this long is forgotten, and its name.";

    (storage) segment_bytes, bytes(256 * KIB, 2 * GIB),
        "Size of a journal segment, taken up to a multiple of 4KiB; at least twice limits.batch_bytes_max.";
    (storage) cache_bytes, bytes(MIB, 64 * GIB),
        "Newest batches kept in memory for subscribers that keep up.";
    (storage) free_floor_bytes, bytes(0, 1024 * GIB),
        "Publishes are refused with storage_full when less than this is free on the device.";
    (storage) direct_io, Kind::Bool,
        "Write the active segment past the page cache, where the file system can do that.";
    (storage) spare_segments, count(0, 16),
        "Segments prepared ahead, so that rolling to the next does not wait.";
    (storage) retention_check_ms, millis(10, DAY),
        "How often retention looks for records to trim.";
    (storage) index_open_timeout_ms, millis(100, DAY),
        "The index is rebuilt from the journal when opening it takes longer than this.";

    (admin) listen, Kind::AdminAddress,
        "Address of /metrics, /livez and /readyz; auto: on loopback, the port after the one of listen.";
    (admin) lag_series_max, count(0, 100_000),
        "Rows of falcon_group_lag_records in a scrape; those beyond are counted, not shown.";

    (log) level, Kind::LogFilter,
        "What is logged: a level, or levels by target (info,falcon::server=debug).";
    (log) format, Kind::LogFormat,
        "Form of the log: human, json, or auto (human on a terminal, else human without colour).";
}
