//! Topic patterns of a consumer: `orders`, `payments.*`, `payments.>`.
//!
//! Owns their grammar and what they fit. Words are separated by dots; `*` stands for exactly one
//! word, `>` at the end for one or more. Promises: a pattern without wildcards fits the topic of
//! that name and no other. Must not know: which topics there are.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use falcon_protocol::limits::TOPIC_PATTERN_BYTES_MAX;
use thiserror::Error;

/// Stands for one word.
const ONE: &str = "*";
/// Stands for the rest, at least one word.
const REST: &str = ">";

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing in it.
    #[error("the pattern is empty")]
    Empty,
    /// Too long.
    #[error("the pattern has {bytes} bytes, at most {TOPIC_PATTERN_BYTES_MAX} are allowed")]
    TooLong {
        /// Length given.
        bytes: usize,
    },
    /// Dots at the ends or next to each other.
    #[error(
        "the pattern has an empty word: dots separate words and may not stand at an end or twice"
    )]
    EmptyWord,
    /// A wildcard is part of a word.
    #[error("{word:?} mixes a wildcard with other characters: '*' and '>' stand for whole words")]
    PartOfWord {
        /// The word.
        word: String,
    },
    /// Something follows the rest.
    #[error("'>' stands for all words that are left, so nothing may follow it")]
    RestNotLast,
    /// A character that no topic name has.
    #[error(
        "the pattern contains {character:?}, allowed are letters, digits, '.', '_', '-', and '*' or '>' as words"
    )]
    Character {
        /// The first one found.
        character: char,
    },
}

/// A pattern that was checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a topic of this name is meant.
    pub fn fits(&self, topic: &str) -> bool {
        let mut words = topic.split('.');
        for wanted in self.0.split('.') {
            let Some(word) = words.next() else {
                return false;
            };
            if wanted == REST {
                return true;
            }
            if wanted != ONE && wanted != word {
                return false;
            }
        }
        words.next().is_none()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > TOPIC_PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong { bytes: text.len() });
        }
        let mut is_after_rest = false;
        for word in text.split('.') {
            if is_after_rest {
                return Err(PatternError::RestNotLast);
            }
            check_word(word)?;
            is_after_rest = word == REST;
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_word(word: &str) -> Result<(), PatternError> {
    if word.is_empty() {
        return Err(PatternError::EmptyWord);
    }
    if word == ONE || word == REST {
        return Ok(());
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*' | '>');
    if let Some(character) = word.chars().find(|c| !is_allowed(*c)) {
        return Err(PatternError::Character { character });
    }
    if word.contains(['*', '>']) {
        let word = word.to_owned();
        return Err(PatternError::PartOfWord { word });
    }
    Ok(())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
