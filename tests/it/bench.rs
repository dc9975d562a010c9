//! `falcon bench`: every kind of load runs, counts what it did, and leaves nothing behind.

use serde_json::{Value, json};

use crate::broker::{Broker, Ran, Running, eventually};
use rustix::process::{Pid, Signal, kill_process};

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
    let owned = [&replay[..], &["--owned", "--partitions", "3"]].concat();
    let report = measure(&broker, &owned);
    assert_eq!(report["records"], 10_000);
    let in_place = [&replay[..], &["--partitions", "3"]].concat();
    let report = measure(&broker, &in_place);
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
    assert_eq!(report["load"]["size"], Value::Null, "{report}");
    let read = broker.run(&["bench", "replay", "--topic", "own"]);
    let text = read.text();
    assert!(text.contains("2 records of 1.5 bytes"), "{text}");
    for flag in ["--size", "--records", "--partitions"] {
        let wrong = broker.try_run(&["bench", "replay", "--topic", "own", flag, "1"]);
        wrong.expect_failure(2, &["--topic", flag]);
    }
    broker.run(&["topic", "create", "empty"]);
    let empty = broker.try_run(&["bench", "replay", "--topic", "empty"]);
    empty.expect_failure(1, &["empty", "no records"]);
    let topics = broker.run(&["topic", "list", "--json"]);
    assert!(String::from_utf8_lossy(&topics.stdout).contains("own"));
}

/// A run that would go on for an hour, and has measured something.
pub(crate) fn endless(broker: &Broker, args: &[&str]) -> Running {
    let long = ["--duration", "1h", "--warm-up", "0s"];
    running(broker, &[args, &long].concat())
}

/// A run that has published something.
fn running(broker: &Broker, args: &[&str]) -> Running {
    let mut command = broker.command(&[&["bench"], args].concat());
    let running = Running::start(&mut command);
    // A fan-out goes no further than this ahead of its subscribers.
    let enough = if args.contains(&"fanout") {
        20_000
    } else {
        200
    };
    eventually("records are published", || {
        let listed = broker.run(&["topic", "list", "--json"]).json();
        listed.iter().any(|topic| {
            let name = topic["topic"].as_str().expect("it has a name");
            let described = broker.try_run(&["topic", "describe", name, "--json"]);
            described.code == Some(0) && {
                let ends = described.json();
                let ends = ends[0]["partitions"]
                    .as_array()
                    .expect("they are listed")
                    .clone();
                ends.iter()
                    .any(|end| end["high_watermark"].as_u64() > Some(enough))
            }
        })
    });
    running
}

fn interrupt(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.child.id()).expect("a process id");
    let pid = Pid::from_raw(pid).expect("not zero");
    kill_process(pid, signal).expect("it is running");
}

fn partial(ran: &Ran) -> Value {
    let report = ran.json().pop().expect("what was measured is printed");
    assert_eq!(report["complete"], false, "{report}");
    assert!(report["records"].as_u64() > Some(0), "{report}");
    report
}

#[test]
fn an_interrupted_run_says_what_it_measured_and_deletes_its_topic() {
    let broker = Broker::start();
    let loads: [(&[&str], Signal); 4] = [
        (&["publish"], Signal::INT),
        (&["scale"], Signal::TERM),
        (&["fanout", "--subscribers", "3"], Signal::TERM),
        (&["latency", "--rate", "1000"], Signal::INT),
    ];
    for (args, signal) in loads {
        let running = endless(&broker, &[args, &["--json"]].concat());
        interrupt(&running, signal);
        let ran = running.finish(b"");
        assert_eq!(ran.code, Some(130), "{args:?}: {}", ran.stderr);
        partial(&ran);
        let topics = broker.run(&["topic", "list", "--json"]);
        assert!(!topics.text().contains("bench-"), "{args:?}");
    }
}

