//! Data folders of other versions: older ones are served exactly, newer ones are not touched.
//!
//! `tests/fixtures/make-data-v1.sh` made the folder of format 1. Its hashes are kept here for good:
//! a version that does not serve exactly this has broken the upgrade.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::broker::{Broker, Running, falcon, sha256};
use crate::folder::{fingerprint, partitions, stop, verify};

/// Partition, log start, log end, SHA-256 of the log as `docs/STORAGE.md` defines it.
const LOGS: [(&str, u64, u64, &str); 7] = [
    (
        "empty/0",
        0,
        0,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (
        "flights/0",
        0,
        288,
        "7916e8c047caa8fa88e987c15e9f67d6e0703e8c588d03931bc9dfb011850468",
    ),
    (
        "flights/1",
        0,
        279,
        "9e983c97879e1b309c8a2946d3f6b3dcd2d218fede4a55bfb9edefdd0856b722",
    ),
    (
        "flights/2",
        0,
        275,
        "3fc2504fa07ad1da057bd50812b394b885fe8299592f027adebb0d423e92c7fc",
    ),
    (
        "packed/0",
        0,
        201,
        "e52269c5f746db12decb197b0d64cb495fbf3a5ec1b5407f467e15398802b78b",
    ),
    (
        "packed/1",
        0,
        200,
        "11b87bd96957e2e033696d63779ce473a34740f99c6790e3a7e6c1aacbb31a5f",
    ),
    (
        "trimmed/0",
        19503,
        24000,
        "29de75892f61a4b404044f57c201a89de255b83c54be8f90464dda3a8c007dc2",
    ),
];
/// SHA-256 of what `falcon subscribe TOPIC --partition N --from earliest --json` prints.
const SERVED: [(&str, &str, &str); 6] = [
    (
        "flights",
        "0",
        "62951bed7ad866461edd26c3672b50761695fe0a463b3950b7e86da84dea478c",
    ),
    (
        "flights",
        "1",
        "4f61e2e13d80822ed1119f1bfe54d9b243aa10233a19443dde83c87d6cd821ff",
    ),
    (
        "flights",
        "2",
        "36eee7ce01e417a2adb97f43a9a741028f6163fc4e26984d4886f78d717cf1d1",
    ),
    (
        "packed",
        "0",
        "e706470023c74cb94af6e0c11bb5b3b4f9dafa14948d0bcfdc078eeb904f04ee",
    ),
    (
        "packed",
        "1",
        "de2c3aa55e8d7f2662455728891951da489c59f6259024b32da39922e6696072",
    ),
    (
        "trimmed",
        "0",
        "7bbea2cd7002a6c181e977eb55ee19af3f886bcf0efec1b16e1f406a72040e35",
    ),
];

/// The folder as the version of then left it.
pub(crate) fn unpack(name: &str) -> Broker {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let packed = fixtures.join(name);
    unpack_into(&packed, &folder.path().join("data"));
    Broker::on(folder)
}

fn unpack_into(packed: &Path, to: &Path) {
    fs::create_dir(to).expect("a writable folder");
    for entry in fs::read_dir(packed).expect("the fixture is part of the sources") {
        let path = entry.expect("a readable folder").path();
        let target = to.join(path.file_stem().expect("a name"));
        if path.is_dir() {
            unpack_into(&path, &target);
        } else {
            let bytes = fs::read(&path).expect("a readable file");
            let bytes = zstd::decode_all(&bytes[..]).expect("it was compressed whole");
            fs::write(target, bytes).expect("a writable folder");
        }
    }
}

fn expect_logs(broker: &Broker) {
    let ran = verify(&broker.data_dir());
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    let found = partitions(&ran);
    assert_eq!(found.len(), LOGS.len());
    for (name, start, end, hash) in LOGS {
        assert_eq!(
            found[name],
            (start, end, end - start, hash.to_owned()),
            "{name}"
        );
    }
}

/// What both slots of IDENTITY say.
pub(crate) fn folder_formats(broker: &Broker) -> [u8; 2] {
    let bytes = fs::read(broker.data_dir().join("IDENTITY")).expect("a readable file");
    [bytes[12], bytes[512 + 12]]
}

#[test]
fn a_folder_of_format_1_is_served_exactly() {
    let mut broker = unpack("data-v1");
    expect_logs(&broker);
    assert_eq!(folder_formats(&broker), [1, 1], "verify changes nothing");
    broker.serve();
    for (topic, partition, hash) in SERVED {
        let subscribe = [
            "subscribe",
            topic,
            "--from",
            "earliest",
            "--until-end",
            "--json",
        ];
        let ran = broker.run(&[&subscribe[..], &["--partition", partition]].concat());
        assert_eq!(sha256(&ran.stdout), hash, "{topic}/{partition}");
    }
    let committed = |group: &str, topic: &str| {
        let lines = broker
            .run(&["offsets", "get", group, topic, "--json"])
            .json();
        let offsets = lines
            .iter()
            .filter_map(|line| Some((line["partition"].as_u64()?, line["offset"].as_u64()?)));
        offsets.collect::<Vec<_>>()
    };
    assert_eq!(committed("billing", "flights"), [(0, 17), (2, 23)]);
    assert_eq!(committed("audit", "packed"), [(1, 200)]);
    let topics = broker.run(&["topic", "list", "--json"]).json();
    let names: Vec<_> = topics.iter().map(|topic| topic["topic"].as_str()).collect();
    let expected = ["empty", "flights", "packed", "trimmed"].map(Some);
    assert_eq!(names, expected);
    stop(&mut broker);
    expect_logs(&broker);
    assert_eq!(
        folder_formats(&broker),
        [2, 2],
        "brokers of format 1 must refuse it now"
    );

    // It goes on where it was.
    broker.serve();
    for (name, _, end, _) in LOGS {
        let (topic, partition) = name.split_once('/').expect("a topic and a partition");
        let publish = ["publish", topic, "--receipts", "--partition", partition];
        let ran = broker.run_with(&publish, b"of a later version\n");
        assert_eq!(ran.text(), format!("{partition} {end}\n"));
    }
}

#[test]
fn a_folder_of_format_1_that_was_not_stopped_is_served_exactly() {
    let mut broker = unpack("data-v1");
    fs::remove_file(broker.data_dir().join("CLEAN")).expect("it was stopped orderly");
    expect_logs(&broker);
    broker.serve();
    broker.crash_and_restart();
    stop(&mut broker);
    expect_logs(&broker);
}

/// Writes a format's number and the checksum that fits it.
fn patch(path: &Path, format: u8, slots: &[usize], (number_at, crc_at): (usize, usize)) {
    let mut bytes = fs::read(path).expect("a readable file");
    for slot in slots {
        bytes[slot + number_at] = format;
        let crc = crc32fast::hash(&bytes[slot + crc_at + 4..slot + 64]);
        bytes[slot + crc_at..slot + crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(path, bytes).expect("a writable folder");
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let files = fingerprint(folder).into_iter();
    files.map(|(path, (hash, _))| (path, hash)).collect()
}

#[test]
fn a_newer_format_is_refused_and_not_touched() {
    let segment = "journal/0000000000000004.seg";
    for (file, format, slots, places) in [
        ("IDENTITY", 3, &[0, 512][..], (12, 8)),
        ("IDENTITY", 3, &[512][..], (12, 8)),
        (segment, 2, &[0][..], (8, 4)),
    ] {
        let broker = unpack("data-v1");
        patch(&broker.data_dir().join(file), format, slots, places);
        let before = contents(&broker.data_dir());
        let folder = broker.data_dir().display().to_string();
        let format = format!("format {format}");
        let words = [format.as_str(), "use a newer falcon"];
        let serve = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "off",
            "--data-dir",
        ];
        let serve = [&serve[..], &[&folder]].concat();
        let ran = Running::start(&mut falcon(&serve)).finish(b"");
        ran.expect_failure(1, &words);
        assert_eq!(contents(&broker.data_dir()), before, "{file}");
        let verify = ["verify", "--data-dir", &folder];
        let ran = Running::start(&mut falcon(&verify)).finish(b"");
        ran.expect_failure(2, &words);
        assert_eq!(contents(&broker.data_dir()), before, "{file}");
    }
}
