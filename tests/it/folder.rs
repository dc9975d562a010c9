//! Data folders that tests fill, damage and compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use falcon::io::{Disk, RealDisk};
use rustix::process::Signal;

use crate::broker::{Broker, Ran, Running, falcon, sha256, small_flights};

/// A broker whose segments are small, so that a little data fills several.
pub(crate) fn small_segments() -> Broker {
    Broker::start_set(&[
        ("FALCON_LIMITS_BATCH_BYTES_MAX", "64KiB"),
        ("FALCON_STORAGE_SEGMENT_BYTES", "1MiB"),
        ("FALCON_STORAGE_SPARE_SEGMENTS", "0"),
    ])
}

/// Flights in four partitions, an offset of a group, an empty topic.
pub(crate) fn fill(broker: &Broker) {
    let (path, _) = small_flights();
    broker.run(&["topic", "create", "flights", "--partitions", "4"]);
    broker.run(&["topic", "create", "empty"]);
    broker.run(&[
        "publish",
        "flights",
        "--file",
        &path,
        "--key-field",
        "tailnum",
        "--timestamp-field",
        "time_hour",
    ]);
    let set = ["offsets", "set", "billing", "flights", "--to", "offset:5"];
    broker.run(&[&set[..], &["--partition", "0"]].concat());
}

/// Fills more than the first segment of 8 MiB, and so several of those after it.
pub(crate) fn fill_segments(broker: &Broker) {
    broker.run(&["topic", "create", "bulk"]);
    let lines = (0..14_000).map(|n| format!("{n:08} {}\n", "x".repeat(991)));
    let lines: String = lines.collect();
    broker.run_with(&["publish", "bulk"], lines.as_bytes());
}

pub(crate) fn stop(broker: &mut Broker) {
    broker.signal(Signal::TERM);
    let ended = broker.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

pub(crate) fn kill(broker: &mut Broker) {
    broker.signal(Signal::KILL);
    broker.wait();
}

pub(crate) fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("journal/{number:016x}.seg"))
}

/// Inverts one bit.
pub(crate) fn flip(path: &Path, position: u64) {
    let file = RealDisk.open(path);
    let file = file.unwrap_or_else(|error| panic!("{error}: {}", error.source));
    let mut byte = [0];
    file.read_at(position, &mut byte).expect("a byte");
    file.write_at(position, &[byte[0] ^ 4])
        .expect("a writable file");
}

/// Where `needle` is in a file.
pub(crate) fn find(path: &Path, needle: &[u8]) -> u64 {
    let bytes = fs::read(path).expect("a readable file");
    let at = bytes.windows(needle.len()).position(|w| w == needle);
    at.expect("the needle is there") as u64
}

/// Every file with its hash and the time it was changed.
pub(crate) fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, (String, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let changed = fs::metadata(&path).and_then(|meta| meta.modified());
        let changed = changed.expect("a time");
        if path.is_dir() {
            found.append(&mut fingerprint(&path));
            found.insert(path, (String::new(), changed));
        } else {
            let hash = sha256(&fs::read(&path).expect("a readable file"));
            found.insert(path, (hash, changed));
        }
    }
    found
}

/// Runs a command on a folder; it may fail.
pub(crate) fn offline(args: &[&str]) -> Ran {
    Running::start(&mut falcon(args)).finish(b"")
}

pub(crate) fn verify(folder: &Path) -> Ran {
    let folder = folder.display().to_string();
    offline(&["verify", "--data-dir", &folder, "--json"])
}

/// `TOPIC/PARTITION` -> start, end, records, hash.
pub(crate) fn partitions(ran: &Ran) -> BTreeMap<String, (u64, u64, u64, String)> {
    let lines = ran.json();
    let found = lines.iter().filter_map(|line| {
        let partition = ["partition", "copied"]
            .into_iter()
            .find_map(|kind| line.get(kind))?;
        let number = |key: &str| partition[key].as_u64().expect("a number");
        let text = |key: &str| partition[key].as_str().expect("text").to_owned();
        let name = format!("{}/{}", text("topic"), number("partition"));
        let (start, end) = (number("log_start"), number("log_end"));
        Some((name, (start, end, number("records"), text("sha256"))))
    });
    found.collect()
}

/// The damages it names.
pub(crate) fn damages(ran: &Ran) -> Vec<serde_json::Value> {
    let lines = ran.json();
    let found = lines.iter().filter_map(|line| line.get("damage"));
    found.cloned().collect()
}

/// Checks that a command with `--json` failed with this code and one error that has these words.
#[track_caller]
pub(crate) fn expect_error(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}\n{}", ran.stderr, ran.text());
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("{\"error\":"), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?}: {}", ran.stderr);
    }
}
