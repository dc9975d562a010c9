//! The admin port: metrics that move as they should, readiness with reasons, and strangers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use falcon::metrics::TABLE;
use falcon_protocol::message::*;
use falcon_protocol::*;
use rustix::process::Signal;

use crate::broker::{Broker, Running, eventually, falcon};
use crate::exposition::Scrape;
use crate::folder::{fill_segments, find, flip, segment, small_segments, stop};
use crate::peer::{Peer, batch, publish_frame};

/// Head and body of what comes back.
fn http(address: &str, request: &[u8]) -> (String, String) {
    let mut socket = TcpStream::connect(address).expect("the admin port listens");
    socket
        .set_read_timeout(Some(Duration::from_mins(1)))
        .expect("valid");
    socket.write_all(request).expect("sent");
    let mut answer = Vec::new();
    // What was sent and not read may reset the connection behind the answer.
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

pub(crate) fn get(broker: &Broker, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = http(&broker.admin_address(), request.as_bytes());
    let code = head.split(' ').nth(1).expect("a status line");
    (code.parse().expect("a number"), body)
}

pub(crate) fn scrape(broker: &Broker) -> Scrape {
    let (code, page) = get(broker, "/metrics");
    assert_eq!(code, 200, "{page}");
    Scrape::parse(&page)
}

/// Waits until a series has this value.
#[track_caller]
pub(crate) fn expect_value(broker: &Broker, series: &str, value: u32) {
    eventually(&format!("{series} is {value}"), || {
        (scrape(broker).get(series) - f64::from(value)).abs() < 0.5
    });
}

#[test]
fn a_scrape_has_every_metric_of_the_table_in_its_order() {
    let broker = Broker::start();
    let expected = TABLE.iter();
    let expected = expected.map(|metric| (metric.name.to_owned(), metric.kind.name().to_owned()));
    let families = scrape(&broker).families;
    assert_eq!(families, expected.collect::<Vec<_>>());
    for code in ErrorCode::ALL {
        let series = format!("falcon_errors_total{{code=\"{}\"}}", code.name());
        expect_value(&broker, &series, 0);
    }
}

#[test]
fn publishes_reads_and_offsets_are_counted() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("orders", 2, Vec::new());
    let batch = batch(3, 100);
    for correlation in 1..=4 {
        peer.publish(correlation, topic, &batch);
        assert_eq!(peer.receive().expect("an ack").error(), None);
    }
    let set = ["offsets", "set", "billing", "orders", "--partition", "0"];
    broker.run(&[&set[..], &["--to", "offset:5"]].concat());
    let fetch = Fetch {
        partition: PartitionId {
            topic,
            partition: Partition(0),
        },
        offset: Offset(0),
        bytes_max: 1 << 20,
        wait_ms: 0,
    };
    peer.send(&Frame::request(Kind::Fetch, 9, fetch.encode()));
    assert_eq!(peer.receive().expect("records").error(), None);

    let page = scrape(&broker);
    let bytes = u32::try_from(4 * batch.len()).expect("small");
    for (series, value) in [
        ("falcon_publish_batches_acked_total", 4),
        ("falcon_publish_records_acked_total", 12),
        ("falcon_publish_bytes_acked_total", bytes),
        ("falcon_publish_duplicates_total", 0),
        ("falcon_frames_received_total{kind=\"Publish\"}", 4),
        ("falcon_frames_sent_total{kind=\"Publish\"}", 4),
        ("falcon_frames_received_total{kind=\"Fetch\"}", 1),
        ("falcon_frames_sent_total{kind=\"Fetch\"}", 1),
        ("falcon_request_seconds_count{kind=\"Publish\"}", 4),
        ("falcon_request_seconds_count{kind=\"Fetch\"}", 1),
        ("falcon_commit_group_batches_count", 4),
        ("falcon_commit_group_batches_sum", 4),
        ("falcon_delivered_records_total", 12),
        ("falcon_cache_hits_total", 1),
        ("falcon_topics", 1),
        ("falcon_partitions", 2),
        ("falcon_committed_offsets", 1),
        ("falcon_group_lag_left_out", 0),
        ("falcon_live_bytes", bytes),
        ("falcon_in_flight_bytes", 0),
        ("falcon_in_flight_limit_bytes", 32 << 20),
        ("falcon_free_floor_bytes", 64 << 20),
        ("falcon_segments", 1),
        ("falcon_ready", 1),
        ("falcon_degraded", 0),
    ] {
        let found = page.get(series);
        assert!((found - f64::from(value)).abs() < 0.5, "{series} {found}");
    }
    let lag = "falcon_group_lag_records{group=\"billing\",topic=\"orders\",partition=\"0\"}";
    expect_value(&broker, lag, 7);
    for series in [
        "falcon_sync_seconds_count",
        "falcon_sync_seconds_sum",
        "falcon_queue_wait_seconds_count",
        "falcon_commit_groups_total",
        "falcon_commit_group_bytes_total",
        "falcon_journal_bytes",
        "falcon_free_bytes",
        "falcon_recovery_seconds",
        "falcon_received_bytes_total",
        "falcon_sent_bytes_total",
    ] {
        assert!(page.get(series) > 0.0, "{series}");
    }
    drop(peer);
    expect_value(&broker, "falcon_connections", 0);
}

