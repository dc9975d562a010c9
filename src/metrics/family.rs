//! Numbers with a label whose values are known: arrays, so that counting needs no lookup by name.

use falcon_protocol::{ErrorCode, Kind};

use super::rejection::Rejection;
use super::value::Counter;

/// LIMIT: numbers of frame kinds are below this.
const KINDS_MAX: usize = 64;

/// One of something for each frame kind.
#[derive(Debug)]
pub struct ByKind<T>([T; KINDS_MAX]);

impl<T: Default> Default for ByKind<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> ByKind<T> {
    /// The one of a kind.
    pub fn of(&self, kind: Kind) -> &T {
        let found = self.0.get(usize::from(kind.number()));
        found.expect("a test says that every kind has a number below the limit")
    }
}

/// A counter for each error code.
#[derive(Debug)]
pub struct ByCode([Counter; ErrorCode::ALL.len()]);

impl Default for ByCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByCode {
    /// Counts one. Codes of a newer version are not ours to send.
    pub fn add(&self, code: ErrorCode) {
        let place = ErrorCode::ALL.iter().position(|known| *known == code);
        if let Some(counter) = place.and_then(|place| self.0.get(place)) {
            counter.add(1);
        }
    }

    /// Every code and how often it was sent.
    pub fn iter(&self) -> impl Iterator<Item = (ErrorCode, u64)> + '_ {
        let values = self.0.iter().map(Counter::value);
        ErrorCode::ALL.iter().copied().zip(values)
    }
}

/// A counter for each decision against a peer.
#[derive(Debug)]
pub struct ByRejection([Counter; Rejection::ALL.len()]);

impl Default for ByRejection {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByRejection {
    /// Counts one.
    pub fn add(&self, rejection: Rejection) {
        if let Some(counter) = self.0.get(rejection as usize) {
            counter.add(1);
        }
    }

    /// Every decision and how often it was taken.
    pub fn iter(&self) -> impl Iterator<Item = (Rejection, u64)> + '_ {
        let values = self.0.iter().map(Counter::value);
        Rejection::ALL.iter().copied().zip(values)
    }
}
