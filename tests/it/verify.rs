//! `falcon verify` on folders that are sound, damaged, in use.

use std::fs;

use crate::broker::Broker;
use crate::folder::{
    damages, expect_error, fill, fill_segments, find, fingerprint, flip, kill, offline, partitions,
    segment, small_segments, stop, verify,
};

#[track_caller]
fn expect_clean(broker: &Broker) -> crate::broker::Ran {
    let before = fingerprint(&broker.data_dir());
    let ran = verify(&broker.data_dir());
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    assert_eq!(damages(&ran), Vec::<serde_json::Value>::new());
    assert_eq!(ran.stderr, "");
    assert!(before == fingerprint(&broker.data_dir()), "it was changed");
    ran
}

#[test]
fn a_sound_folder_is_clean_after_every_kind_of_stop_and_stays_as_it_is() {
    let mut broker = small_segments();
    fill(&broker);
    fill_segments(&broker);
    stop(&mut broker);
    let stopped = expect_clean(&broker);
    let found = partitions(&stopped);
    assert_eq!(found.len(), 6);
    assert_eq!(found["bulk/0"].1, 14_000);
    assert_eq!(found["empty/0"].2, 0);
    let flights: u64 = (0..4).map(|p| found[&format!("flights/{p}")].2).sum();
    assert_eq!(flights, 842);

    broker.serve();
    kill(&mut broker);
    let killed = expect_clean(&broker);
    assert!(killed.text().contains("\"was_clean\":false"));
    assert_eq!(partitions(&killed), found);

    broker.serve();
    broker.run_with(&["publish", "bulk"], b"one more\n");
    kill(&mut broker);
    let more = partitions(&expect_clean(&broker));
    assert_eq!(more["bulk/0"].2, 14_001);
    assert_ne!(more["bulk/0"].3, found["bulk/0"].3);
    assert_eq!(more["flights/0"], found["flights/0"]);
}

#[test]
fn the_hash_knows_records_and_not_batches() {
    let hash = |compression: &str, is_one_by_one: bool| {
        let mut broker = small_segments();
        broker.run(&["topic", "create", "t"]);
        let publish = [
            "publish",
            "t",
            "--compression",
            compression,
            "--timestamp-field",
            "t",
        ];
        let lines = (0..20).map(|n| format!("{{\"t\":{n},\"text\":\"same\"}}\n"));
        if is_one_by_one {
            for line in lines {
                broker.run_with(&publish, line.as_bytes());
            }
        } else {
            broker.run_with(&publish, lines.collect::<String>().as_bytes());
        }
        stop(&mut broker);
        partitions(&expect_clean(&broker))["t/0"].3.clone()
    };
    let plain = hash("none", false);
    assert_eq!(hash("zstd", false), plain);
    assert_eq!(hash("none", true), plain);
    assert_eq!(plain.len(), 64);
}

#[test]
fn a_flipped_bit_is_named_by_partition_and_offsets() {
    let mut broker = small_segments();
    broker.run(&["topic", "create", "t", "--partitions", "2"]);
    for n in 0..10 {
        let line = format!("value-{n}-\n");
        broker.run_with(&["publish", "t", "--partition", "1"], line.as_bytes());
    }
    for is_clean in [true, false] {
        if is_clean {
            stop(&mut broker);
        } else {
            broker.serve();
            kill(&mut broker);
        }
        let path = segment(&broker.data_dir(), 1);
        let at = find(&path, b"value-6-");
        flip(&path, at);
        let before = fingerprint(&broker.data_dir());
        let ran = verify(&broker.data_dir());
        expect_error(&ran, 1, &["records lost: 1", "salvage"]);
        let damages = damages(&ran);
        let lost: Vec<_> = damages.iter().filter(|d| d["kind"] == "records").collect();
        assert_eq!(lost.len(), 1, "{damages:?}");
        assert_eq!(lost[0]["file"], "journal/0000000000000001.seg");
        assert_eq!(
            (&lost[0]["topic"], &lost[0]["partition"]),
            (&"t".into(), &1.into())
        );
        assert_eq!((&lost[0]["from"], &lost[0]["to"]), (&6.into(), &7.into()));
        let position = lost[0]["position"].as_u64().expect("a position");
        assert!(position < at && at - position < 200, "{position} of {at}");
        assert_eq!(partitions(&ran)["t/1"].2, 9);
        assert_eq!(before, fingerprint(&broker.data_dir()));
        flip(&path, at);
        expect_clean(&broker);
    }
}

