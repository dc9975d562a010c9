//! Log lines that peers cause: a few of each kind a second, the others are counted.
//!
//! Promises that a flood of bad handshakes fills no log, and that the next line says how many were left
//! out. Metrics count them all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// LIMIT: lines of a kind in a second.
const LINES_MAX: u32 = 10;
const SECOND_MS: u64 = 1000;

/// What was said lately, by kind.
#[derive(Debug, Default)]
pub struct Warnings {
    kinds: Mutex<BTreeMap<u16, Second>>,
}

/// A second of one kind.
#[derive(Debug, Default)]
struct Second {
    began_ms: u64,
    lines: u32,
    left_out: u64,
}

impl Warnings {
    /// Whether a line of this kind may be logged at this moment of the steady clock, and how many were left
    /// out before it. Kinds are error codes, or 0.
    pub(super) fn admit(&self, kind: u16, now_ms: u64) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let second = kinds.entry(kind).or_default();
        if now_ms.saturating_sub(second.began_ms) >= SECOND_MS {
            second.began_ms = now_ms;
            second.lines = 0;
        }
        if second.lines == LINES_MAX {
            second.left_out += 1;
            return None;
        }
        second.lines += 1;
        Some(std::mem::take(&mut second.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_of_a_kind_a_second_and_then_how_many_were_left_out() {
        let warnings = Warnings::default();
        let said = |kind, now_ms| warnings.admit(kind, now_ms);
        let first: Vec<_> = (0..25).map(|nth| said(3, 5000 + nth)).collect();
        assert_eq!(first.iter().flatten().count(), 10);
        assert_eq!(said(4, 5030), Some(0), "kinds are counted apart");
        assert_eq!(said(3, 5999), None);
        assert_eq!(said(3, 6000), Some(16));
        assert_eq!(said(3, 6001), Some(0));
    }
}
