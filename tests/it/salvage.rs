//! `falcon salvage`: the same records at the same offsets, what is lost stays lost and is said.

use std::path::Path;

use crate::broker::{Broker, Ran};
use crate::folder::{
    expect_error, fill, fill_segments, find, fingerprint, flip, kill, offline, partitions, segment,
    small_segments, stop, verify,
};

fn salvage(from: &Path, to: &Path) -> Ran {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    offline(&["salvage", "--data-dir", &from, "--out", &to, "--json"])
}

/// Puts the copy where the broker's folder was.
fn swap(broker: &Broker, copy: &Path) {
    let folder = broker.data_dir();
    std::fs::rename(&folder, folder.with_extension("damaged")).expect("a writable folder");
    std::fs::rename(copy, &folder).expect("a writable folder");
}

#[test]
fn a_sound_folder_is_copied_whole_and_goes_on() {
    let mut broker = small_segments();
    fill(&broker);
    fill_segments(&broker);
    broker.run(&["topic", "alter", "flights", "--retention-age", "30d"]);
    let receipts = broker.run_with(
        &["publish", "flights", "--receipts", "--partition", "3"],
        b"x\n",
    );
    let next = receipts
        .text()
        .trim()
        .rsplit(' ')
        .next()
        .map(str::parse::<u64>);
    let next = next.expect("a receipt").expect("a number") + 1;
    let topics = broker
        .run(&["topic", "describe", "flights", "--json"])
        .json();
    let offsets = broker
        .run(&["offsets", "get", "billing", "flights", "--json"])
        .stdout;
    let read = |broker: &Broker, topic| {
        broker
            .run(&[
                "subscribe",
                topic,
                "--from",
                "earliest",
                "--until-end",
                "--json",
            ])
            .stdout
    };
    let bulk = read(&broker, "bulk");
    stop(&mut broker);
    let before = fingerprint(&broker.data_dir());
    let copy = broker.data_dir().with_extension("copy");
    let ran = salvage(&broker.data_dir(), &copy);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    assert_eq!(before, fingerprint(&broker.data_dir()));
    let verified = verify(&copy);
    assert_eq!(
        verified.code,
        Some(0),
        "{}\n{}",
        verified.stderr,
        verified.text()
    );
    assert_eq!(
        partitions(&verified),
        partitions(&verify(&broker.data_dir()))
    );
    assert_eq!(partitions(&verified), partitions(&ran));

    expect_error(&salvage(&broker.data_dir(), &copy), 2, &["not empty"]);
    swap(&broker, &copy);
    broker.serve();
    let same = broker
        .run(&["topic", "describe", "flights", "--json"])
        .json();
    assert_eq!(same, topics);
    let same = broker
        .run(&["offsets", "get", "billing", "flights", "--json"])
        .stdout;
    assert_eq!(same, offsets);
    assert!(read(&broker, "bulk") == bulk, "records changed");
    let receipt = broker.run_with(
        &["publish", "flights", "--receipts", "--partition", "3"],
        b"y\n",
    );
    assert_eq!(receipt.text(), format!("3 {next}\n"));
}

