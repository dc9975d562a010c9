//! Falcon: a durable event broker.

pub mod clock;
pub mod config;
