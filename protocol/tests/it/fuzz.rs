//! Every decoder of the protocol under damaged inputs: no panic, no memory that a peer's number asks
//! for, and what is accepted comes back from the encoder as it was.
//!
//! `FALCON_FUZZ_INPUTS` sets how many inputs each decoder gets, `FALCON_FUZZ_SEED` which.

mod batches;
mod frames;
mod messages;
mod step;
mod values;

use falcon_fuzz::{Refusal, refused};
use falcon_protocol::wire::WireError;

/// Kind and field of what the hand-laid decoders say.
fn wire(error: WireError) -> Refusal {
    match error {
        WireError::Truncated { field } => refused("truncated", field),
        WireError::Invalid { field } => refused("invalid", field),
        WireError::Trailing { .. } => refused("trailing", ""),
    }
}
