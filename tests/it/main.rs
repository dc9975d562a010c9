//! Whole-system tests: the real binary, real sockets, a fresh folder and a free port each.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by a panic that it failed"
)]

mod admin;
mod backpressure;
mod bench;
mod broker;
mod consumer;
mod crash;
mod doctor;
mod exposition;
mod flights;
mod folder;
mod following;
mod format_2;
mod formats;
mod groups;
mod hoarding;
mod hostile;
mod loaded;
mod memory;
mod peer;
mod pipes;
mod reading_ahead;
mod readme;
mod records;
mod rejections;
mod retention;
mod salvage;
mod serving;
mod steps;
mod tidy;
mod verify;
mod watching;
mod wrong_use;
