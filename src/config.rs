//! The broker's configuration.
//!
//! Owns every setting: its default, range, meaning ([`KEYS`]) and where it may be set (a TOML
//! file, the environment, flags; the later wins). Promises: a [`Config`] that was loaded, or passed
//! [`Config::check`], is free of contradictions, and an error names the key, the value, where it
//! came from and what is allowed. Must not know: what uses a setting.
//!
//! ```
//! use falcon::config::{Config, Sources};
//! let sources = Sources {
//!     environment: vec![("FALCON_LIMITS_CONNECTIONS_MAX".into(), "16".into())],
//!     ..Sources::default()
//! };
//! let loaded = Config::load(&sources).expect("valid");
//! assert_eq!(loaded.config.limits.connections_max, 16);
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use falcon_protocol::limits::{BATCH_BYTES_DEFAULT, FRAME_BYTES_DEFAULT, PORT_DEFAULT};

mod check;
mod error;
mod keys;
mod load;
#[cfg(test)]
mod tests;
pub mod units;
mod value;

pub use error::{ConfigError, Origin};
pub use keys::{KEYS, Key};
pub use load::{Flag, Loaded, Sources};
pub use value::Kind;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Everything the broker can be told. [`KEYS`] says what each setting means and allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder that holds everything durable.
    pub data_dir: PathBuf,
    /// Address to accept connections on.
    pub listen: SocketAddr,
    /// Address that clients are told to connect to.
    pub advertise: Option<String>,
    /// Allow a listen address that other machines can reach.
    pub allow_remote: bool,
    /// How long a shutdown waits for requests in flight.
    pub shutdown_grace_ms: u64,
    /// What bounds memory and tables.
    pub limits: Limits,
    /// What bounds waiting.
    pub timeouts: Timeouts,
    /// How data is kept.
    pub storage: Storage,
    /// How the broker is watched.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
}

/// Section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at a time.
    pub connections_max: u32,
    /// Largest frame body.
    pub frame_bytes_max: u32,
    /// Largest record batch as sent.
    pub batch_bytes_max: u32,
    /// Publish window of one connection.
    pub in_flight_bytes_per_connection: u64,
    /// Bytes of unanswered publishes in all.
    pub in_flight_bytes_total: u64,
    /// Unanswered requests of one connection.
    pub requests_in_flight_per_connection: u32,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection: u32,
    /// Bytes read for the subscribers of one connection and not yet sent.
    pub delivery_bytes_per_connection: u64,
    /// Topics in all.
    pub topics_max: u32,
    /// Partitions in all.
    pub partitions_max: u32,
    /// Committed offsets in all.
    pub committed_offsets_max: u32,
    /// Producer states in all.
    pub producers_max: u32,
}

/// Section `[timeouts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For the handshake of a new connection.
    pub handshake_ms: u64,
    /// Each side sends something at least this often.
    pub heartbeat_ms: u64,
    /// A connection is closed after this long without a byte.
    pub idle_ms: u64,
    /// A connection is closed when it stands still in a frame for this long.
    pub stall_ms: u64,
    /// A publish waits this long for room in the queue.
    pub queue_ms: u64,
    /// A silent idempotent publisher is forgotten after this.
    pub producer_expiry_ms: u64,
}

/// Section `[storage]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Size of a journal segment, taken up to a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Newest batches kept in memory.
    pub cache_bytes: u64,
    /// Publishes are refused when less is free on the device.
    pub free_floor_bytes: u64,
    /// Whether the active segment is written past the page cache, where the file system can do that.
    pub direct_io: bool,
    /// Segments prepared ahead.
    pub spare_segments: u32,
    /// How often retention looks for records to trim.
    pub retention_check_ms: u64,
    /// The index is rebuilt when opening it takes longer.
    pub index_open_timeout_ms: u64,
}

/// Section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub listen: AdminListen,
    /// Rows of lag in a scrape.
    pub lag_series_max: u32,
}

