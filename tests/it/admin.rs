//! Topics and committed offsets through the command line, and the demo.

use crate::broker::{Broker, Running, falcon, sha256, small_flights};

#[test]
fn topics_are_created_listed_described_changed_and_deleted() {
    let mut broker = Broker::start();
    let retention = ["--retention-age", "7d", "--retention-bytes", "10GiB"];
    let create = ["topic", "create", "orders", "--partitions", "3"];
    let ran = broker.run(&[&create[..], &retention].concat());
    let created = "created orders with 3 partitions, retention age 7d, retention bytes 10GiB";
    assert_eq!(ran.lines(), [created]);
    let created = broker.run(&["topic", "create", "audit", "--json"]).json();
    assert_eq!(created[0]["topic"], "audit");
    assert_eq!(created[0]["partitions"], 1);

    broker.crash_and_restart();
    let topics = broker.run(&["topic", "list", "--json"]).json();
    let names: Vec<_> = topics.iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(names, ["audit", "orders"]);
    assert_eq!(topics[1]["partitions"], 3);
    assert_eq!(topics[1]["retention_age_ms"], 604_800_000);
    assert_eq!(topics[1]["retention_bytes"], 10_737_418_240_u64);
    assert_eq!(broker.run(&["topic", "list"]).lines().len(), 3);

    let alter = [
        "topic",
        "alter",
        "orders",
        "--retention-age",
        "none",
        "--partitions",
        "4",
    ];
    let altered = "altered orders: 4 partitions, retention age none, retention bytes 10GiB";
    assert_eq!(broker.run(&alter).lines(), [altered]);
    broker.run_with(&["publish", "orders", "--partition", "3"], b"a\nb\n");
    let topics = broker
        .run(&["topic", "describe", "orders", "--json"])
        .json();
    assert!(topics[0]["retention_age_ms"].is_null());
    assert_eq!(topics[0]["retention_bytes"], 10_737_418_240_u64);
    assert_eq!(topics[0]["partitions"][3]["high_watermark"], 2);
    assert_eq!(topics[0]["partitions"][0]["high_watermark"], 0);

    broker.run(&["topic", "delete", "orders"]);
    let ran = broker.try_run(&["topic", "describe", "orders"]);
    ran.expect_failure(1, &["orders", "falcon topic list"]);
}

#[test]
fn wrong_topics_are_refused_with_the_reason() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "orders", "--partitions", "2"]);
    let ran = broker.try_run(&["topic", "create", "orders"]);
    ran.expect_failure(1, &["topic_exists"]);
    let ran = broker.try_run(&["topic", "create", "a/b"]);
    ran.expect_failure(2, &["a/b"]);
    let ran = broker.try_run(&["topic", "create", "x", "--partitions", "0"]);
    ran.expect_failure(2, &["--partitions"]);
    let ran = broker.try_run(&["topic", "alter", "orders", "--partitions", "1"]);
    ran.expect_failure(1, &["partitions"]);
}

#[test]
fn a_duration_without_a_unit_changes_nothing() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "orders"]);
    for args in [
        &["topic", "alter", "orders", "--retention-age", "1"][..],
        &["topic", "create", "x", "--retention-age", "7"],
        &["topic", "list", "--timeout", "1"],
    ] {
        broker
            .try_run(args)
            .expect_failure(2, &["7d, 12h, 90s, 500ms"]);
    }
    let topics = broker.run(&["topic", "list", "--json"]).json();
    assert_eq!(topics.len(), 1);
    assert!(topics[0]["retention_age_ms"].is_null());
}

#[test]
fn committed_offsets_are_set_read_listed_and_deleted() {
    let mut broker = Broker::start();
    broker.run(&["topic", "create", "orders", "--partitions", "2"]);
    broker.run_with(&["publish", "orders", "--partition", "0"], b"a\nb\nc\n");
    assert_eq!(broker.run(&["offsets", "list"]).lines().len(), 0);
    let set = ["offsets", "set", "billing", "orders", "--to"];
    let ran = broker.run(&[&set[..], &["latest"]].concat());
    assert_eq!(ran.lines(), ["0 3", "1 0"]);
    broker.run(&[&set[..], &["offset:1", "--partition", "0"]].concat());

    broker.crash_and_restart();
    let ran = broker.run(&["offsets", "get", "billing", "orders"]);
    assert_eq!(ran.lines(), ["0 1", "1 0"]);
    assert_eq!(broker.run(&["offsets", "list"]).lines(), ["billing"]);
    let offsets = broker.run(&["offsets", "list", "billing", "--json"]).json();
    assert_eq!(offsets[0]["offset"], 1);
    assert_eq!(offsets[0]["lag"], 2);

    let ran = broker.try_run(&[&set[..], &["offset:9", "--partition", "0"]].concat());
    ran.expect_failure(1, &["offset"]);
    broker.run(&["offsets", "delete", "billing"]);
    let ran = broker.try_run(&["offsets", "get", "billing", "orders"]);
    ran.expect_failure(1, &["offsets list"]);
    let ran = broker.try_run(&["offsets", "list", "billing"]);
    ran.expect_failure(1, &["billing", "falcon offsets list"]);
}

#[test]
fn the_demo_passes_its_own_checks() {
    let ran = Running::start(&mut falcon(&["demo"])).finish(b"");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.stderr);
    assert!(
        ran.text().contains("10 of 10 checks passed"),
        "{}",
        ran.text()
    );
    let ran = Running::start(&mut falcon(&["demo", "--json"])).finish(b"");
    let figures = ran.json();
    assert_eq!(figures[0]["records"], 842);
    assert_eq!(figures[0]["sha256"], sha256(&small_flights().1));
}
