//! `falcon doctor` on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use crate::broker::{Broker, Ran, Running, falcon};

fn doctor(folder: &Path, more: &[&str]) -> Ran {
    let folder = folder.display().to_string();
    let args = [&["doctor", "--data-dir", &folder, "--json"], more].concat();
    Running::start(&mut falcon(&args)).finish(b"")
}

/// The verdict of a check and all that it says.
fn verdict(ran: &Ran, check: &str) -> (String, String) {
    let lines = ran.json();
    let line = lines.iter().find(|line| line["check"] == check);
    let line = line.unwrap_or_else(|| panic!("no {check} in {}", ran.text()));
    let verdict = line["verdict"].as_str().expect("text");
    (verdict.to_owned(), line.to_string())
}

#[test]
fn it_looks_at_everything_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = doctor(
        &folder.path().join("data"),
        &["--set", "storage.free_floor_bytes=0"],
    );
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    for check in [
        "folder",
        "file system",
        "sync",
        "space",
        "open files",
        "threads",
        "clock",
        "kernel",
    ] {
        let (verdict, line) = verdict(&ran, check);
        assert_ne!(verdict, "fail", "{line}");
    }
    let left = std::fs::read_dir(folder.path()).expect("a readable folder");
    assert_eq!(left.count(), 0, "it left something");
}

#[test]
fn it_fails_where_a_broker_would_refuse_publishes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = doctor(folder.path(), &["--set", "storage.free_floor_bytes=1TiB"]);
    let (space, line) = verdict(&ran, "space");
    assert_eq!((ran.code, space.as_str()), (Some(1), "fail"), "{line}");
    assert!(ran.stderr.contains("failed: space"), "{}", ran.stderr);
}

#[test]
fn it_names_what_others_may_do_and_limits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).expect("it is ours");
    let ran = doctor(folder.path(), &[]);
    assert_eq!(verdict(&ran, "folder").0, "warn", "{}", ran.text());
    if let Some(max) = falcon::io::environment::open_files_max().filter(|max| *max < 65_000) {
        let ran = doctor(folder.path(), &["--set", "limits.connections_max=65536"]);
        let (verdict, line) = verdict(&ran, "open files");
        assert_eq!(verdict, "warn", "{line}");
        assert!(line.contains(&max.to_string()), "{line}");
    }
    if Path::new("/dev/shm").is_dir() {
        let ran = doctor(Path::new("/dev/shm/falcon-none"), &[]);
        let (verdict, line) = verdict(&ran, "file system");
        assert_eq!(verdict, "warn", "{line}");
        assert!(line.contains("tmpfs"), "{line}");
    }
}

#[test]
fn a_folder_that_a_broker_refuses_is_not_ok() {
    let mut broker = Broker::start();
    broker.signal(Signal::TERM);
    broker.wait();
    let folder = broker.data_dir();
    assert_eq!(verdict(&doctor(&folder, &[]), "folder").0, "ok");
    let identity = folder.join("IDENTITY");
    let good = std::fs::read(&identity).expect("it is there");
    // Both slots of a later format, with checksums that fit.
    let mut newer = good.clone();
    for at in [0, 512] {
        newer[at + 12] = 9;
        let crc = crc32fast::hash(&newer[at + 12..at + 64]);
        newer[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    damaged[532] ^= 1;
    for (bytes, words) in [(newer, "newer than"), (damaged, "is damaged")] {
        std::fs::write(&identity, bytes).expect("it is ours");
        let ran = doctor(&folder, &[]);
        let (verdict, line) = verdict(&ran, "folder");
        assert_eq!((ran.code, verdict.as_str()), (Some(1), "fail"), "{line}");
        assert!(line.contains(words), "{line}");
    }
    std::fs::remove_file(&identity).expect("it is ours");
    assert_eq!(verdict(&doctor(&folder, &[]), "folder").0, "fail");
    let (verdict, line) = verdict(&doctor(&folder.join("LOCK"), &[]), "folder");
    assert_eq!(verdict, "fail", "{line}");
    assert!(line.contains("is no folder"), "{line}");
}

#[test]
fn mends_are_said_and_a_file_in_the_place_of_the_index_is_replaced() {
    let mut broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    broker.run_with(&["publish", "t"], b"one\n");
    broker.signal(Signal::TERM);
    broker.wait();
    for (name, at) in [("IDENTITY", 20), ("CLEAN", 30)] {
        let path = broker.data_dir().join(name);
        let mut bytes = std::fs::read(&path).expect("it is there");
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("it is ours");
    }
    let index = broker.data_dir().join("index");
    std::fs::remove_dir_all(&index).expect("it is ours");
    std::fs::write(&index, b"no folder").expect("it is ours");
    broker.serve();
    let read = broker.run(&["subscribe", "t", "--from", "earliest", "--count", "1"]);
    assert!(read.text().contains("one"), "{}", read.text());
    // The index is opened beside the running broker; a stop waits for it.
    broker.signal(Signal::TERM);
    let log = broker.wait().log;
    for words in [
        "one of the two copies of the identity is damaged",
        "the clean-stop marker is damaged",
        "the index is built again from the footers",
    ] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
    assert!(index.is_dir());
}

#[test]
fn a_running_broker_does_not_mind() {
    let broker = Broker::start();
    let ran = doctor(&broker.data_dir(), &[]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    assert!(verdict(&ran, "folder").1.contains("a broker runs on it"));
}
