//! What became of the inputs.

use std::fmt;

use crate::decoder::{Decoder, Refusal};

/// Of so many inputs one must be accepted.
const ACCEPTED_ONE_IN: u64 = 50;
/// Of so many inputs one must be refused by each reason that is expected.
const REFUSED_ONE_IN: u64 = 5_000;

/// Counts of one decoder, or of several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tried.
    pub inputs: u64,
    /// Of them, accepted.
    pub accepted: u64,
    /// The others, by reason.
    pub refused: Vec<(Refusal, u64)>,
    /// Most bytes that one input made a decoder and its check hold at a time.
    pub memory_bytes_max: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, verdict: Result<(), Refusal>, memory_bytes: u64) {
        self.inputs += 1;
        self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes);
        match verdict {
            Ok(()) => self.accepted += 1,
            Err(refusal) => self.refuse(refusal, 1),
        }
    }

    fn refuse(&mut self, refusal: Refusal, count: u64) {
        match self.refused.iter_mut().find(|(known, _)| *known == refusal) {
            Some((_, counted)) => *counted += count,
            None => self.refused.push((refusal, count)),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.accepted += other.accepted;
        self.memory_bytes_max = self.memory_bytes_max.max(other.memory_bytes_max);
        for (refusal, count) in &other.refused {
            self.refuse(*refusal, *count);
        }
    }

    /// How often inputs were refused by this.
    pub fn count(&self, refusal: Refusal) -> u64 {
        let found = self.refused.iter().find(|(known, _)| *known == refusal);
        found.map_or(0, |(_, count)| *count)
    }

    /// Fails when a decoder was only knocked at.
    pub(crate) fn check(&self, decoder: &dyn Decoder) {
        let name = decoder.name();
        let least = self.inputs / ACCEPTED_ONE_IN;
        assert!(
            self.accepted >= least,
            "{name}: only {} accepted, want {least}: {self}",
            self.accepted
        );
        for refusal in decoder.expected() {
            let least = 1.max(self.inputs / REFUSED_ONE_IN);
            let count = self.count(*refusal);
            assert!(
                count >= least,
                "{name}: refused as {refusal} {count} times, want {least}: {self}"
            );
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} inputs, {} accepted", self.inputs, self.accepted)?;
        let mut refused = self.refused.clone();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (refusal, count) in refused {
            write!(f, ", {refusal} {count}")?;
        }
        write!(f, "; held {} bytes at most", self.memory_bytes_max)
    }
}
