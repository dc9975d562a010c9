//! `falcon bench`: every kind of load runs, counts what it did, and leaves nothing behind.

use serde_json::Value;

use crate::broker::Broker;

fn report(broker: &Broker, args: &[&str]) -> Value {
    let ran = broker.run(&[&["bench"], args, &["--json"]].concat());
    serde_json::from_slice(&ran.stdout).expect("one JSON object")
}

fn measure(broker: &Broker, args: &[&str]) -> Value {
    let report = report(broker, args);
    assert!(report["records"].as_u64() > Some(0), "{args:?}: {report}");
    report
}

const SHORT: [&str; 4] = ["--duration", "300ms", "--warm-up", "100ms"];

#[test]
fn every_kind_of_load_is_measured_and_its_topic_goes() {
    let broker = Broker::start();
    let short = |args: &[&str]| measure(&broker, &[args, &SHORT].concat());

    let report = short(&["publish", "--publishers", "2", "--partitions", "4"]);
    assert!(report["ack"]["count"].as_u64() > Some(0), "{report}");
    let report = short(&["publish", "--rate", "200"]);
    assert_eq!(report["records"], report["ack"]["count"], "{report}");
    let report = short(&["latency", "--delivery"]);
    assert_eq!(report["ack"]["count"], report["delivery"]["count"]);
    let report = short(&["latency", "--rate", "100", "--delivery"]);
    assert_eq!(report["records"], 30, "{report}");
    assert_eq!(report["delivery"]["count"], 30, "{report}");
    short(&["scale", "--tasks", "8", "--connections", "2"]);
    short(&["fanout", "--subscribers", "3", "--size", "1KiB"]);
    let replay = ["replay", "--records", "5000", "--subscribers", "2"];
    let report = measure(&broker, &replay);
    assert_eq!(report["records"], 10_000);
    assert_eq!(report["value_bytes"], 1_000_000);

    let few = ["--members", "4", "--partitions", "10", "--rounds", "2"];
    let rebalanced = self::report(&broker, &[&["rebalance"][..], &few].concat());
    assert_eq!(rebalanced["rebalance"]["count"], 4, "{rebalanced}");

    let topics = broker.run(&["topic", "list", "--json"]);
    assert!(!String::from_utf8_lossy(&topics.stdout).contains("bench-"));
}

#[test]
fn a_topic_of_ones_own_is_read_as_it_is_and_stays() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "own", "--partitions", "1"]);
    broker.run_with(&["publish", "own", "--file", "-"], b"a\nbc\n");
    let report = measure(&broker, &["replay", "--topic", "own"]);
    assert_eq!(report["records"], 2);
    assert_eq!(report["value_bytes"], 3);
    let topics = broker.run(&["topic", "list", "--json"]);
    assert!(String::from_utf8_lossy(&topics.stdout).contains("own"));
}
