//! Wrong uses of the port: each is told why in one frame, and the broker serves on.

use std::io::{Read, Write};

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::peer::{Peer, batch, hello, publish_frame};

fn refusal(frame: &Frame) -> (ErrorCode, ErrorBody) {
    let code = frame.error().expect("a refusal");
    (code, ErrorBody::decode(&frame.body).expect("an error body"))
}

#[test]
fn an_http_request_is_answered_in_http() {
    let broker = Broker::start();
    let mut peer = Peer::silent(broker.socket_address());
    peer.socket
        .write_all(b"GET /topics HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    peer.socket
        .read_to_string(&mut answer)
        .expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{answer}"
    );
    assert!(body.contains("not HTTP"), "{answer}");
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn a_frame_that_claims_four_gigabytes_is_refused_by_its_header() {
    let broker = Broker::start();
    let before = broker.rss_bytes();
    for is_greeted in [false, true] {
        let mut peer = if is_greeted {
            Peer::connect(broker.socket_address())
        } else {
            Peer::silent(broker.socket_address())
        };
        let mut head = Frame::request(Kind::ListTopics, 9, Bytes::new())
            .to_bytes()
            .to_vec();
        head[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        peer.socket.write_all(&head).expect("sent");
        let (code, body) = refusal(&peer.receive().expect("a last frame"));
        assert_eq!(code, ErrorCode::FrameTooLarge);
        assert!(body.text.contains("4294967295"), "{}", body.text);
        assert!(peer.receive().is_none(), "the connection must end");
    }
    assert!(
        broker.rss_bytes() < before + (64 << 20),
        "memory grew by the claim"
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn a_truncated_batch_and_a_damaged_one_are_refused_and_the_connection_goes_on() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let whole = batch(3, 100);
    peer.publish(100, topic, &whole[..whole.len() - 7]);
    let (code, _) = refusal(&peer.receive().expect("an answer"));
    assert_eq!(code, ErrorCode::CorruptBatch);
    let mut damaged = whole.to_vec();
    damaged[150] ^= 1;
    peer.publish(101, topic, &damaged);
    assert_eq!(
        refusal(&peer.receive().expect("an answer")).0,
        ErrorCode::CorruptBatch
    );
    let mut rubbish = whole.to_vec();
    rubbish[80..].fill(0xff);
    let crc = crc32fast::hash(&rubbish[28..]);
    rubbish[24..28].copy_from_slice(&crc.to_le_bytes());
    peer.publish(102, topic, &rubbish);
    assert_eq!(
        refusal(&peer.receive().expect("an answer")).0,
        ErrorCode::InvalidBatch
    );
    peer.publish(103, topic, &whole);
    let ack = PublishAck::decode(&peer.receive().expect("an ack").body).expect("valid");
    assert_eq!((ack.base_offset, ack.record_count), (Offset(0), 3));
}

#[test]
fn a_batch_beyond_the_limit_is_named_and_passed_over() {
    let broker = Broker::start_set(&[("FALCON_LIMITS_BATCH_BYTES_MAX", "65536")]);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    peer.publish(7, topic, &batch(1, 100_000));
    let (code, body) = refusal(&peer.receive().expect("an answer"));
    assert_eq!((code, body.low), (ErrorCode::BatchTooLarge, 65_536));
    peer.publish(8, topic, &batch(1, 1_000));
    assert_eq!(peer.receive().expect("an ack").error(), None);
}

#[test]
fn a_request_before_the_handshake_and_an_old_version_are_told_so() {
    let broker = Broker::start();
    let mut peer = Peer::silent(broker.socket_address());
    peer.send(&Frame::request(Kind::ListTopics, 1, Bytes::new()));
    let (code, _) = refusal(&peer.receive().expect("an answer"));
    assert_eq!(code, ErrorCode::HandshakeRequired);
    assert!(peer.receive().is_none());
    let mut peer = Peer::silent(broker.socket_address());
    let request = HelloRequest {
        version_min: 7,
        version_max: 9,
        ..hello()
    };
    peer.send(&Frame::request(Kind::Hello, 5, request.encode()));
    let answer = peer.receive().expect("an answer");
    let (code, body) = refusal(&answer);
    assert_eq!(
        (code, answer.header.correlation),
        (ErrorCode::UnsupportedVersion, 5)
    );
    assert_eq!((body.low, body.high), (1, 1));
}

#[test]
fn an_unknown_kind_is_answered_and_the_connection_goes_on() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let mut frame = Frame::request(Kind::Ping, 5, Bytes::from_static(b"whatever"));
    frame.header.kind = 199;
    peer.send(&frame);
    let answer = peer.receive().expect("an answer");
    assert_eq!((answer.header.kind, answer.header.correlation), (199, 5));
    assert_eq!(refusal(&answer).0, ErrorCode::UnknownRequest);
    let page = peer.ask(
        Kind::ListTopics,
        &ListTopics {
            after: None,
            rows_max: 1,
        },
    );
    assert_eq!(page.error(), None);
}

#[test]
fn a_silent_peer_and_one_that_stops_inside_a_frame_are_closed() {
    let broker = Broker::start_set(&[
        ("FALCON_TIMEOUTS_HANDSHAKE_MS", "300"),
        ("FALCON_TIMEOUTS_STALL_MS", "300"),
        ("FALCON_TIMEOUTS_HEARTBEAT_MS", "200"),
        ("FALCON_TIMEOUTS_IDLE_MS", "600"),
    ]);
    let mut peer = Peer::silent(broker.socket_address());
    let (code, _) = refusal(&peer.receive().expect("a last frame"));
    assert_eq!(code, ErrorCode::HandshakeTimeout);
    let mut peer = Peer::connect(broker.socket_address());
    let frame = publish_frame(1, TopicId(1), &batch(1, 1_000)).to_bytes();
    peer.socket.write_all(&frame[..500]).expect("sent");
    assert_eq!(
        refusal(&peer.receive().expect("a last frame")).0,
        ErrorCode::StallTimeout
    );
    let mut peer = Peer::connect(broker.socket_address());
    assert_eq!(
        refusal(&peer.receive().expect("a last frame")).0,
        ErrorCode::IdleTimeout
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn one_connection_too_many_is_told_so() {
    let broker = Broker::start_set(&[("FALCON_LIMITS_CONNECTIONS_MAX", "2")]);
    let first = Peer::connect(broker.socket_address());
    let _second = Peer::connect(broker.socket_address());
    let mut third = Peer::silent(broker.socket_address());
    assert_eq!(
        refusal(&third.receive().expect("a frame")).0,
        ErrorCode::TooManyConnections
    );
    drop(first);
    // The place is free once the broker has noticed; each attempt until then is refused.
    crate::broker::eventually("a place is free again", || {
        let mut peer = Peer::silent(broker.socket_address());
        peer.send(&Frame::request(Kind::Hello, 0, hello().encode()));
        peer.receive()
            .is_some_and(|answer| answer.error().is_none())
    });
}

#[test]
fn names_that_are_paths_are_refused() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    for name in ["../../etc/passwd", "a/b", "", "a\0b", &"x".repeat(201)] {
        let request = CreateTopic {
            name: (*name).to_owned(),
            partitions: 1,
            config: Vec::new(),
        };
        let answer = peer.ask(Kind::CreateTopic, &request);
        assert_eq!(refusal(&answer).0, ErrorCode::InvalidTopicName, "{name:?}");
    }
}

#[test]
fn a_decompression_bomb_is_refused() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let mut builder = BatchBuilder::new(Codec::Zstd, 32 << 20);
    builder
        .push(&Record::new(vec![0; 30 << 20]), 0)
        .expect("fits");
    let mut bomb = builder
        .build(Producer::default())
        .expect("not empty")
        .to_vec();
    assert!(bomb.len() < 10_000);
    bomb[52..56].copy_from_slice(&1_000_u32.to_le_bytes());
    let crc = crc32fast::hash(&bomb[28..]);
    bomb[24..28].copy_from_slice(&crc.to_le_bytes());
    peer.publish(1, topic, &bomb);
    assert_eq!(
        refusal(&peer.receive().expect("an answer")).0,
        ErrorCode::InvalidBatch
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn peers_that_are_stuck_or_wait_long_do_not_keep_the_broker_from_ending() {
    let mut broker = Broker::start_set(&[("FALCON_SHUTDOWN_GRACE_MS", "1000")]);
    let mut waiting = Peer::connect(broker.socket_address());
    let topic = waiting.create_topic("t", 1, Vec::new());
    let partition = PartitionId {
        topic,
        partition: Partition(0),
    };
    let fetch = Fetch {
        partition,
        offset: Offset(0),
        bytes_max: 1 << 20,
        wait_ms: 30_000,
    };
    waiting.send(&Frame::request(Kind::Fetch, 77, fetch.encode()));
    let mut stuck = Peer::connect(broker.socket_address());
    let frame = publish_frame(1, topic, &batch(1, 100_000)).to_bytes();
    stuck.socket.write_all(&frame[..50_000]).expect("sent");
    broker.signal(rustix::process::Signal::TERM);
    // What waits is answered early, with nothing, behind the word that the broker is draining.
    let answer = loop {
        let frame = waiting.receive().expect("an answer before the end");
        if frame.header.kind == Kind::Fetch.number() {
            break frame;
        }
    };
    assert_eq!((answer.header.correlation, answer.error()), (77, None));
    let ended = broker.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("is_clean=true"), "{}", ended.log);
}

#[test]
fn a_peer_that_trickles_is_treated_as_one_that_has_stopped() {
    let broker = Broker::start_set(&[("FALCON_TIMEOUTS_STALL_MS", "400")]);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let frame = publish_frame(1, topic, &batch(1, 200_000)).to_bytes();
    peer.socket
        .set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .expect("valid");
    let mut byte = [0; 1];
    let mut trickled = 0;
    for chunk in frame.chunks(100).take(1_000) {
        if peer.socket.write_all(chunk).is_err() {
            break;
        }
        trickled += chunk.len();
        // The pause between two pieces is the wait for an answer, which is the end.
        if peer.socket.peek(&mut byte).is_ok() {
            break;
        }
    }
    assert!(
        trickled < 50_000,
        "{trickled} bytes in pieces of 100 were waited for"
    );
    peer.socket
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .expect("valid");
    assert_eq!(
        refusal(&peer.receive().expect("a last frame")).0,
        ErrorCode::StallTimeout
    );
    Peer::assert_serves(broker.socket_address());
}

#[test]
fn a_peer_that_never_reads_loses_its_place() {
    let broker = Broker::start_set(&[
        ("FALCON_LIMITS_CONNECTIONS_MAX", "1"),
        ("FALCON_TIMEOUTS_STALL_MS", "300"),
    ]);
    let mut deaf = Peer::connect(broker.socket_address());
    deaf.socket
        .set_write_timeout(Some(std::time::Duration::from_millis(200)))
        .expect("valid");
    let pings = Frame::request(Kind::Ping, 1, Bytes::new())
        .to_bytes()
        .repeat(10_000);
    while deaf.socket.write_all(&pings).is_ok() {}
    crate::broker::eventually("its place is free again", || {
        let mut peer = Peer::silent(broker.socket_address());
        peer.send(&Frame::request(Kind::Hello, 0, hello().encode()));
        peer.receive()
            .is_some_and(|answer| answer.error().is_none())
    });
}

fn subscribe(topic: TopicId, start: StartPosition) -> Bytes {
    let request = Subscribe {
        topic_id: topic,
        partitions: vec![PartitionStart {
            partition: Partition(0),
            start,
        }],
        credit_bytes: 1 << 20,
        credit_records: u64::MAX,
    };
    encode(&request).expect("encodes")
}

#[test]
fn every_subscribe_and_unsubscribe_is_answered() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 1, Vec::new());
    let unsubscribe = encode(&Unsubscribe { subscription: 50 }).expect("encodes");
    // A subscription that is refused leaves nothing to end.
    let beyond = subscribe(topic, StartPosition::Offset(Offset(9)));
    peer.send(&Frame::request(Kind::Subscribe, 50, beyond));
    assert_eq!(
        refusal(&peer.receive().expect("an answer")).0,
        ErrorCode::OffsetOutOfRange
    );
    peer.send(&Frame::request(Kind::Unsubscribe, 51, unsubscribe.clone()));
    let answer = peer.receive().expect("an answer");
    assert_eq!(refusal(&answer).0, ErrorCode::UnknownSubscription);
    // Both are answered, in order, when they are sent together.
    for _ in 0..50 {
        let mut both = Frame::request(
            Kind::Subscribe,
            50,
            subscribe(topic, StartPosition::Timestamp(0)),
        )
        .to_bytes()
        .to_vec();
        both.extend_from_slice(
            &Frame::request(Kind::Unsubscribe, 52, unsubscribe.clone()).to_bytes(),
        );
        peer.socket.write_all(&both).expect("sent");
        for (kind, correlation) in [(Kind::Subscribe, 50), (Kind::Unsubscribe, 52)] {
            let answer = peer.receive().expect("an answer");
            let header = answer.header;
            assert_eq!(
                (header.kind, header.correlation),
                (kind.number(), correlation)
            );
            assert_eq!(answer.error(), None);
        }
    }
}

#[test]
fn a_fetch_that_waits_delays_no_other() {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 2, Vec::new());
    peer.publish(1, topic, &batch(1, 10));
    assert_eq!(peer.receive().expect("an ack").error(), None);
    for (correlation, partition) in [(2, Partition(1)), (3, Partition(0))] {
        let partition = PartitionId { topic, partition };
        let fetch = Fetch {
            partition,
            offset: Offset(0),
            bytes_max: 8 << 20,
            wait_ms: 30_000,
        };
        peer.send(&Frame::request(Kind::Fetch, correlation, fetch.encode()));
    }
    assert_eq!(
        peer.receive()
            .expect("an answer at once")
            .header
            .correlation,
        3
    );
}
