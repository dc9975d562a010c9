//! Every decision against a peer moves its own counter, and the one of its error code.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::{Broker, eventually};
use crate::peer::{Peer, batch, hello, publish_frame};
use crate::watching::{expect_value, scrape};

/// What a peer sends, and what it is told.
struct Case {
    reason: &'static str,
    code: Option<ErrorCode>,
    bytes: Vec<u8>,
}

fn case(reason: &'static str, code: ErrorCode, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        reason,
        code: Some(code),
        bytes: bytes.into(),
    }
}

fn frame(kind: Kind, body: impl Into<Bytes>) -> Vec<u8> {
    Frame::request(kind, 3, body.into()).to_bytes().to_vec()
}

fn without_handshake() -> Vec<Case> {
    let newer = HelloRequest {
        version_min: 7,
        version_max: 9,
        ..hello()
    };
    let rubbish = Bytes::from_static(&[9; 3]);
    let early = frame(Kind::ListTopics, Bytes::new());
    vec![
        Case {
            reason: "http",
            code: None,
            bytes: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        },
        case("handshake_missing", ErrorCode::HandshakeRequired, early),
        case("handshake_timeout", ErrorCode::HandshakeTimeout, []),
        case(
            "handshake_invalid",
            ErrorCode::MalformedRequest,
            frame(Kind::Hello, rubbish),
        ),
        case(
            "unsupported_version",
            ErrorCode::UnsupportedVersion,
            frame(Kind::Hello, newer.encode()),
        ),
    ]
}

fn bad_frames() -> Vec<Case> {
    let ping = frame(Kind::Ping, Bytes::new());
    let mut huge = ping.clone();
    huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flags = ping.clone();
    flags[5] = 0xf0;
    let mut unknown = ping;
    unknown[4] = 199;
    let second = encode(&CreateTopic {
        name: "second".into(),
        partitions: 1,
        config: Vec::new(),
    });
    let second = frame(Kind::CreateTopic, second.expect("encodes"));
    let rubbish = frame(Kind::DescribeTopic, Bytes::from_static(&[0xff; 9]));
    vec![
        case("idle", ErrorCode::IdleTimeout, []),
        case("frame_too_large", ErrorCode::FrameTooLarge, huge),
        case("frame_malformed", ErrorCode::MalformedRequest, flags),
        case("request_malformed", ErrorCode::MalformedRequest, rubbish),
        case("request_unknown", ErrorCode::UnknownRequest, unknown),
        case("limit_reached", ErrorCode::LimitReached, second),
    ]
}

fn bad_batches(topic: TopicId) -> Vec<Case> {
    let whole = batch(3, 10).to_vec();
    let mut torn = whole.clone();
    *torn.last_mut().expect("not empty") ^= 1;
    let mut rubbish = whole.clone();
    rubbish[80..].fill(0xff);
    seal(&mut rubbish);
    let publish = |batch: &[u8]| publish_frame(1, topic, batch).to_bytes().to_vec();
    let large = batch(1, 100_000);
    let half = &publish(&whole)[..40];
    vec![
        case("stalled_sending", ErrorCode::StallTimeout, half),
        case("batch_corrupt", ErrorCode::CorruptBatch, publish(&torn)),
        case("batch_too_large", ErrorCode::BatchTooLarge, publish(&large)),
        case("batch_invalid", ErrorCode::InvalidBatch, publish(&rubbish)),
        case("decompression", ErrorCode::InvalidBatch, publish(&bomb())),
    ]
}

/// Plays a case; its counters must move.
fn play(broker: &Broker, mut peer: Peer, case: &Case) {
    let reason = case.reason;
    let rejections = format!("falcon_rejections_total{{reason=\"{reason}\"}}");
    let errors = case
        .code
        .map(|code| format!("falcon_errors_total{{code=\"{}\"}}", code.name()));
    let read = || {
        let page = scrape(broker);
        let errors = errors.as_ref().map(|errors| page.get(errors));
        (page.get(&rejections), errors)
    };
    let before = read();
    peer.socket.write_all(&case.bytes).expect("sent");
    eventually(&format!("{reason} is counted"), || read().0 > before.0);
    if case.code.is_some() {
        assert!(read().1 > before.1, "{reason} as an error code");
    }
}