#[test]
fn a_subscription_is_open_while_it_is_open() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let start = PartitionStart {
        partition: Partition(0),
        start: StartPosition::Earliest,
    };
    let request = Subscribe {
        topic_id: topic,
        partitions: vec![start],
        credit_bytes: 1 << 20,
        credit_records: 1 << 20,
    };
    assert_eq!(peer.ask(Kind::Subscribe, &request).error(), None);
    expect_value(&broker, "falcon_subscriptions", 1);
    expect_value(&broker, "falcon_connections", 1);
    // Less than was granted before.
    let credit = Credit {
        bytes_total: 1,
        records_total: 1,
    };
    peer.send(&Frame::request(Kind::Credit, 1, credit.encode()));
    let ignored = "falcon_rejections_total{reason=\"credit_ignored\"}";
    expect_value(&broker, ignored, 1);
    drop(peer);
    expect_value(&broker, "falcon_subscriptions", 0);
}

#[test]
fn damage_is_named_and_the_broker_stays_ready() {
    let mut broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    for n in 0..6 {
        let line = format!("value-{n}-\n");
        broker.run_with(&["publish", "t"], line.as_bytes());
    }
    stop(&mut broker);
    let path = segment(&broker.data_dir(), 1);
    flip(&path, find(&path, b"value-3-"));
    broker.serve();
    let read = ["subscribe", "t", "--from", "earliest", "--until-end"];
    let ran = broker.try_run(&read);
    ran.expect_failure(1, &["records 3..4 of partition 0"]);
    let (code, text) = get(&broker, "/readyz");
    assert_eq!(code, 200, "{text}");
    assert_eq!(text, "ready\ndegraded: damaged: t/0 offsets 3 to 4\n");
    let page = scrape(&broker);
    for series in [
        "falcon_damaged_ranges",
        "falcon_damaged_records",
        "falcon_damaged_range_records{topic=\"t\",partition=\"0\",from=\"3\",to=\"4\"}",
        "falcon_errors_total{code=\"damaged_range\"}",
        "falcon_degraded",
        "falcon_ready",
    ] {
        assert!((page.get(series) - 1.0).abs() < 0.5, "{series}");
    }
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let (head, body) = http(&broker.admin_address(), request);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/json"), "{head}");
    let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status["status"], "degraded");
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["reasons"][0]["name"], "damaged");
    assert_eq!(status["reasons"][0]["is_fatal"], false);
}

