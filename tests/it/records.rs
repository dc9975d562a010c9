//! Publish and subscribe through the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};

use rustix::process::Signal;
use serde_json::Value;

use crate::broker::{Broker, Running, sha256, skip_lines, small_flights};

fn with_topic(partitions: &str) -> Broker {
    let broker = Broker::start();
    broker.run(&["topic", "create", "flights", "--partitions", partitions]);
    broker
}

fn read_all(broker: &Broker) -> Vec<u8> {
    let args = ["subscribe", "flights", "--from", "earliest", "--until-end"];
    broker.run(&args).stdout
}

#[test]
fn a_file_comes_back_byte_for_byte_also_after_sigkill() {
    let mut broker = with_topic("1");
    let (path, file) = small_flights();
    let ran = broker.run(&["publish", "flights", "--file", &path]);
    assert!(ran.stdout.is_empty());
    assert!(ran.stderr.contains("842 records"), "{}", ran.stderr);
    assert_eq!(sha256(&read_all(&broker)), sha256(&file));
    broker.crash_and_restart();
    assert_eq!(sha256(&read_all(&broker)), sha256(&file));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code, Some(0));
    broker.serve();
    assert_eq!(sha256(&read_all(&broker)), sha256(&file));
}

#[test]
fn receipts_come_in_input_order_and_what_they_promise_survives_sigkill() {
    let mut broker = with_topic("1");
    let (_, file) = small_flights();
    let ran = broker.run_with(&["publish", "flights", "--receipts"], &file);
    let expected: Vec<String> = (0..842).map(|offset| format!("0 {offset}")).collect();
    assert_eq!(ran.lines(), expected);
    broker.crash_and_restart();
    let args = ["publish", "flights", "--receipts", "--json"];
    let receipts = broker.run_with(&args, b"one more").json();
    assert_eq!(receipts[0]["partition"], 0);
    assert_eq!(receipts[0]["offset"], 842);
}

#[test]
fn replay_starts_at_an_offset_a_time_or_the_last_records() {
    let broker = with_topic("1");
    let (path, file) = small_flights();
    let time = ["--timestamp-field", "time_hour"];
    broker.run(&[&["publish", "flights", "--file", &path][..], &time].concat());
    let from = |position: &str| {
        let args = ["subscribe", "flights", "--from", position, "--until-end"];
        broker.run(&args).stdout
    };
    assert_eq!(from("offset:800"), skip_lines(&file, 800));
    assert_eq!(from("offset:842"), b"");
    assert_eq!(from("last:10"), skip_lines(&file, 832));
    assert_eq!(from("last:100000"), file);
    assert_eq!(from("latest"), b"");

    let hour = "2013-01-01T20:00:00Z";
    let is_from_then = |line: &str| {
        let flight: Value = serde_json::from_str(line).expect("a flight is JSON");
        flight["time_hour"].as_str() >= Some(hour)
    };
    let text = String::from_utf8(file.clone()).expect("flights are text");
    let first = text.lines().position(is_from_then).expect("some left then");
    assert_eq!(from(&format!("time:{hour}")), skip_lines(&file, first));
    assert_eq!(from("time:2030-01-01T00:00:00Z"), b"");

    let args = ["subscribe", "flights", "--from", "offset:5", "--count", "2"];
    let two = broker.run(&args).stdout;
    assert_eq!(two.split_inclusive(|byte| *byte == b'\n').count(), 2);
    assert!(skip_lines(&file, 5).starts_with(&two));
}

#[test]
fn keys_keep_each_aircrafts_flights_in_order() {
    let broker = with_topic("8");
    let (path, file) = small_flights();
    broker.run(&[
        "publish",
        "flights",
        "--file",
        &path,
        "--key-field",
        "tailnum",
    ]);
    let by_aircraft = |text: &str| {
        let mut flights: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let flight: Value = serde_json::from_str(line).expect("a flight is JSON");
            if let Some(tailnum) = flight["tailnum"].as_str() {
                let flights = flights.entry(tailnum.into()).or_default();
                flights.push(line.into());
            }
        }
        flights
    };
    let read = String::from_utf8(read_all(&broker)).expect("flights are text");
    let file = String::from_utf8(file).expect("flights are text");
    assert_eq!(read.lines().count(), 842);
    assert_eq!(by_aircraft(&read), by_aircraft(&file));

    let args = ["subscribe", "flights", "--until-end", "--json"];
    let mut homes: BTreeMap<String, u64> = BTreeMap::new();
    for record in broker.run(&args).json() {
        if let Some(key) = record["key"].as_str() {
            let partition = record["partition"].as_u64().expect("a number");
            assert_eq!(*homes.entry(key.into()).or_insert(partition), partition);
        }
    }
    let used: BTreeSet<&u64> = homes.values().collect();
    assert_eq!(used.len(), 8, "all partitions are used");
}

