//! Breaks Falcon as machines break, and judges what clients saw.
//!
//! Owns the histories that clients write ([`history`]), the judge of them ([`checker`]), and the two
//! ways in which brokers die under load: SIGKILL ([`kill`]) and a device that loses power
//! (`power`), all other trouble, a kind at a time ([`trial`]), and the page that says what came of it
//! ([`report`]). Promises that the judge knows nothing but the histories, and that whatever a run
//! started, mounted or attached is gone when it ends.
//!
//! Must not know: the broker's code. The broker is a program that is started, the client a crate.

mod abuse;
pub mod campaign;
pub mod chart;
pub mod checker;
pub mod error;
#[cfg(target_os = "linux")]
mod full;
mod fuzz;
pub mod history;
pub mod kill;
mod load;
mod own_tests;
mod payload;
mod payments;
#[cfg(target_os = "linux")]
pub mod power;
mod process;
#[cfg(target_os = "linux")]
mod read_only;
pub mod rebalances;
pub mod report;
pub mod results;
mod retried;
pub mod round;
pub mod scale;
mod soak;
pub mod trial;
mod watch;
