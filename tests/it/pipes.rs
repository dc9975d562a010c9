//! Pipes that close, and results kept apart from messages.

use std::io::{BufRead, BufReader};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, Running, small_flights};

#[test]
fn a_reader_that_has_enough_ends_the_command_quietly() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "flights"]);
    let (path, _) = small_flights();
    for _ in 0..4 {
        broker.run(&["publish", "flights", "--file", &path]);
    }
    let script = "\"$0\" subscribe flights --until-end | head -n 1; exit \"${PIPESTATUS[0]}\"";
    let ran = Running::start(
        Command::new("bash")
            .args(["-c", script, env!("CARGO_BIN_EXE_falcon")])
            .env("FALCON_SERVER", format!("falcon://{}", broker.address())),
    );
    let ran = ran.finish(b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.lines().len(), 1);
}

#[test]
fn results_are_on_standard_output_and_messages_are_not() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    let ran = broker.run_with(&["publish", "t", "--json"], b"a\nb\n");
    assert!(ran.stdout.is_empty());
    let summary: serde_json::Value = serde_json::from_str(&ran.stderr).expect("a JSON object");
    assert_eq!(summary["records"], 2);
    assert_eq!(summary["bytes"], 2);
    let ran = broker.try_run(&["topic", "describe", "nowhere", "--json"]);
    assert!(ran.stdout.is_empty());
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect("a JSON object");
    assert_eq!(error["error"]["code"], "unknown_topic");
    assert_eq!(error["error"]["exit_code"], 1);
    assert_eq!(error["error"]["why"], "topic \"nowhere\" does not exist");
    let remedy = "falcon topic list shows what there is";
    assert_eq!(error["error"]["remedy"], remedy);
}

#[test]
fn an_interrupted_command_ends_with_130_after_whole_lines() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    broker.run_with(&["publish", "t"], b"a\n");
    let args = ["subscribe", "t", "--from", "earliest"];
    let mut subscriber = Running::start(&mut broker.command(&args));
    let mut output = BufReader::new(subscriber.child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it prints");
    assert_eq!(line, "a\n");
    subscriber.child.stdout = Some(output.into_inner());
    let pid = i32::try_from(subscriber.child.id()).expect("a process id");
    kill_process(Pid::from_raw(pid).expect("not zero"), Signal::INT).expect("it runs");
    let ran = subscriber.finish(b"");
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(ran.stderr, "");
}
