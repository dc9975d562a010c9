//! Retention on the real binary: changeable at run time, and the disk follows.

use std::fmt::Write;
use std::path::Path;

use crate::broker::{Broker, eventually};

const MIB: u64 = 1 << 20;

fn broker() -> Broker {
    Broker::start_set(&[
        ("FALCON_LIMITS_BATCH_BYTES_MAX", "1MiB"),
        ("FALCON_STORAGE_SEGMENT_BYTES", "2MiB"),
        ("FALCON_STORAGE_RETENTION_CHECK_MS", "100"),
    ])
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("it is there");
    // A file may be renamed or removed between the listing and the look.
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

fn partition(broker: &Broker) -> (u64, u64) {
    let described = broker
        .run(&["topic", "describe", "events", "--json"])
        .json();
    let partition = &described[0]["partitions"][0];
    let number = |key: &str| partition[key].as_u64().expect("a number");
    (number("log_start"), number("high_watermark"))
}

fn lines(range: std::ops::Range<u64>) -> String {
    let mut text = String::new();
    for n in range {
        writeln!(text, "{n:08} {}", "x".repeat(991)).expect("a string takes everything");
    }
    text
}

#[test]
fn by_size_the_oldest_go_the_disk_follows_and_the_rest_stays_as_it_was() {
    let mut broker = broker();
    broker.run(&["topic", "create", "events", "--partitions", "1"]);
    broker.run_with(&["publish", "events"], lines(0..24_000).as_bytes());
    assert_eq!(
        partition(&broker),
        (0, 24_000),
        "nothing goes without a setting"
    );
    let journal = broker.data_dir().join("journal");
    assert!(folder_bytes(&journal) > 24 * MIB);

    broker.run(&["topic", "alter", "events", "--retention-bytes", "4MiB"]);
    eventually("old records are trimmed and their segments gone", || {
        partition(&broker).0 > 15_000 && folder_bytes(&journal) < 14 * MIB
    });
    let (log_start, high_watermark) = partition(&broker);
    let kept = (high_watermark - log_start) * 1_000;
    assert!(
        kept >= 4 * MIB,
        "only {kept} bytes were kept, 4 MiB were asked for"
    );
    assert_eq!(high_watermark, 24_000);

    for is_crash in [false, true] {
        if is_crash {
            broker.crash_and_restart();
        }
        assert!(
            partition(&broker).0 >= log_start,
            "trimmed records came back"
        );
        let (log_start, _) = partition(&broker);
        let ran = broker.run(&["subscribe", "events", "--from", "earliest", "--until-end"]);
        assert!(
            ran.text() == lines(log_start..24_000),
            "what is kept has changed"
        );
        let gone = broker.try_run(&["subscribe", "events", "--from", "offset:0", "--until-end"]);
        gone.expect_failure(1, &["offset 0", &log_start.to_string()]);
    }
    // Offsets go on where they were.
    let ran = broker.run_with(&["publish", "events", "--receipts"], b"next\n");
    assert_eq!(ran.text(), "0 24000\n");
}

#[test]
fn by_age_everything_goes_in_the_end_and_a_deleted_topic_at_once() {
    let broker = broker();
    broker.run(&["topic", "create", "events", "--partitions", "1"]);
    broker.run(&["topic", "create", "doomed", "--partitions", "1"]);
    broker.run_with(&["publish", "events"], lines(0..4_000).as_bytes());
    broker.run_with(&["publish", "doomed"], lines(0..8_000).as_bytes());
    broker.run(&["topic", "alter", "events", "--retention-age", "300ms"]);
    eventually("every record is too old", || {
        partition(&broker) == (4_000, 4_000)
    });
    broker.run(&["topic", "delete", "doomed"]);
    let journal = broker.data_dir().join("journal");
    eventually("the segments of both are gone", || {
        folder_bytes(&journal) < 8 * MIB
    });
    let ran = broker.run_with(&["publish", "events", "--receipts"], b"next\n");
    assert_eq!(ran.text(), "0 4000\n");
}

#[test]
fn a_topic_kept_for_ever_beside_a_busy_one_costs_no_more_than_its_records() {
    let mut broker = broker();
    broker.run(&["topic", "create", "events", "--partitions", "1"]);
    broker.run(&["topic", "create", "settings", "--partitions", "1"]);
    broker.run(&["topic", "alter", "events", "--retention-age", "200ms"]);
    let journal = broker.data_dir().join("journal");
    let settings = |broker: &Broker| {
        let args = ["subscribe", "settings", "--from", "earliest", "--until-end"];
        broker.run(&args).text().to_owned()
    };
    for round in 0..14 {
        broker.run_with(
            &["publish", "settings"],
            lines(round * 10..(round + 1) * 10).as_bytes(),
        );
        broker.run_with(&["publish", "events"], lines(0..2_000).as_bytes());
        if round % 5 == 4 {
            // In the middle of trimming, copying and reclaiming.
            broker.crash_and_restart();
            assert!(
                settings(&broker) == lines(0..(round + 1) * 10),
                "after the crash"
            );
        }
    }
    eventually("the disk holds little more than what is kept", || {
        folder_bytes(&journal) < 8 * MIB
    });
    for is_crash in [false, true] {
        if is_crash {
            broker.crash_and_restart();
        }
        assert!(
            settings(&broker) == lines(0..140),
            "what is kept has changed"
        );
    }
    let ran = broker.run_with(&["publish", "settings", "--receipts"], b"next\n");
    assert_eq!(ran.text(), "0 140\n");
}
