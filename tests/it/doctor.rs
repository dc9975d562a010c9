//! `falcon doctor` on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
fn a_running_broker_does_not_mind() {
    let broker = Broker::start();
    let ran = doctor(&broker.data_dir(), &[]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    assert!(verdict(&ran, "folder").1.contains("a broker runs on it"));
}
