//! Falcon, a durable event broker.

pub mod catalog;
pub mod clock;
pub mod config;
pub mod group;
pub mod io;
pub mod partition;
pub mod reader;
pub mod server;
pub mod store;
pub mod writer;

pub use config::Config;
