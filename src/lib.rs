//! The Falcon event broker.

pub mod io;
pub mod store;
