//! Falcon: a durable event broker.

pub mod broker;
pub mod clock;
pub mod config;
pub mod telemetry;