/// Where the admin port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminListen {
    /// On loopback, at the port after the broker's; without, when that is taken.
    Auto,
    /// Nowhere.
    Off,
    /// Here; the broker does not start when that is taken.
    At(SocketAddr),
}

impl AdminListen {
    /// The address of this text: `auto`, `off` or `IP:PORT`.
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "off" => Some(Self::Off),
            address => {
                let address = address.replace("localhost:", "127.0.0.1:");
                Some(Self::At(address.parse().ok()?))
            }
        }
    }

    /// The address to bind for a broker that listens on `listen`.
    pub fn address(self, listen: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Auto => {
                // Port 0 asks for a free one; after the last port there is no next.
                let port = match listen.port() {
                    0 => 0,
                    port => port.checked_add(1)?,
                };
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
            }
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl std::fmt::Display for AdminListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level, or levels by target.
    pub level: String,
    /// Its form.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human, with colour when standard error is a terminal.
    Auto,
    /// For people, never with colour.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The names, as they are written in a configuration.
    pub const NAMES: [&str; 3] = ["auto", "human", "json"];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
        }
    }

    /// The form of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Human, Self::Json]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("falcon-data"),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT_DEFAULT),
            advertise: None,
            allow_remote: false,
            shutdown_grace_ms: 10_000,
            limits: Limits {
                connections_max: 1024,
                frame_bytes_max: FRAME_BYTES_DEFAULT,
                batch_bytes_max: BATCH_BYTES_DEFAULT,
                in_flight_bytes_per_connection: 16 * MIB,
                in_flight_bytes_total: 32 * MIB,
                requests_in_flight_per_connection: 4096,
                subscriptions_per_connection: 1024,
                delivery_bytes_per_connection: MIB,
                topics_max: 10_000,
                partitions_max: 100_000,
                committed_offsets_max: 100_000,
                producers_max: 100_000,
            },
            timeouts: Timeouts {
                handshake_ms: 5_000,
                heartbeat_ms: 10_000,
                idle_ms: 60_000,
                stall_ms: 30_000,
                queue_ms: 30_000,
                producer_expiry_ms: 86_400_000,
            },
            storage: Storage {
                segment_bytes: 128 * MIB,
                cache_bytes: 16 * MIB,
                free_floor_bytes: 64 * MIB,
                direct_io: true,
                spare_segments: 1,
                retention_check_ms: 5_000,
                index_open_timeout_ms: 30_000,
            },
            admin: Admin {
                listen: AdminListen::Auto,
                lag_series_max: 1_000,
            },
            log: Log {
                level: "info".into(),
                format: LogFormat::Auto,
            },
        }
    }
}

impl Config {
    /// Defaults under the sources' file, environment and flags. The result is checked.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        load::load(sources)
    }

    /// Checks ranges and contradictions of a configuration made in code.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self, |_| Origin::Program)
    }

    /// The whole configuration as a file that [`load`](Self::load) reads back.
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        let mut section = "";
        for key in KEYS {
            let (of, field) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if of != section {
                section = of;
                lines.push(format!("\n[{section}]"));
            }
            lines.push(format!("{field} = {}", key.show(self)));
        }
        lines.join("\n") + "\n"
    }

    /// For tests: a free port, no admin port, and limits small enough to be reached with little data.
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> Self {
        let mut config = Self {
            data_dir: data_dir.into(),
            shutdown_grace_ms: 2_000,
            ..Self::default()
        };
        config.listen.set_port(0);
        config.admin.listen = AdminListen::Off;
        config.limits.batch_bytes_max = 256 * 1024;
        config.storage.segment_bytes = MIB;
        config.storage.cache_bytes = MIB;
        config.storage.free_floor_bytes = 64 * KIB;
        config.storage.spare_segments = 0;
        config.storage.retention_check_ms = 50;
        config
    }
}
