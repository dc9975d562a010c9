//! Decoders that have an encoder: what was accepted must come back.

use std::fmt::Debug;

use fastrand::Rng;

use crate::damage::Hints;
use crate::decoder::{Decoder, Refusal};

/// A decoder and its encoder.
#[derive(Debug)]
pub struct RoundTrip<T> {
    /// Its name.
    pub name: &'static str,
    /// Makes a value that can be encoded.
    pub make: fn(&mut Rng) -> T,
    /// Appends a value's bytes.
    pub encode: fn(&T, &mut Vec<u8>),
    /// Reads a value.
    pub decode: fn(&[u8]) -> Result<T, Refusal>,
    /// Makes checksums and lengths fit.
    pub seal: fn(&mut Vec<u8>, &mut Rng),
    /// Where damage is likely to be interesting.
    pub hints: Hints,
    /// Memory that may be held whatever the input's length, bytes.
    pub memory_bytes: u64,
    /// Refusals that must occur.
    pub expected: &'static [Refusal],
}

impl<T> RoundTrip<T> {
    /// A decoder without checksums.
    pub const fn new(
        name: &'static str,
        make: fn(&mut Rng) -> T,
        encode: fn(&T, &mut Vec<u8>),
        decode: fn(&[u8]) -> Result<T, Refusal>,
    ) -> Self {
        Self {
            name,
            make,
            encode,
            decode,
            seal: |_, _| {},
            hints: Hints {
                fields: &[],
                values: &[],
            },
            memory_bytes: 4096,
            expected: &[],
        }
    }
}

impl<T: Debug + PartialEq> Decoder for RoundTrip<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        let (value, from) = ((self.make)(random), to.len());
        (self.encode)(&value, to);
        let back = (self.decode)(to.get(from..).unwrap_or_default());
        assert_eq!(
            back.as_ref(),
            Ok(&value),
            "{}: not as it was made",
            self.name
        );
    }

    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        (self.seal)(bytes, random);
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let value = (self.decode)(bytes)?;
        let mut again = Vec::with_capacity(bytes.len());
        (self.encode)(&value, &mut again);
        assert!(
            again.len() <= bytes.len(),
            "{} bytes hold what takes {}: {value:?}",
            bytes.len(),
            again.len()
        );
        let back = (self.decode)(&again);
        assert_eq!(back.as_ref(), Ok(&value), "not as it was encoded");
        Ok(())
    }

    fn hints(&self) -> Hints {
        self.hints
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        self.memory_bytes + 64 * bytes.len() as u64
    }

    fn expected(&self) -> &[Refusal] {
        self.expected
    }
}

/// Up to `max` bytes of text, mostly short, sometimes beyond ASCII, sometimes as long as allowed.
pub fn any_text(random: &mut Rng, max: usize) -> String {
    let wanted = match random.u8(0..16) {
        0 => 0,
        1 => max,
        _ => random.usize(0..=max.min(24)),
    };
    let mut text = String::new();
    while text.len() < wanted {
        let next = match random.u8(0..12) {
            0 => 'ä',
            1 => '.',
            2 => random.char(..),
            _ => random.alphanumeric(),
        };
        if text.len() + next.len_utf8() > wanted {
            break;
        }
        text.push(next);
    }
    text
}
