//! Falcon, a durable event broker: the broker as a library.
//!
//! [`Broker::start`] runs a whole broker inside a program or a test. The code map is in
//! `docs/ARCHITECTURE.md`; the rooms, from the outside in:
//!
//! - [`broker`]: composition root; start, housekeeping, shutdown
//! - [`server`]: TCP, connections, flow control
//! - [`writer`]: the one thread that changes anything; [`reader`]: the one read path
//! - [`catalog`], [`group`], [`partition`]: topics, committed offsets, the rules of a partition
//! - [`store`]: what a durable home must do, and the journal with its sled index
//! - [`io`]: the only door to the file system; [`clock`]: the only door to time
//! - [`admin`]: `/metrics`, `/livez`, `/readyz`
//! - [`config`], [`telemetry`], [`metrics`]: settings, logs, numbers

pub mod admin;
pub mod broker;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod group;
pub mod io;
pub mod metrics;
pub mod partition;
pub mod reader;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod writer;

pub use broker::Broker;
pub use config::Config;
