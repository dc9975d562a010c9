//! Ten wrong uses: each gives one line that says what to do, and the broker serves on.

use std::io::{BufRead, BufReader, Read, Write};

use bytes::{BufMut, BytesMut};
use falcon_protocol::message::{HelloRequest, PublishHeader};
use falcon_protocol::{
    BatchBuilder, Codec, ErrorCode, FRAME_HEADER_BYTES, Frame, FrameHeader, Kind, PartitionId,
    Producer, Record, limits,
};
use rustix::process::Signal;

use crate::broker::{Broker, Running, background, falcon};

fn with_topic() -> Broker {
    let broker = Broker::start();
    broker.run(&["topic", "create", "orders"]);
    broker.run_with(&["publish", "orders"], b"a\nb\n");
    broker
}

#[track_caller]
fn serves_on(broker: &Broker) {
    let ran = broker.run(&["subscribe", "orders", "--until-end"]);
    assert!(ran.stdout.starts_with(b"a\nb\n"));
}

#[test]
fn wrong_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("falcon://{}", free.local_addr().expect("it is bound"));
    drop(free);
    let list = |server: &str| {
        Running::start(&mut falcon(&["topic", "list", "--server", server])).finish(b"")
    };
    list(&address).expect_failure(3, &["connection refused", "is the broker running"]);
    for bad in ["http://127.0.0.1:1", "falcon://", "falcon://host:port"] {
        list(bad).expect_failure(2, &["falcon://HOST:PORT"]);
    }
}

#[test]
fn unknown_topic() {
    let broker = with_topic();
    for args in [
        &["publish", "nowhere"][..],
        &["subscribe", "nowhere"],
        &["subscribe", "nowhere", "--until-end"],
    ] {
        let ran = broker.try_run_with(args, b"a\n");
        ran.expect_failure(1, &["nowhere", "falcon topic create"]);
    }
    for args in [
        &["topic", "delete", "nowhere"][..],
        &["topic", "describe", "nowhere"],
        &["topic", "alter", "nowhere", "--retention-age", "none"],
        &["offsets", "set", "g", "nowhere", "--to", "earliest"],
    ] {
        let ran = broker.try_run(args);
        ran.expect_failure(1, &["nowhere", "falcon topic list"]);
    }
    serves_on(&broker);
}

#[test]
fn offset_out_of_range() {
    let broker = with_topic();
    for more in [&["--until-end"][..], &["--count", "1"]] {
        let args = [&["subscribe", "orders", "--from", "offset:9"], more].concat();
        let ran = broker.try_run(&args);
        ran.expect_failure(1, &["offset 9", "2", "earliest"]);
    }
    serves_on(&broker);
}

#[test]
fn two_brokers_on_one_data_folder() {
    let broker = with_topic();
    let folder = broker.data_dir().display().to_string();
    let mut command = falcon(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off"]);
    let ran = Running::start(command.args(["--data-dir", &folder])).finish(b"");
    ran.expect_failure(1, &[&folder]);
    assert!(ran.stdout.is_empty());
    serves_on(&broker);
}

#[test]
fn a_port_in_use() {
    let broker = with_topic();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = falcon(&["serve", "--log-level", "off", "--listen", broker.address()]);
    let ran = Running::start(command.arg("--data-dir").arg(folder.path())).finish(b"");
    ran.expect_failure(1, &[broker.address(), "--listen"]);
    assert!(ran.stdout.is_empty());
    serves_on(&broker);
}

#[test]
fn an_http_request() {
    let broker = with_topic();
    let mut stream = broker.connect();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).expect("it is open");
    // The broker ends the connection; whether its answer or a reset arrives first is up to TCP.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    serves_on(&broker);
}

#[test]
fn a_frame_claiming_four_gigabytes() {
    let broker = with_topic();
    let mut stream = broker.connect();
    let header = FrameHeader {
        body_bytes: u32::MAX,
        kind: Kind::Hello.number(),
        is_response: false,
        status: 0,
        correlation: 1,
    };
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes);
    stream.write_all(&bytes).expect("it is open");
    // The broker ends the connection; whether its answer or a reset arrives first is up to TCP.
    let mut answer = Vec::new();
    if stream.read_to_end(&mut answer).is_ok() && !answer.is_empty() {
        let status = u16::from_le_bytes([answer[6], answer[7]]);
        let code = ErrorCode::from_number(status);
        assert_eq!(code, Some(ErrorCode::FrameTooLarge));
    }
    serves_on(&broker);
}