#[test]
fn an_interrupt_while_it_warms_up_says_that_nothing_was_measured() {
    let broker = Broker::start();
    for signal in [Signal::INT, Signal::TERM] {
        let running = running(&broker, &["publish", "--warm-up", "1h", "--json"]);
        interrupt(&running, signal);
        let ran = running.finish(b"");
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
        let report = ran.json().pop().expect("an object");
        assert_eq!(report["interrupted"], true, "{report}");
        assert_eq!(report["complete"], false, "{report}");
        assert_eq!(report["records"], 0, "{report}");
        assert_eq!(report["ack"], Value::Null, "{report}");
        let topics = broker.run(&["topic", "list", "--json"]);
        assert!(!topics.text().contains("bench-"), "{signal:?}");
    }
    let running = running(&broker, &["latency", "--warm-up", "1h"]);
    interrupt(&running, Signal::INT);
    let ran = running.finish(b"");
    assert!(
        ran.text().contains("nothing was measured"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_run_ends_when_its_broker_is_gone_and_says_what_stays() {
    for args in [&["publish"][..], &["latency"], &["scale"], &["fanout"]] {
        let mut broker = Broker::start();
        let running = endless(&broker, &[args, &["--timeout", "1s", "--json"]].concat());
        broker.signal(Signal::KILL);
        broker.wait();
        let ran = running.finish(b"");
        assert_eq!(ran.code, Some(3), "{args:?}: {}", ran.stderr);
        for words in ["the broker is gone", "--timeout", "topic_stays"] {
            assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
        }
        partial(&ran);
    }
}

#[test]
fn a_run_ends_when_its_broker_stands_still() {
    let mut broker = Broker::start();
    let running = endless(&broker, &["publish", "--timeout", "2s"]);
    broker.signal(Signal::STOP);
    let ran = running.finish(b"");
    broker.signal(Signal::KILL);
    broker.wait();
    // Its heartbeats may say first that it is gone.
    assert!(
        matches!(ran.code, Some(3 | 4)),
        "{:?}: {}",
        ran.code,
        ran.stderr
    );
    assert!(ran.text().contains("ended early"), "{}", ran.text());
    assert!(ran.stderr.contains("stays"), "{}", ran.stderr);
}

#[test]
fn a_run_survives_a_restart_and_counts_it() {
    let mut broker = Broker::start();
    let running = endless(&broker, &["latency", "--timeout", "100s"]);
    let until = broker.run(&["topic", "list", "--json"]);
    let name = until.json()[0]["topic"]
        .as_str()
        .expect("it has a name")
        .to_owned();
    broker.crash_and_come_back();
    let end = |broker: &Broker| {
        let described = broker.run(&["topic", "describe", &name, "--json"]).json();
        described[0]["partitions"][0]["high_watermark"].as_u64()
    };
    let before = end(&broker);
    eventually("it goes on", || end(&broker) > before);
    interrupt(&running, Signal::INT);
    let ran = running.finish(b"");
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    let said = "the connection was lost and made again 1 time";
    assert!(ran.text().contains(said), "{}", ran.text());
    assert!(
        ran.stderr.contains("the connection is back"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_rate_above_capacity_ends_with_the_duration_and_is_said() {
    let broker = Broker::start();
    for load in ["publish", "latency"] {
        let args = [
            "bench",
            load,
            "--rate",
            "100000000",
            "--duration",
            "1s",
            "--warm-up",
            "0s",
        ];
        let ran = broker.run(&args);
        let missed = "the rate was not reached:";
        assert!(ran.text().contains(missed), "{}", ran.text());
        assert!(
            ran.text().contains("of 100000000 records"),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let broker = Broker::start();
    let wrong: [&[&str]; 6] = [
        &["publish", "--duration", "0s"],
        &["publish", "--partitions", "0"],
        &["publish", "--size", "1TiB"],
        &["rebalance", "--members", "1"],
        &["fanout", "--size", "7"],
        &["latency", "--delivery", "--size", "7"],
    ];
    for args in wrong {
        let ran = broker.try_run(&[&["bench"], args].concat());
        ran.expect_failure(2, &[args[args.len() - 2]]);
    }
}

#[test]
fn a_rate_that_is_missed_says_how_far_it_was_behind_and_why() {
    let mut broker = Broker::start();
    let kept = report(
        &broker,
        &[&["publish", "--rate", "100"], &SHORT[..]].concat(),
    );
    assert_eq!(kept["schedule"]["limit"], Value::Null, "{kept}");
    // Its window is full soon after the broker stands still.
    let large = ["--rate", "1000", "--size", "64KiB", "--timeout", "2s"];
    let args = [&["publish", "--json"], &large[..]].concat();
    let running = endless(&broker, &args);
    broker.signal(Signal::STOP);
    let ran = running.finish(b"");
    broker.signal(Signal::KILL);
    broker.wait();
    let schedule = &partial(&ran)["schedule"];
    assert_eq!(schedule["reached"], false, "{schedule}");
    for behind in ["behind_us", "behind_max_us"] {
        assert!(schedule[behind].as_u64() > Some(1_000_000), "{schedule}");
    }
    assert!(
        schedule["window_full_share"].as_f64() > Some(0.0),
        "{schedule}"
    );
}

#[test]
fn what_it_was_asked_for_is_all_in_the_report() {
    let broker = Broker::start();
    let args = ["latency", "--rate", "100", "--delivery", "--size", "9"];
    let load = &report(&broker, &[&args, &SHORT[..]].concat())["load"];
    let expected = json!({
        "topic": null, "partitions": 1, "size": 9, "rate": 100, "delivery": true,
        "duration_ms": 300, "warm_up_ms": 100,
    });
    assert_eq!(*load, expected);
    let args = ["replay", "--records", "100", "--owned", "--partitions", "3"];
    let load = &report(&broker, &args)["load"];
    let expected = json!({
        "topic": null, "partitions": 3, "size": 100, "records": 100, "subscribers": 1, "owned": true,
    });
    assert_eq!(*load, expected);
    broker.run(&["topic", "create", "own", "--partitions", "2"]);
    broker.run_with(&["publish", "own", "--file", "-"], b"a\n");
    let load = &report(&broker, &["replay", "--topic", "own"])["load"];
    let expected = json!({"topic": "own", "partitions": 2, "subscribers": 1, "owned": false});
    assert_eq!(*load, expected);
}

#[test]
fn records_in_a_topic_of_ones_own_stay_and_that_is_said() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "own", "--partitions", "2"]);
    let args = ["bench", "publish", "--topic", "own"];
    let ran = broker.run(&[&args, &SHORT[..]].concat());
    let said = "the records of this run stay in the topic own";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let ran = broker.run(&[&args, &SHORT[..], &["--json"]].concat());
    assert!(ran.stderr.contains("records_stay"), "{}", ran.stderr);
    // These write nothing.
    for load in [
        &["replay"][..],
        &["rebalance", "--members", "2", "--rounds", "1"],
    ] {
        let ran = broker.run(&[&["bench"], load, &["--topic", "own"]].concat());
        assert!(!ran.stderr.contains("stay"), "{}", ran.stderr);
    }
    let fresh = broker.run(&[&["bench", "publish"], &SHORT[..]].concat());
    assert!(!fresh.stderr.contains("stay"), "{}", fresh.stderr);
}

#[test]
fn a_topic_that_does_not_fit_is_refused_with_what_to_do() {
    let broker = Broker::start();
    for load in [
        "publish",
        "replay",
        "latency",
        "fanout",
        "scale",
        "rebalance",
    ] {
        let none = broker.try_run(&["bench", load, "--topic", "none"]);
        let create = "falcon topic create none";
        none.expect_failure(1, &["none", create, "leave --topic out"]);
        let other = broker.try_run(&["bench", load, "--topic", "own", "--partitions", "4"]);
        other.expect_failure(2, &["--partitions", "--topic", "leave one of them out"]);
    }
}

#[test]
fn what_several_subscribers_read_is_told_for_each() {
    let broker = Broker::start();
    let fanout = ["bench", "fanout", "--subscribers", "2"];
    let ran = broker.run(&[&fanout[..], &SHORT].concat());
    assert!(
        ran.text().contains("all 2 subscribers together; each:"),
        "{}",
        ran.text()
    );
}
