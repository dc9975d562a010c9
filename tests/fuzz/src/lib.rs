//! Inputs for decoders: valid ones, damaged by plan, counted by what became of them.
//!
//! Owns how inputs are made (`damage`), how many are tried and by whom ([`Family`]), and the count
//! of verdicts ([`Tally`]). A decoder is described by [`Decoder`]: how valid bytes are built, how
//! checksums are made to fit again, and what must hold of what was read. Promises that an input
//! depends on the seed, the decoder's name and its number alone, so that a failure is replayed by
//! itself; that what a decoder allocates is measured; and that a decoder which always refuses at its
//! first check fails.
//!
//! Must not know: any format. The formats' own tests bring that.

mod damage;
mod decoder;
mod family;
mod round_trip;
mod tally;

pub use damage::{Hints, number, set_number};
pub use decoder::{Decoder, Refusal, refused};
pub use family::Family;
pub use fastrand::Rng;
pub use round_trip::{RoundTrip, any_text};
pub use tally::Tally;
