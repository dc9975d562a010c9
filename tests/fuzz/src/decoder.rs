//! What a decoder's test says about it.

use std::fmt;

use fastrand::Rng;

use crate::damage::Hints;

/// Why an input was refused: the kind of error, and the field where one is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of error.
    pub error: &'static str,
    /// The field, or nothing.
    pub field: &'static str,
}

/// A refusal by this error, of this field or none.
pub const fn refused(error: &'static str, field: &'static str) -> Refusal {
    Refusal { error, field }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            "" => f.write_str(self.error),
            field => write!(f, "{}({field})", self.error),
        }
    }
}

/// One decoder under test.
pub trait Decoder: Sync {
    /// Its name, in output and for replays.
    fn name(&self) -> &'static str;

    /// Appends bytes that it must accept, with random content.
    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>);

    /// Makes checksums fit, and now and then lengths, so that what is behind them is reached.
    fn seal(&self, _bytes: &mut Vec<u8>, _random: &mut Rng) {}

    /// Decodes; panics when what was accepted breaks a promise.
    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal>;

    /// Where damage is likely to be interesting.
    fn hints(&self) -> Hints {
        Hints::default()
    }

    /// Most bytes that decoding `bytes`, and checking what came out, may hold at a time.
    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        4096 + 64 * bytes.len() as u64
    }

    /// Refusals that a test has to come across, lest it tests nothing.
    fn expected(&self) -> &[Refusal];
}
