//! Atomic steps over the wire: frames by hand against the real broker.

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::peer::{Peer, batch};

fn entry(topic: TopicId, partition: u32, batch: Bytes) -> StepBatch {
    StepBatch {
        partition: PartitionId {
            topic,
            partition: Partition(partition),
        },
        expected: None,
        batch,
    }
}

fn sequenced(id: ProducerId, base_sequence: u64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    let record = Record::new(b"of a step".to_vec());
    builder.push(&record, 1_700_000_000_000).expect("fits");
    let producer = Producer {
        id,
        epoch: 0,
        base_sequence,
    };
    builder.build(producer).expect("not empty")
}

fn ask(peer: &mut Peer, batches: Vec<StepBatch>, commit: Option<CommitOwned>) -> Frame {
    let step = Step {
        timeout_ms: 0,
        batches,
        commit,
    };
    send(peer, step.encode().expect("encodes"))
}

fn send(peer: &mut Peer, body: Bytes) -> Frame {
    peer.send(&Frame::request(Kind::Step, 77, body));
    let answer = peer.receive().expect("an answer");
    let head = (answer.header.kind, answer.header.correlation);
    assert_eq!(head, (Kind::Step.number(), 77));
    answer
}

fn acks(answer: &Frame) -> Vec<(u64, u32, bool)> {
    assert_eq!(
        answer.error(),
        None,
        "{:?}",
        ErrorBody::decode(&answer.body)
    );
    let acks = decode_step_acks(&answer.body).expect("valid");
    let ack = |ack: PublishAck| (ack.base_offset.0, ack.record_count, ack.is_duplicate);
    acks.into_iter().map(ack).collect()
}

fn refusal(answer: &Frame) -> (ErrorCode, ErrorBody) {
    let code = answer.error().expect("a refusal");
    (code, ErrorBody::decode(&answer.body).expect("valid"))
}

fn ends(broker: &Broker) -> Vec<u64> {
    let described = broker
        .run(&["topic", "describe", "t", "--json"])
        .text()
        .to_owned();
    described
        .split("\"high_watermark\":")
        .skip(1)
        .map(|rest| {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            digits.expect("a number").parse().expect("a number")
        })
        .collect()
}

#[test]
fn a_step_is_taken_in_whole_and_known_after_a_restart() {
    let mut broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 3, Vec::new());
    let granted = peer.ask(Kind::InitProducer, &InitProducer { name: None });
    let granted: ProducerGranted = decode(&granted.body).expect("valid");
    let id = granted.producer_id;
    let step = || {
        vec![
            entry(topic, 2, sequenced(id, 0)),
            StepBatch {
                expected: Some(Offset(0)),
                ..entry(topic, 0, sequenced(id, 0))
            },
        ]
    };
    assert_eq!(acks(&ask(&mut peer, step(), None)), [(0, 1, false); 2]);
    assert_eq!(ends(&broker), [1, 0, 1]);
    broker.crash_and_restart();
    let mut peer = Peer::connect(broker.socket_address());
    assert_eq!(acks(&ask(&mut peer, step(), None)), [(0, 1, true); 2]);
    // A batch of its own kind: larger than what is read ahead, with a plain one beside it.
    let large = vec![
        entry(topic, 1, batch(40, 10_000)),
        entry(topic, 0, batch(2, 10)),
    ];
    assert_eq!(
        acks(&ask(&mut peer, large, None)),
        [(0, 40, false), (1, 2, false)]
    );
    assert_eq!(ends(&broker), [3, 40, 1]);
}

#[test]
fn a_refused_step_says_why_and_leaves_nothing() {
    let settings = [
        ("FALCON_LIMITS_BATCH_BYTES_MAX", "65536"),
        ("FALCON_LIMITS_FRAME_BYTES_MAX", "1MiB"),
        ("FALCON_LIMITS_IN_FLIGHT_BYTES_PER_CONNECTION", "512KiB"),
    ];
    let broker = Broker::start_set(&settings);
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("t", 8, Vec::new());
    let first = || entry(topic, 0, batch(1, 10));
    let mut refuse =
        |second: StepBatch, commit| refusal(&ask(&mut peer, vec![first(), second], commit));
    let unexpected = StepBatch {
        expected: Some(Offset(7)),
        ..entry(topic, 1, batch(1, 10))
    };
    let (code, body) = refuse(unexpected, None);
    assert_eq!(
        (code, body.low, body.partition),
        (ErrorCode::OffsetMismatch, 0, Some(Partition(1)))
    );
    assert_eq!(refuse(first(), None).0, ErrorCode::MalformedRequest);
    assert_eq!(
        refuse(entry(topic, 9, batch(1, 10)), None).0,
        ErrorCode::UnknownPartition
    );
    assert_eq!(
        refuse(entry(TopicId(99), 0, batch(1, 10)), None).0,
        ErrorCode::UnknownTopic
    );
    assert_eq!(
        refuse(entry(topic, 1, batch(1, 70_000)), None).0,
        ErrorCode::BatchTooLarge
    );
    let mut damaged = batch(1, 100).to_vec();
    damaged[100] ^= 1;
    let (code, body) = refuse(entry(topic, 1, damaged.into()), None);
    assert_eq!(
        (code, body.partition),
        (ErrorCode::CorruptBatch, Some(Partition(1)))
    );
    let unknown = sequenced(ProducerId(4_000), 0);
    assert_eq!(
        refuse(entry(topic, 1, unknown), None).0,
        ErrorCode::UnknownProducer
    );
    let commit = |offsets| {
        let group = "g".into();
        Some(CommitOwned { group, offsets })
    };
    let owned = OwnedCommit {
        hold: GroupHold {
            partition: first().partition,
            epoch: OwnerEpoch(3),
        },
        offset: Offset(0),
        may_rewind: false,
        note: String::new(),
    };
    let good = || entry(topic, 1, batch(1, 10));
    assert_eq!(refuse(good(), commit(vec![owned])).0, ErrorCode::StaleOwner);
    assert_eq!(
        refuse(good(), commit(Vec::new())).0,
        ErrorCode::MalformedRequest
    );
    assert_eq!(
        refusal(&ask(&mut peer, Vec::new(), None)).0,
        ErrorCode::MalformedRequest
    );
    assert_eq!(
        refusal(&send(&mut peer, Bytes::from_static(b"short"))).0,
        ErrorCode::MalformedRequest
    );
    assert_eq!(
        refusal(&send(&mut peer, vec![0xff; 100_000].into())).0,
        ErrorCode::MalformedRequest
    );
    // More than the connection may have in flight, in a frame that is allowed.
    let many = || (0..8).map(|n| entry(topic, n, batch(6, 10_000)));
    let beside = (0..3).map(|_| entry(topic, 0, batch(6, 10_000)));
    let (code, body) = refusal(&ask(&mut peer, many().chain(beside).collect(), None));
    assert_eq!((code, body.low), (ErrorCode::FrameTooLarge, 512 << 10));
    assert_eq!(ends(&broker), [0; 8]);
    assert_eq!(
        acks(&ask(&mut peer, many().collect(), None)),
        [(0, 6, false); 8]
    );
    assert_eq!(ends(&broker), [6; 8]);
}
