//! The admin port: `/metrics`, `/livez`, `/readyz`.
//!
//! Owns the HTTP listener, the text forms, and the answer to "is this broker fit for traffic".
//! Promises: it is up from before recovery until the journal is closed; whatever comes to the port
//! changes nothing and costs bounded memory and time; the writer never waits for a scrape for longer
//! than reading `admin.lag_series_max` rows takes. Must not know: frames, connections, segments.

mod exposition;
mod http;
mod scrape;
mod status;
#[cfg(test)]
mod tests;

pub use http::AdminPort;
pub use status::{Phase, Reason, Served, Status};
