//! The table and what is said about it.

use std::fmt::Write;

use crate::metric::METRICS;
use crate::results::Results;

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
    _ = writeln!(
        text,
        "D: the peer's default durability, acked before it is on the device. F: full durability, acked after \
         it. Falcon has\nonly F. Medians of {} rounds of {} s; systems take turns within each load. What is \
         measured and why it is fair:\n[peers/README.md](peers/README.md). All figures: \
         [peers/results.json](peers/results.json).\n",
        results.rounds, results.seconds,
    );
    text.push_str(&table(results));
    text.push('\n');
    limits(results, &mut text);
    _ = writeln!(text, "\nMeasured {}.\n", results.machine);
    for (_, file, title) in super::chart::FAMILIES {
        _ = writeln!(text, "![{title}](peers/{file})");
    }
    text.push_str("\nServers, clients and settings (all else is default):\n\n");
    for measured in &results.systems {
        let version = measured.server.trim();
        _ = writeln!(
            text,
            "- {}: {version}, {}. {}.",
            measured.name,
            measured.client,
            capital(&measured.settings)
        );
    }
    text.push_str("- RabbitMQ F is missing: it has no mode that syncs before each ack.\n");
    for skipped in &results.skipped {
        _ = writeln!(text, "- Skipped: {skipped}.");
    }
    for failure in &results.failures {
        let load = failure
            .load
            .map_or_else(String::new, |load| format!(", {load:?}"));
        let reason = failure.reason.replace('\n', " ");
        let (round, name) = (failure.round, failure.system.name());
        _ = writeln!(text, "- Failed: {name}, round {round}{load}: {reason}");
    }
    text
}

/// The machine's own.
fn limits(results: &Results, text: &mut String) {
    let us = |value: Option<f64>| value.unwrap_or(0.0) * 1e6;
    _ = writeln!(
        text,
        "The machine alone, in the same run: 4 KiB write + fdatasync into blocks written before p50 {:.0} us, \
         p99 {:.0} us;\nround trip on loopback p50 {:.0} us, p99 {:.0} us; one TCP connection on loopback \
         {:.2} GB/s.",
        us(results.limit(|limits| limits.sync_p50)),
        us(results.limit(|limits| limits.sync_p99)),
        us(results.limit(|limits| limits.round_trip_p50)),
        us(results.limit(|limits| limits.round_trip_p99)),
        results.limit(|limits| limits.loopback).unwrap_or(0.0) / 1e9,
    );
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