#[test]
fn every_decision_against_a_hostile_peer_is_counted() {
    let broker = Broker::start_set(&[
        ("FALCON_TIMEOUTS_HANDSHAKE_MS", "1000"),
        ("FALCON_TIMEOUTS_STALL_MS", "300"),
        ("FALCON_TIMEOUTS_HEARTBEAT_MS", "200"),
        ("FALCON_TIMEOUTS_IDLE_MS", "600"),
        ("FALCON_LIMITS_BATCH_BYTES_MAX", "65536"),
        ("FALCON_LIMITS_TOPICS_MAX", "1"),
    ]);
    let address = broker.socket_address();
    let topic = Peer::connect(address).create_topic("t", 1, Vec::new());
    for case in without_handshake() {
        play(&broker, Peer::silent(address), &case);
    }
    for case in bad_frames().iter().chain(&bad_batches(topic)) {
        play(&broker, Peer::connect(address), case);
    }
    Peer::assert_serves(address);
}

#[test]
fn a_request_for_which_there_is_no_room_is_counted() {
    let broker = Broker::start_set(&[
        ("FALCON_TIMEOUTS_QUEUE_MS", "100"),
        ("FALCON_LIMITS_BATCH_BYTES_MAX", "200KiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "256KiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_TOTAL", "256KiB"),
    ]);
    let mut slow = Peer::connect(broker.socket_address());
    let topic = slow.create_topic("t", 1, Vec::new());
    let large = publish_frame(1, topic, &batch(1, 100_000)).to_bytes();
    // A body on its way holds what is left of the half for bodies on their way.
    slow.socket.write_all(&large[..70_000]).expect("sent");
    let series = "falcon_frames_received_total{kind=\"Publish\"}";
    expect_value(&broker, series, 1);
    let in_flight = "falcon_in_flight_bytes";
    eventually("it holds its bytes", || {
        scrape(&broker).get(in_flight) > 99_999.0
    });
    let case = case("queue_full", ErrorCode::QueueFull, large);
    play(&broker, Peer::connect(broker.socket_address()), &case);
}

#[test]
fn a_peer_that_does_not_read_and_one_too_many_are_counted() {
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_CONNECTIONS_MAX", "1"),
        ("FALCON_TIMEOUTS_STALL_MS", "300"),
    ]);
    let mut deaf = Peer::connect(broker.socket_address());
    let mut second = Peer::silent(broker.socket_address());
    let refused = second.receive().expect("a frame").error();
    assert_eq!(refused, Some(ErrorCode::TooManyConnections));
    let limit = "falcon_rejections_total{reason=\"connection_limit\"}";
    expect_value(&broker, limit, 1);
    let code = "falcon_errors_total{code=\"too_many_connections\"}";
    expect_value(&broker, code, 1);
    expect_value(&broker, "falcon_connections_accepted_total", 1);
    deaf.socket
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("valid");
    let pings = Frame::request(Kind::Ping, 1, Bytes::new()).to_bytes();
    let pings = pings.repeat(10_000);
    while deaf.socket.write_all(&pings).is_ok() {}
    let stalled = "falcon_rejections_total{reason=\"stalled_reading\"}";
    expect_value(&broker, stalled, 1);
}

fn seal(batch: &mut [u8]) {
    let crc = crc32fast::hash(&batch[28..]);
    batch[24..28].copy_from_slice(&crc.to_le_bytes());
}

/// A small batch that is thirty megabytes when plain, and says it were a thousand bytes.
fn bomb() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::Zstd, 32 << 20);
    let record = Record::new(vec![0; 30 << 20]);
    builder.push(&record, 0).expect("fits");
    let bomb = builder.build(Producer::default());
    let mut bomb = bomb.expect("not empty").to_vec();
    bomb[52..56].copy_from_slice(&1_000_u32.to_le_bytes());
    seal(&mut bomb);
    bomb
}
