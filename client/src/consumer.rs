//! Consumer groups, the client's side.
//!
//! Owns what a member of a group does. Promises: what it does not hold it does not hand out. Must not know: how the
//! broker decides.

pub mod member;
