//! Results for people: a table, notes, plots.
//!
//! Owns the section of the page between its markers. Promises: nothing outside the markers changes. Must not
//! know: how figures come about.

mod chart;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use chart::charts;
pub(crate) use table::table;

use crate::peers::System;
use crate::results::Results;

const BEGIN: &str = "<!-- peers:begin -->";
const END: &str = "<!-- peers:end -->";

/// Writes the section; makes the page where there is none.
pub(crate) fn page(results: &Results, path: &Path) -> Result<()> {
    let section = format!("{BEGIN}\n{}\n{END}", table::section(results));
    let known = std::fs::read_to_string(path).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    let page = match (known.split_once(BEGIN), known.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
        _ => format!("{}\n\n{section}\n", known.trim_end()),
    };
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

/// The client of a system and its version, as locked.
pub(crate) fn client(system: System) -> String {
    let name = match system.family() {
        "nats" => "async-nats",
        "redis" => "redis",
        "rabbit" => "rabbitmq-stream-client",
        _ => "falcon-client",
    };
    let lock = include_str!("../Cargo.lock");
    let package = lock.split_once(&format!("name = \"{name}\"\nversion = \""));
    let version = package.and_then(|(_, rest)| rest.split('"').next());
    format!("{name} {}", version.unwrap_or_default())
}
