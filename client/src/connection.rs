//! One connection to a broker, and the one that follows when it is lost.
//!
//! Owns sockets, frames, correlation numbers, heartbeats and the limits the broker granted.
//! Promises: control frames leave before bulk data; nothing queues without a limit; a lost
//! connection answers everything that was under way with the reason; and another one is made until
//! the client is shut down.
//!
//! Must not know: topics, records, producers, positions.

mod dial;
mod gate;
mod link;
mod outbox;
mod reader;
mod routes;
mod session;
mod tray;
mod writer;

pub(crate) use dial::{DialOptions, dial};
pub(crate) use link::{Link, LinkState, supervise};
pub(crate) use routes::{Incoming, Inlet};
pub(crate) use session::{Session, StartError};
pub(crate) use tray::{Answer, Tag, Tray};