#[test]
fn damage_that_a_read_finds_is_counted_and_named() {
    let mut broker = small_segments();
    fill_segments(&broker);
    stop(&mut broker);
    let path = segment(&broker.data_dir(), 1);
    flip(&path, find(&path, b"00000100 xxx"));
    broker.serve();
    // The segment is sealed: its bodies are read when somebody asks for them.
    assert_eq!(get(&broker, "/readyz"), (200, "ready\n".into()));
    let read = ["subscribe", "bulk", "--from", "offset:100", "--until-end"];
    let ran = broker.try_run(&[&read[..], &["--partition", "0"]].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let page = scrape(&broker);
    let ranges = page.beginning("falcon_damaged_range_records{");
    let [range] = ranges[..] else {
        panic!("{ranges:?}")
    };
    let parts: Vec<&str> = range.split('"').collect();
    let (topic, from, to) = (parts[1], parts[5], parts[7]);
    assert_eq!(topic, "bulk");
    let text = format!("records {from}..{to} of partition 0");
    assert!(ran.stderr.contains(&text), "{range}: {}", ran.stderr);
    let text = format!("ready\ndegraded: damaged: bulk/0 offsets {from} to {to}\n");
    assert_eq!(get(&broker, "/readyz"), (200, text));
    let (from, to): (f64, f64) = (from.parse().expect("offset"), to.parse().expect("offset"));
    assert!(from <= 100.0 && 100.0 < to, "{range}");
    for (series, value) in [
        ("falcon_damage_found_total", 1.0),
        ("falcon_damaged_ranges", 1.0),
        ("falcon_damaged_records", to - from),
        (range, to - from),
    ] {
        assert!((page.get(series) - value).abs() < 0.5, "{series}");
    }
}

#[test]
fn the_port_is_up_before_recovery_and_while_it_drains() {
    let mut broker = Broker::start();
    let log = broker.log();
    let at = |line: &str| log.find(line).unwrap_or_else(|| panic!("{line}: {log}"));
    assert!(at("serving /metrics") < at("opened the journal"), "{log}");
    assert_eq!(get(&broker, "/readyz"), (200, "ready\n".into()));

    let mut stuck = Peer::connect(broker.socket_address());
    let topic = stuck.create_topic("t", 1, Vec::new());
    let frame = publish_frame(1, topic, &batch(1, 100_000)).to_bytes();
    stuck.socket.write_all(&frame[..50_000]).expect("sent");
    let received = "falcon_frames_received_total{kind=\"Publish\"}";
    expect_value(&broker, received, 1);
    broker.signal(Signal::TERM);
    eventually("it says that it drains", || {
        get(&broker, "/readyz").1.contains("draining: ")
    });
    assert_eq!(get(&broker, "/readyz").0, 503);
    assert_eq!(get(&broker, "/livez"), (200, "alive\n".into()));
    assert!((scrape(&broker).get("falcon_ready") - 0.0).abs() < 0.5);
    drop(stuck);
    let ended = broker.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[test]
fn a_given_address_is_announced_behind_the_ready_line_and_must_be_free() {
    let mut broker = Broker::start_with(&["--set", "admin.listen=127.0.0.1:0"]);
    let address = broker.admin_address();
    assert_eq!(get(&broker, "/livez").0, 200);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let listen = format!("admin.listen={address}");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let flags = ["--set", &listen, "--log-level", "off"];
    let ran = Running::start(&mut falcon(&[&serve[..], &flags].concat())).finish(b"");
    ran.expect_failure(1, &["admin port", &address, "in use", "admin.listen"]);
    stop_and(&mut broker, &[&format!("falcon admin on {address}")]);

    let mut broker = Broker::start_with(&["--set", "admin.listen=off"]);
    assert!(!broker.log().contains("serving /metrics"));
    stop_and(&mut broker, &[]);
}

/// Stops it; these lines came after the ready line.
fn stop_and(broker: &mut Broker, lines: &[&str]) {
    broker.signal(Signal::TERM);
    let ended = broker.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(ended.lines, lines);
}

#[test]
fn only_three_paths_and_two_methods_are_answered() {
    let broker = Broker::start();
    let address = broker.admin_address();
    let code = |request: &str| {
        let (head, body) = http(&address, request.as_bytes());
        let code = head.split(' ').nth(1).expect("a status line").to_owned();
        (code, head, body)
    };
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            "405",
        ),
        ("DELETE /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        (
            "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
            "405",
        ),
        ("GET /livez?verbose HTTP/1.0\r\n\r\n", "200"),
        ("rubbish\r\n\r\n", "400"),
    ] {
        let (found, head, _) = code(request);
        assert_eq!(found, expected, "{request}: {head}");
    }
    let (_, head, _) = code("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.to_lowercase().contains("allow: get, head"), "{head}");
    let (found, head, body) = code("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((found.as_str(), body.as_str()), ("200", ""));
    assert!(head.contains("version=0.0.4"), "{head}");
    let long = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n",
        "y".repeat(64 << 10)
    );
    let (found, head, _) = code(&long);
    assert_eq!(found, "431", "{head}");
    assert_eq!(get(&broker, "/livez").0, 200);
}

#[test]
fn slow_and_many_http_clients_lose_their_places() {
    let broker = Broker::start();
    let address = broker.admin_address();
    let mut slow: Vec<TcpStream> = (0..32)
        .map(|_| TcpStream::connect(&address).expect("it listens"))
        .collect();
    for socket in &mut slow {
        socket.write_all(b"GET /metrics HTT").expect("sent");
    }
    // All places are taken: one more is closed at once.
    let mut last = TcpStream::connect(&address).expect("it listens");
    let timeout = Some(Duration::from_mins(1));
    last.set_read_timeout(timeout).expect("valid");
    let mut nothing = Vec::new();
    // A close without an answer, or a reset.
    let _ = last.read_to_end(&mut nothing);
    assert_eq!(nothing, b"");
    // Those that never finish their request are closed without an answer too.
    for socket in &mut slow {
        socket.set_read_timeout(timeout).expect("valid");
        let _ = socket.read_to_end(&mut nothing);
    }
    assert_eq!(nothing, b"");
    eventually("there is room again", || {
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut socket = TcpStream::connect(&address).expect("it listens");
        let mut answer = Vec::new();
        let _ = socket.write_all(request);
        let _ = socket.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200")
    });
    let page = scrape(&broker);
    assert!(page.get("falcon_admin_refused_total") > 0.5);
    assert!(page.get("falcon_admin_late_total") > 31.5);
    Peer::assert_serves(broker.socket_address());
}