#[test]
fn a_truncated_batch() {
    let broker = with_topic();
    let described = broker
        .run(&["topic", "describe", "orders", "--json"])
        .json();
    let topic = described[0]["topic_id"].as_u64().expect("a number");
    let topic = u32::try_from(topic).expect("a topic id");
    let mut stream = broker.connect();
    let hello = HelloRequest {
        version_min: limits::VERSION,
        version_max: limits::VERSION,
        frame_bytes_max: limits::FRAME_BYTES_DEFAULT,
        codecs: Codec::None.bit(),
        features: 0,
        client: "test".into(),
        credential: Vec::new(),
    };
    let hello = Frame::request(Kind::Hello, 1, hello.encode());
    stream.write_all(&hello.to_bytes()).expect("it is open");
    assert_eq!(status_of_answer(&mut stream, 1), 0);

    let mut batch = BatchBuilder::new(Codec::None, 1 << 20);
    let record = Record::new(vec![b'x'; 1000]);
    batch.push(&record, 0).expect("it fits");
    let batch = batch.build(Producer::default()).expect("it is not empty");
    for (correlation, cut) in [(2, 1), (3, 500), (4, batch.len() - 10), (5, batch.len())] {
        let mut body = BytesMut::new();
        let header = PublishHeader {
            partition: PartitionId::new(topic, 0),
            timeout_ms: 1000,
        };
        header.encode(&mut body);
        body.put_slice(&batch[..batch.len() - cut]);
        let frame = Frame::request(Kind::Publish, correlation, body.freeze());
        stream.write_all(&frame.to_bytes()).expect("it is open");
        let status = status_of_answer(&mut stream, correlation);
        let code = ErrorCode::from_number(status).expect("a refusal");
        let expected = [
            ErrorCode::CorruptBatch,
            ErrorCode::InvalidBatch,
            ErrorCode::MalformedRequest,
        ];
        assert!(expected.contains(&code), "cut by {cut}: {}", code.name());
    }
    serves_on(&broker);
}

/// Reads frames until the answer with this correlation.
fn status_of_answer(stream: &mut impl Read, correlation: u32) -> u16 {
    loop {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).expect("an answer");
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let mut body = vec![0; word(0) as usize];
        stream.read_exact(&mut body).expect("an answer");
        if word(8) == correlation {
            return u16::from_le_bytes([header[6], header[7]]);
        }
    }
}

#[test]
fn a_bad_configuration_key() {
    let unknown = ["--set", "limits.conections_max=5"];
    let zero = ["--set", "limits.connections_max=0"];
    let remote = ["--listen", "0.0.0.0:0"];
    let missing = ["--config", "/nowhere.toml"];
    for (args, words) in [
        (unknown, &["limits.conections_max", "falcon config"][..]),
        (zero, &["limits.connections_max", "1 to 65536"]),
        (remote, &["listen", "--allow-remote"]),
        (missing, &["/nowhere.toml"]),
    ] {
        let ran = Running::start(falcon(&["serve"]).args(args)).finish(b"");
        ran.expect_failure(2, words);
    }
}

#[test]
fn a_full_queue_with_a_timeout() {
    let broker = with_topic();
    let args = ["publish", "orders", "--receipts", "--timeout", "2s"];
    let mut publisher = Running::start(&mut broker.command(&args));
    let mut input = publisher.child.stdin.take().expect("it is piped");
    let output = publisher.child.stdout.take().expect("it is piped");
    input.write_all(b"c\n").expect("it reads");
    let mut receipts = BufReader::new(output);
    let mut receipt = String::new();
    receipts.read_line(&mut receipt).expect("it answers");
    assert_eq!(receipt, "0 2\n");
    publisher.child.stdout = Some(receipts.into_inner());

    broker.signal(Signal::STOP);
    let line = [&[b'x'; 1000][..], b"\n"].concat();
    // More than any window holds: the command ends before it has read everything.
    let endless = background(move || while input.write_all(&line).is_ok() {});
    let ran = publisher.finish(b"");
    broker.signal(Signal::CONT);
    endless.join().expect("it ends with the command");
    ran.expect_failure(4, &["publish line"]);
    serves_on(&broker);
}
