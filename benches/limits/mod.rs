//! What the machine itself can do: the denominators of every figure.
//!
//! Owns raw measurements in the shape of the broker's work: a write with a sync, a stream and a round
//! trip over loopback, a sequential read. Promises: nothing of Falcon takes part; buffers are aligned,
//! warmed and used again, so what is measured is the kernel and the device. Must not know: the broker.
#![allow(
    dead_code,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "each bench uses its part; figures have three digits; this is below the broker's doors; a \
              bench fails by panicking"
)]

pub(crate) mod aligned;
pub(crate) mod cache;
pub(crate) mod echo;
pub(crate) mod loopback;
pub(crate) mod read;
pub(crate) mod samples;
pub(crate) mod write;

/// Measuring ends with what the system said.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;