#[test]
fn holes_stay_holes_and_are_refused() {
    let mut broker = small_segments();
    broker.run(&["topic", "create", "t", "--partitions", "3"]);
    for n in 0..10 {
        let line = format!("value-{n}-\n");
        broker.run_with(&["publish", "t", "--partition", "0"], line.as_bytes());
    }
    broker.run_with(&["publish", "t", "--partition", "1"], b"only-one-\n");
    broker.run_with(&["publish", "t", "--partition", "2"], b"sound\n");
    stop(&mut broker);
    let path = segment(&broker.data_dir(), 1);
    // In the middle, at the end, and all of a partition.
    for needle in ["value-4-", "value-9-", "only-one-"] {
        flip(&path, find(&path, needle.as_bytes()));
    }
    let copy = broker.data_dir().with_extension("copy");
    let ran = salvage(&broker.data_dir(), &copy);
    expect_error(&ran, 1, &["records lost: 3"]);
    let lost: Vec<_> = ran
        .json()
        .iter()
        .filter_map(|l| l.get("lost").cloned())
        .collect();
    let lost = lost.iter().filter(|l| l["topic"] == "t");
    let ranges = lost.map(|l| (l["partition"].clone(), l["from"].clone(), l["to"].clone()));
    let ranges: Vec<_> = ranges.collect();
    let expected = [(0, 4, 5), (0, 9, 10), (1, 0, 1)];
    let expected =
        expected.map(|(p, from, to): (u64, u64, u64)| (p.into(), from.into(), to.into()));
    assert_eq!(ranges, expected);
    let hashes = partitions(&ran);
    assert_eq!(partitions(&verify(&copy)), hashes);

    swap(&broker, &copy);
    // Also after the copy's broker was killed.
    for is_crash in [false, true] {
        if is_crash {
            broker.crash_and_restart();
        } else {
            broker.serve();
        }
        let read = |partition: &str, from: &str| {
            let subscribe = ["subscribe", "t", "--until-end", "--partition", partition];
            broker.try_run(&[&subscribe[..], &["--from", from]].concat())
        };
        let ran = read("0", "offset:0");
        assert_eq!(ran.text(), "value-0-\nvalue-1-\nvalue-2-\nvalue-3-\n");
        ran.expect_failure(1, &["records 4..5"]);
        let ran = read("0", "offset:5");
        assert_eq!(ran.text(), "value-5-\nvalue-6-\nvalue-7-\nvalue-8-\n");
        ran.expect_failure(1, &["records 9..10"]);
        read("1", "offset:0").expect_failure(1, &["records 0..1"]);
        assert_eq!(read("2", "earliest").text(), "sound\n");
    }
    for (partition, next) in [("0", 10), ("1", 1), ("2", 1)] {
        let publish = ["publish", "t", "--receipts", "--partition", partition];
        let ran = broker.run_with(&publish, b"next\n");
        assert_eq!(ran.text(), format!("{partition} {next}\n"));
    }
}

#[test]
fn a_folder_without_identity_or_with_a_segment_gone_can_be_saved() {
    let mut broker = small_segments();
    fill(&broker);
    fill_segments(&broker);
    stop(&mut broker);
    let flights = partitions(&verify(&broker.data_dir()));
    for position in [20, 532] {
        flip(&broker.data_dir().join("IDENTITY"), position);
    }
    std::fs::remove_file(segment(&broker.data_dir(), 2)).expect("a writable folder");
    let copy = broker.data_dir().with_extension("copy");
    let ran = salvage(&broker.data_dir(), &copy);
    expect_error(&ran, 1, &["records lost: "]);
    let saved = partitions(&ran);
    assert_eq!(saved["flights/2"], flights["flights/2"]);
    let (bulk, whole) = (&saved["bulk/0"], &flights["bulk/0"]);
    assert_eq!((bulk.0, bulk.1), (whole.0, whole.1));
    assert!(bulk.2 > 10_000 && bulk.2 < 14_000, "{bulk:?}");
    swap(&broker, &copy);
    broker.serve();
    let ran = broker.run(&["subscribe", "flights", "--from", "earliest", "--until-end"]);
    assert_eq!(ran.lines().len(), 842);
}

#[test]
fn offsets_of_a_lost_tail_stay_taken_also_when_nothing_is_committed_before_the_next_crash() {
    let mut broker = small_segments();
    broker.run(&["topic", "create", "t"]);
    for n in 0..10 {
        broker.run_with(&["publish", "t"], format!("value-{n}-\n").as_bytes());
    }
    stop(&mut broker);
    let path = segment(&broker.data_dir(), 1);
    let at = usize::try_from(find(&path, b"value-5-")).expect("a position");
    let whole = std::fs::read(&path).expect("a readable file");
    std::fs::write(&path, &whole[..at]).expect("a writable folder");
    broker.serve();
    kill(&mut broker);
    broker.serve();
    let ran = broker.run_with(&["publish", "t", "--receipts"], b"next\n");
    assert_eq!(ran.text(), "0 10\n");
}
