//! A cut that comes with a write or a flush of the device.
//!
//! Windows between two flushes are too short for chance: a trap counts the device's own requests, and
//! springs within the window.

use fastrand::Rng;

use crate::round::Phase;

/// Where a trap springs, once enough flushes have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// The next flush does not happen.
    BeforeFlush,
    /// The next flush happens; whoever asked for it hears so, or not.
    AfterFlush { is_told: bool },
    /// After so many writes, or at the next flush if that comes before.
    AfterWrites(u32),
}

/// What to do with the flush that springs a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sprung {
    Before,
    After { is_told: bool },
}

/// Counts requests down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trap {
    /// Whether power goes then, or somebody is only told.
    pub(super) is_cut: bool,
    /// Flushes that pass.
    flushes: u32,
    edge: Edge,
}

impl Trap {
    pub(super) const fn new(flushes: u32, edge: Edge, is_cut: bool) -> Self {
        Self {
            is_cut,
            flushes,
            edge,
        }
    }

    /// Somewhere in what a broker does in this phase.
    pub(super) fn pick(phase: Phase, is_cut: bool, random: &mut Rng) -> Self {
        let flushes = match phase {
            Phase::Working => random.u32(0..30),
            Phase::Starting => random.u32(0..16),
            Phase::Stopping => random.u32(0..8),
        };
        Self::new(flushes, Edge::pick(random), is_cut)
    }

    /// A cut with the first flushes: right after a start, before the broker has synced much.
    pub(super) fn pick_at_once(random: &mut Rng) -> Self {
        let flushes = if random.bool() { 0 } else { random.u32(0..3) };
        Self::new(flushes, Edge::BeforeFlush, true)
    }

    /// Near the start of a file that has just got its name: its name becomes durable, its first
    /// groups, the end of the file before it.
    pub(super) fn pick_after_roll(is_cut: bool, random: &mut Rng) -> Self {
        Self::new(random.u32(0..6), Edge::pick(random), is_cut)
    }

    /// A flush was asked for; says what to do with it when the trap springs.
    pub(super) fn at_flush(&mut self) -> Option<Sprung> {
        if let Some(left) = self.flushes.checked_sub(1) {
            self.flushes = left;
            return None;
        }
        Some(match self.edge {
            Edge::BeforeFlush | Edge::AfterWrites(_) => Sprung::Before,
            Edge::AfterFlush { is_told } => Sprung::After { is_told },
        })
    }

    /// A write has reached the cache; answers whether the trap springs.
    pub(super) fn at_write(&mut self) -> bool {
        match &mut self.edge {
            Edge::AfterWrites(writes) if self.flushes == 0 => {
                *writes = writes.saturating_sub(1);
                *writes == 0
            }
            Edge::AfterWrites(_) | Edge::BeforeFlush | Edge::AfterFlush { .. } => false,
        }
    }
}

impl Edge {
    fn pick(random: &mut Rng) -> Self {
        match random.u8(0..4) {
            0 => Self::BeforeFlush,
            1 | 2 => Self::AfterFlush {
                is_told: random.bool(),
            },
            3.. => Self::AfterWrites(random.u32(1..8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_springs_at_the_flush_after_those_that_pass() {
        let edges = [
            (Edge::BeforeFlush, Sprung::Before),
            (Edge::AfterWrites(1), Sprung::Before),
            (
                Edge::AfterFlush { is_told: true },
                Sprung::After { is_told: true },
            ),
        ];
        for (edge, expected) in edges {
            let mut trap = Trap::new(2, edge, true);
            assert!(!trap.at_write());
            assert_eq!(trap.at_flush(), None);
            assert_eq!(trap.at_flush(), None);
            assert_eq!(trap.at_flush(), Some(expected));
        }
    }

    #[test]
    fn writes_count_when_the_flushes_have_passed() {
        let mut trap = Trap::new(1, Edge::AfterWrites(2), true);
        assert!(!trap.at_write() && !trap.at_write() && !trap.at_write());
        assert_eq!(trap.at_flush(), None);
        assert!(!trap.at_write());
        assert!(trap.at_write());
    }
}
