//! The table and what is said about it.

use std::fmt::Write;

use crate::metric::METRICS;
use crate::results::Results;

const WIDTH: usize = 118;

/// Systems as columns, medians as rows.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::from("| |");
    for measured in &results.systems {
        _ = write!(text, " {} |", measured.name);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(results.systems.len()));
    text.push('\n');
    for metric in METRICS {
        let systems = results.systems.iter();
        let medians = systems.map(|measured| results.median(measured.system, metric));
        let medians: Vec<_> = medians.collect();
        if medians.iter().all(Option::is_none) {
            continue;
        }
        _ = write!(text, "| {} |", metric.label());
        for median in medians {
            _ = match median {
                Some(value) => write!(text, " {} |", metric.text(value)),
                None => write!(text, " - |"),
            };
        }
        text.push('\n');
    }
    text
}

/// Everything between the markers.
pub(crate) fn section(results: &Results) -> String {
    let mut text = String::from("\n## Beside its peers\n\n");
    text.push_str(&wrap(&format!(
        "D: the peer's default durability, acked before it is on the device. F: full durability, acked after it. \
         Falcon has only F. Medians of {} measurements of {} s each; systems take turns within each load. What is \
         measured, and why it is fair: [peers/README.md](peers/README.md). All figures: \
         [peers/results.json](peers/results.json).",
        results.rounds, results.seconds,
    )));
    text.push('\n');
    text.push_str(&table(results));
    text.push('\n');
    text.push_str(&wrap(&limits(results)));
    text.push('\n');
    text.push_str(&wrap(&format!("Measured {}.", results.machine)));
    text.push('\n');
    for (_, file, title) in super::chart::FAMILIES {
        _ = writeln!(text, "![{title}](peers/{file})");
    }
    text.push_str("\nServers, clients and settings (all else is default):\n\n");
    for line in notes(results) {
        text.push_str(&wrap(&line));
    }
    text
}

/// What was run, and what was not.
fn notes(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for measured in &results.systems {
        let (name, server, client) = (measured.name, &measured.server, &measured.client);
        lines.push(format!(
            "- {name}: {server}, {client}; {}.",
            measured.settings
        ));
    }
    lines.push("- RabbitMQ F is missing: it has no mode that syncs before each ack.".to_owned());
    for skipped in &results.skipped {
        lines.push(format!("- Skipped: {skipped}."));
    }
    for failure in &results.failures {
        let (round, name) = (failure.round, failure.system.name());
        let (load, reason) = (failure.load, &failure.reason);
        lines.push(format!(
            "- Failed: {name}, measurement {round}, {load:?}: {reason}."
        ));
    }
    lines
}

/// Lines of a list item or paragraph, at most as wide as documents are; words are not split.
fn wrap(text: &str) -> String {
    let indent = if text.starts_with("- ") { "\n  " } else { "\n" };
    let (mut wrapped, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let next = word.chars().count();
        if width > 0 && width + 1 + next > WIDTH {
            wrapped.push_str(indent);
            width = indent.len() - 1;
        } else if width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        wrapped.push_str(word);
        width += next;
    }
    wrapped + "\n"
}

/// The machine's own.
fn limits(results: &Results) -> String {
    let us = |value: Option<f64>| value.unwrap_or(0.0) * 1e6;
    format!(
        "The machine alone, in the same run: 4 KiB write + fdatasync into blocks written before p50 {:.0} us, \
         p99 {:.0} us; round trip on loopback p50 {:.0} us, p99 {:.0} us; one TCP connection on loopback {:.2} \
         GB/s.",
        us(results.limit(|limits| limits.sync_p50)),
        us(results.limit(|limits| limits.sync_p99)),
        us(results.limit(|limits| limits.round_trip_p50)),
        us(results.limit(|limits| limits.round_trip_p99)),
        results.limit(|limits| limits.loopback).unwrap_or(0.0) / 1e9,
    )
}
