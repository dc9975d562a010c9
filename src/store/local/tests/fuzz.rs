//! Every decoder of the data folder under damaged inputs: no panic, no memory beyond the bytes that
//! are there, and what is accepted comes back from the encoder as it was.
//!
//! `FALCON_FUZZ_INPUTS` sets how many inputs each decoder gets, `FALCON_FUZZ_SEED` which.

mod any;
mod footers;
mod groups;
mod index;
mod journal;
mod regions;
mod rows;
mod seals;

use falcon_fuzz::{Refusal, refused};

const DAMAGED: Refusal = refused("damaged", "");
const CHECKSUM: Refusal = refused("checksum", "");
/// The checksum is right, what it covers is not.
const LAYOUT: Refusal = refused("layout", "");

/// Why a decoder that says nothing but "no" said no.
fn why(is_sealed: bool) -> Refusal {
    if is_sealed { LAYOUT } else { CHECKSUM }
}
