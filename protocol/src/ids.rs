//! Identifiers and the rules for names.

use core::fmt;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits;

/// Position of a record in its partition: dense, starting at 0, the same for everybody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset `records` further on; saturates at the end of the number range.
    #[must_use]
    pub const fn advance(self, records: u64) -> Self {
        Self(self.0.saturating_add(records))
    }

    /// How many records lie between `earlier` and this offset; 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a topic, never used again after the topic is deleted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct TopicId(pub u32);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a partition within its topic, `0..partitions`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: Partition,
}

impl PartitionId {
    /// Partition `partition` of topic `topic`.
    pub const fn new(topic: u32, partition: u32) -> Self {
        Self {
            topic: TopicId(topic),
            partition: Partition(partition),
        }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Identity of an idempotent publisher, allocated by the broker; 0 means "not idempotent".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ProducerId(pub u64);

impl ProducerId {
    /// A publisher that does not ask for idempotence.
    pub const NONE: Self = Self(0);

    /// Whether batches of this publisher carry sequences.
    pub const fn is_idempotent(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one consumer in its group, chosen by the client at random: a retry is the same member.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct MemberId(pub u128);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Number of a grant of one partition to one member of a group; the latest fences the older. 0 is none.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct OwnerEpoch(pub u64);

impl fmt::Display for OwnerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("the name is empty")]
    Empty,
    /// Too long.
    #[error("the name has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Length given.
        bytes: usize,
        /// Length allowed.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("the name contains {character:?}, allowed are letters, digits, '.', '_' and '-'")]
    Character {
        /// The first one found.
        character: char,
    },
    /// Dots at the ends or next to each other.
    #[error("the name has an empty word: dots separate words and may not stand at an end or twice")]
    EmptyWord,
}

/// Checks a topic name: 1 to 200 of `A-Z a-z 0-9 . _ -`, dots separating non-empty words.
pub fn check_topic_name(name: &str) -> Result<(), NameError> {
    check_name(name, limits::TOPIC_NAME_BYTES_MAX)
}

/// Checks a consumer group name: the rules of a topic name.
pub fn check_group_name(name: &str) -> Result<(), NameError> {
    check_name(name, limits::GROUP_NAME_BYTES_MAX)
}

/// Checks a publisher name: the rules of a topic name.
pub fn check_publisher_name(name: &str) -> Result<(), NameError> {
    check_name(name, limits::PUBLISHER_NAME_BYTES_MAX)
}

fn check_name(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            bytes: name.len(),
            max,
        });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(character) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character { character });
    }
    if name.split('.').any(str::is_empty) {
        return Err(NameError::EmptyWord);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_empty_words_are_refused() {
        for bad in [
            "", ".", "..", "a/b", "../etc", "a..b", ".a", "a.", "a b", "ä", "a\0",
        ] {
            assert!(check_topic_name(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "orders", "payments.eu-1.captured_v2", "0"] {
            assert_eq!(check_topic_name(good), Ok(()));
        }
        assert!(check_topic_name(&"x".repeat(200)).is_ok());
        assert!(check_topic_name(&"x".repeat(201)).is_err());
    }
}
