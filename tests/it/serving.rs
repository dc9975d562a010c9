//! Start, signals, log and configuration of `falcon serve`.

use std::io::Write;

use rustix::process::Signal;

use crate::broker::{Broker, Running, falcon};

#[test]
fn a_signal_drains_and_exits_0_with_one_line_on_standard_output() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start();
        broker.run(&["topic", "create", "t"]);
        broker.signal(signal);
        let ended = broker.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert_eq!(ended.lines, Vec::<String>::new());
    }
}

#[test]
fn the_log_is_json_on_request() {
    let mut broker = Broker::start_with(&["--log-format", "json", "--log-level", "debug"]);
    broker.run(&["topic", "create", "t"]);
    broker.signal(Signal::TERM);
    let ended = broker.wait();
    assert!(!ended.log.is_empty());
    for line in ended.log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(event["level"].is_string(), "{line}");
        assert!(event["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = "[limits]\ntopics_max = 7\nconnections_max = 7\nproducers_max = 7\n";
    file.write_all(text.as_bytes()).expect("a writable file");
    let mut command = falcon(&["config", "--set", "limits.topics_max=9", "--config"]);
    command.arg(file.path());
    command.env("FALCON_LIMITS_TOPICS_MAX", "8");
    command.env("FALCON_LIMITS_CONNECTIONS_MAX", "8");
    let ran = Running::start(&mut command).finish(b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for (setting, from) in [
        ("topics_max = 9", "--set"),
        ("connections_max = 8", "FALCON_LIMITS_CONNECTIONS_MAX"),
        ("producers_max = 7", "line 4"),
        ("partitions_max = 100000", "default"),
    ] {
        let lines = ran.lines();
        let line = lines.iter().find(|line| line.starts_with(setting));
        assert!(
            line.is_some_and(|line| line.contains(from)),
            "{}",
            ran.text()
        );
    }
    let mut command = falcon(&["config", "--check"]);
    command.env("FALCON_LIMITS_TOPICS", "8");
    let ran = Running::start(&mut command).finish(b"");
    ran.expect_failure(2, &["FALCON_LIMITS_TOPICS"]);
}

#[test]
fn a_limit_on_topics_holds() {
    let broker = Broker::start_with(&["--set", "limits.topics_max=1"]);
    broker.run(&["topic", "create", "one"]);
    let ran = broker.try_run(&["topic", "create", "two"]);
    ran.expect_failure(1, &["limit_reached"]);
    broker.run(&["topic", "delete", "one"]);
    broker.run(&["topic", "create", "two"]);
}