#[test]
fn a_partition_can_be_named() {
    let broker = with_topic("3");
    broker.run_with(&["publish", "flights", "--partition", "2"], b"a\nb\n");
    let read = ["subscribe", "flights", "--until-end", "--partition"];
    let of = |partition| broker.try_run(&[&read[..], &[partition]].concat());
    assert_eq!(of("2").stdout, b"a\nb\n");
    assert_eq!(of("1").code, Some(0));
    assert_eq!(of("1").stdout, b"");
    of("3").expect_failure(1, &["partition 3", "below 3"]);
    let ran = broker.try_run_with(&["publish", "flights", "--partition", "3"], b"a\n");
    ran.expect_failure(1, &["partition 3", "below 3"]);
}

#[test]
fn any_bytes_are_a_record_with_every_compression() {
    let input = b"\n\xff\xfe\0\n  spaces \r\n\nlast without end";
    let broker = Broker::start();
    for compression in ["none", "lz4", "zstd"] {
        broker.run(&["topic", "create", compression]);
        let args = ["publish", compression, "--compression", compression];
        broker.run_with(&args, input);
        let ran = broker.run(&["subscribe", compression, "--until-end"]);
        assert_eq!(ran.stdout, [&input[..], b"\n"].concat());
    }
}

#[test]
fn json_shows_text_as_text_and_other_bytes_as_base64() {
    let broker = with_topic("1");
    let line = r#"{"id":17,"at":"2013-01-01T10:00:00Z"}"#;
    let fields = ["--key-field", "id", "--timestamp-field", "at"];
    broker.run_with(
        &[&["publish", "flights"][..], &fields].concat(),
        line.as_bytes(),
    );
    broker.run_with(&["publish", "flights"], b"\xff\xfe");
    let args = ["subscribe", "flights", "--until-end", "--json"];
    let records = broker.run(&args).json();
    assert_eq!(records.len(), 2);
    let expected = serde_json::json!({
        "topic": "flights", "partition": 0, "offset": 0, "timestamp_ms": 1_357_034_400_000_u64,
        "key": "17", "value": line, "headers": [],
    });
    assert_eq!(records[0], expected);
    assert_eq!(records[1]["value_base64"], "//4=");
    assert_eq!(records[1].get("value"), None);
    assert_eq!(records[1].get("key_base64"), None);
    assert_eq!(records[1]["key"], Value::Null);
}

#[test]
fn a_key_field_that_no_record_had_is_said() {
    let broker = with_topic("1");
    let args = ["publish", "flights", "--key-field", "nope"];
    let ran = broker.run_with(&args, b"{\"id\":1}\n");
    assert!(ran.stderr.contains("\"nope\": all went without a key"));
    assert!(
        ran.stderr.contains("published 1 record, "),
        "{}",
        ran.stderr
    );
    let ran = broker.run_with(&args, b"{\"id\":1}\n{\"nope\":2}\n");
    assert!(!ran.stderr.contains("nope"), "{}", ran.stderr);
}

#[test]
fn a_broker_that_is_gone_is_said() {
    let mut broker = with_topic("1");
    let commands = [
        &["publish", "flights", "--receipts"][..],
        &["subscribe", "flights", "--from", "earliest"],
    ];
    let mut running = commands.map(|args| {
        let mut running = Running::start(&mut broker.command(args));
        if args[0] == "publish" {
            let input = running.child.stdin.as_mut().expect("it is piped");
            input.write_all(b"a\n").expect("it reads");
        }
        let output = running.child.stdout.as_mut().expect("it is piped");
        let mut byte = [0];
        output.read_exact(&mut byte).expect("it is at work");
        running
    });
    broker.signal(Signal::KILL);
    broker.wait();
    for running in &mut running {
        let messages = running.child.stderr.as_mut().expect("it is piped");
        let mut line = String::new();
        BufReader::new(messages)
            .read_line(&mut line)
            .expect("it is text");
        assert!(line.starts_with("falcon: the connection is lost"), "{line}");
        running.child.kill().expect("it runs");
        running.child.wait().expect("it is ours");
    }
}

#[test]
fn a_line_without_json_is_named_and_those_before_it_are_durable() {
    let mut broker = with_topic("1");
    let input = b"{\"id\":1}\n{\"id\":2}\nnot json\n{\"id\":4}\n";
    let ran = broker.try_run_with(&["publish", "flights", "--key-field", "id"], input);
    ran.expect_failure(1, &["publish: line 3 ", "JSON"]);
    broker.crash_and_restart();
    assert_eq!(read_all(&broker), b"{\"id\":1}\n{\"id\":2}\n");
}

#[test]
fn a_subscriber_follows_what_is_published_later() {
    let broker = with_topic("2");
    let args = ["subscribe", "flights", "--from", "earliest", "--count", "3"];
    let subscriber = Running::start(&mut broker.command(&args));
    for line in ["a", "b", "c"] {
        broker.run_with(&["publish", "flights"], line.as_bytes());
    }
    let ran = subscriber.finish(b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut lines = ran.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "c"]);
}

#[test]
fn an_empty_topic_ends_at_once_and_waiting_has_a_limit() {
    let broker = with_topic("2");
    assert_eq!(read_all(&broker), b"");
    let args = ["subscribe", "flights", "--timeout", "300ms"];
    let ran = broker.try_run(&args);
    ran.expect_failure(4, &["no record", "--timeout"]);
}
