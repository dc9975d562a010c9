//! Tests of the protocol crate from outside: golden bytes and properties.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fuzz;
mod golden;
mod properties;
