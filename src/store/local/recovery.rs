//! Finding out what a folder holds.
//!
//! Promises: what was acknowledged is never cut, damage is named, and what was found depends only on
//! the bytes. Two passes: [`survey`] finds extents, damage and the end of the journal; [`replay`]
//! hands rows and batches from the newest whole snapshot on to the owner of the tables. Must not
//! know: what the rows mean.

mod ends;
mod footers;
mod heads;
mod last_word;
mod replay;
mod survey;

pub(super) use footers::{check_footer, read_footer, visit_extents};
pub(super) use heads::check_heads;
pub(super) use last_word::{LastWord, is_outlived, missing};
pub(super) use replay::replay;
pub(super) use survey::{Flaw, FlawKind, Given, Survey, survey};