#[test]
fn damage_in_the_middle_of_many_segments_is_named() {
    let mut broker = small_segments();
    fill_segments(&broker);
    stop(&mut broker);
    let sound = partitions(&expect_clean(&broker));
    let folder = broker.data_dir();
    let restore = |path: &std::path::Path, bytes: &[u8]| {
        fs::write(path, bytes).expect("a writable folder");
        assert_eq!(partitions(&verify(&folder)), sound);
    };

    // A bit in the middle of a sealed segment.
    let path = segment(&folder, 2);
    let whole = fs::read(&path).expect("a readable file");
    flip(&path, 600_000);
    let ran = verify(&folder);
    assert_eq!(ran.code, Some(1));
    let found = damages(&ran);
    let lost = found
        .iter()
        .find(|d| d["kind"] == "records")
        .expect("lost records");
    assert_eq!(lost["file"], "journal/0000000000000002.seg");
    assert!(lost["from"].as_u64() > Some(8_000) && lost["to"].as_u64() < Some(10_000));
    restore(&path, &whole);

    // A segment cut short.
    fs::write(&path, &whole[..500_000]).expect("a writable folder");
    let ran = verify(&folder);
    assert_eq!(ran.code, Some(1));
    let found = damages(&ran);
    assert!(
        found
            .iter()
            .any(|d| d["kind"] == "rot" && d["file"] == "journal/0000000000000002.seg"),
        "{found:?}"
    );
    let lost = found
        .iter()
        .find(|d| d["kind"] == "records")
        .expect("lost records");
    assert_eq!(lost["file"], "journal/0000000000000002.seg");
    let cut = (lost["from"].clone(), lost["to"].clone());

    // A segment that is gone.
    fs::remove_file(&path).expect("a writable folder");
    let ran = verify(&folder);
    assert_eq!(ran.code, Some(1));
    let found = damages(&ran);
    let missing = found.iter().filter(|d| d["kind"] == "segment_missing");
    let missing: Vec<_> = missing.collect();
    assert!(
        missing
            .iter()
            .all(|d| d["file"] == "journal/0000000000000002.seg"),
        "{found:?}"
    );
    let lost = missing
        .iter()
        .find(|d| d["topic"] == "bulk")
        .expect("lost records");
    assert!(lost["from"].as_u64() < cut.0.as_u64() && lost["to"] == cut.1);
    restore(&path, &whole);

    // The last segment cut behind the clean-stop marker's back.
    let last = (1..100)
        .take_while(|n| segment(&folder, *n).exists())
        .last();
    let path = segment(&folder, last.expect("segments"));
    let whole = fs::read(&path).expect("a readable file");
    fs::write(&path, &whole[..10_000]).expect("a writable folder");
    let found = damages(&verify(&folder));
    let ends = found
        .iter()
        .any(|d| d["to"] == 14_000 && d["topic"] == "bulk");
    assert!(ends, "{found:?}");
    restore(&path, &whole);
}

#[test]
fn damage_that_costs_no_record_is_named_too() {
    let mut broker = small_segments();
    fill_segments(&broker);
    stop(&mut broker);
    let folder = broker.data_dir();
    let sound = partitions(&expect_clean(&broker));
    let first = segment(&folder, 1);
    let summary = find(&first, b"FFT1");
    for (path, position, kind) in [
        (folder.join("IDENTITY"), 20, "identity_slot"),
        (folder.join("CLEAN"), 40, "marker"),
        (first.clone(), 33, "segment_header"),
        (first.clone(), 520, "seal"),
        (first.clone(), summary + 20, "footer"),
        (first.clone(), summary + 200, "footer"),
    ] {
        flip(&path, position);
        let ran = verify(&folder);
        expect_error(&ran, 1, &["records lost: 0"]);
        let found = damages(&ran);
        assert!(found.iter().any(|d| d["kind"] == kind), "{kind}: {found:?}");
        assert_eq!(partitions(&ran), sound);
        flip(&path, position);
    }
    // Every byte of the index is derived, so losing it costs nothing.
    let index = folder.join("index/db");
    let whole = fs::read(&index).expect("a readable file");
    fs::write(&index, b"garbage").expect("a writable folder");
    let ran = verify(&folder);
    assert_eq!(ran.code, Some(1));
    assert_eq!(damages(&ran)[0]["kind"], "index");
    assert!(ran.text().contains("no record is lost"), "{}", ran.text());
    assert_eq!(partitions(&ran), sound);
    fs::write(&index, whole).expect("a writable folder");
    expect_clean(&broker);
}

#[test]
fn it_keeps_away_from_a_running_broker_and_from_what_is_no_data_folder() {
    let mut broker = small_segments();
    let folder = broker.data_dir().display().to_string();
    for command in [
        &["verify", "--data-dir", &folder][..],
        &["salvage", "--data-dir", &folder, "--out", "/nowhere"][..],
    ] {
        offline(command).expect_failure(2, &["another broker uses the folder"]);
    }
    stop(&mut broker);
    let empty = tempfile::tempdir().expect("a temporary folder");
    let path = empty.path().display().to_string();
    offline(&["verify", "--data-dir", &path]).expect_failure(2, &["holds no falcon data"]);
    offline(&["verify", "--data-dir", "/no/such/folder"]).expect_failure(2, &["is no folder"]);
    let left = fs::read_dir(empty.path())
        .expect("a readable folder")
        .count();
    assert_eq!(left, 0, "it left something");
}
