//! A year of flights, when the file is there: name it in FALCON_FLIGHTS (as lines of JSON).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::broker::{Broker, sha256, skip_lines};

/// The lines; `None` when the file is nowhere, which is said on standard error.
fn all_flights() -> Option<Vec<u8>> {
    if let Some(path) = std::env::var_os("FALCON_FLIGHTS") {
        let path = PathBuf::from(path);
        let read = std::fs::read(&path);
        return Some(read.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/flights.jsonl.gz");
    let shown = packed.display();
    if !packed.exists() {
        eprintln!("skipped: FALCON_FLIGHTS names no file, and there is no {shown}");
        return None;
    }
    let unpacking = Command::new("zcat")
        .arg(&packed)
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut unpacking) = unpacking else {
        eprintln!("skipped: there is no zcat to unpack {shown}");
        return None;
    };
    let mut bytes = Vec::new();
    let mut output = unpacking.stdout.take().expect("it is piped");
    output.read_to_end(&mut bytes).expect("zcat writes");
    assert!(unpacking.wait().expect("it is ours").success());
    Some(bytes)
}

#[test]
fn a_year_of_flights_comes_back_byte_for_byte_also_after_sigkill() {
    let Some(file) = all_flights() else { return };
    let records = file.split_inclusive(|byte| *byte == b'\n').count();
    let mut broker = Broker::start();
    broker.run(&["topic", "create", "flights", "--partitions", "1"]);
    let ran = broker.run_with(&["publish", "flights", "--file", "-"], &file);
    let expected = format!("{records} records");
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    broker.crash_and_restart();
    let from = |position: &str| {
        let args = ["subscribe", "flights", "--from", position, "--until-end"];
        sha256(&broker.run(&args).stdout)
    };
    assert_eq!(from("earliest"), sha256(&file));
    let late = records * 9 / 10;
    let rest = skip_lines(&file, late);
    assert_eq!(from(&format!("offset:{late}")), sha256(rest));
}
