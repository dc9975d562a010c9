//! The rules of a lane and of judging, without a socket.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use falcon_protocol::codes::ErrorCode;
use falcon_protocol::{Batch, Codec, Offset, Partition, ProducerId, Record};

use super::completion::{BatchReceipt, Completion, Ticket};
use super::intake::{BatchRules, Intake, Wake};
use super::lane::{Flight, Hold, IN_FLIGHT_MAX, Identity, Lane, Stage};
use super::spares::Loan;
use super::verdict::{Verdict, judge};
use crate::clock;
use crate::error::{LostReason, Refusal};

const FIRST: Identity = Identity {
    id: ProducerId(1),
    epoch: 0,
};
const SECOND: Identity = Identity {
    id: ProducerId(2),
    epoch: 0,
};

fn push(lane: &mut Lane, number: u64, values: &[&str]) {
    let mut builder = falcon_protocol::BatchBuilder::new(Codec::Lz4, 1 << 20);
    for value in values {
        let record = Record::new((*value).to_owned()).key("k").header("h", "v");
        builder.push(&record, 17).expect("it fits");
    }
    let producer = lane.assign(builder.record_count());
    let records = builder.record_count();
    lane.push(Flight {
        number,
        bytes: builder.build(producer).expect("not empty"),
        records,
        completion: Completion::new(Partition(0)),
        loan: Loan::default(),
        window_bytes: 1,
        deadline: clock::deadline_in(Duration::from_secs(60)),
        stage: Stage::Waiting,
        is_uncertain: false,
        attempts: 0,
    });
}

/// Sends everything that may be sent; returns the numbers.
fn send(lane: &mut Lane, session: u64) -> Vec<u64> {
    let mut sent = Vec::new();
    while let Some(flight) = lane.next_to_send(session) {
        flight.stage = Stage::Sent { session };
        sent.push(flight.number);
    }
    sent
}

fn lane_of_three() -> Lane {
    let mut lane = Lane::new(FIRST);
    for number in 0..3 {
        push(&mut lane, number, &["a", "b"]);
    }
    lane
}

#[test]
fn nothing_is_sent_behind_an_unanswered_batch_of_another_session() {
    let mut lane = lane_of_three();
    assert_eq!(send(&mut lane, 1), [0, 1, 2]);
    assert_eq!(send(&mut lane, 2), [] as [u64; 0]);
    let reason = LostReason::ClosedByBroker;
    for number in [2, 0] {
        lane.lost(number, 1, &reason);
        assert_eq!(send(&mut lane, 2), [] as [u64; 0]);
    }
    lane.lost(1, 1, &reason);
    assert_eq!(send(&mut lane, 2), [0, 1, 2]);
    assert!(lane.front().is_some_and(|front| front.is_uncertain));
}

#[test]
fn a_refusal_is_judged_when_all_answers_are_there_and_all_are_sent_again_in_order() {
    let mut lane = lane_of_three();
    send(&mut lane, 1);
    lane.refused(1, 1, Refusal::bare(ErrorCode::OutOfSequence));
    lane.refused(0, 1, Refusal::bare(ErrorCode::QueueFull));
    assert!(lane.settled_refusal().is_none(), "one answer is missing");
    assert_eq!(send(&mut lane, 1), [] as [u64; 0]);
    lane.refused(2, 1, Refusal::bare(ErrorCode::OutOfSequence));
    let (refusal, is_uncertain) = lane.settled_refusal().expect("settled");
    assert_eq!((refusal.code, is_uncertain), (ErrorCode::QueueFull, false));
    assert_eq!(send(&mut lane, 1), [0, 1, 2]);
}

#[test]
fn a_late_answer_of_an_old_session_changes_nothing_but_an_ack_counts() {
    let mut lane = lane_of_three();
    send(&mut lane, 1);
    for number in 0..3 {
        lane.lost(number, 1, &LostReason::ClosedByBroker);
    }
    send(&mut lane, 2);
    lane.refused(0, 1, Refusal::bare(ErrorCode::QueueFull));
    assert!(lane.settled_refusal().is_none());
    assert!(lane.acked(0).is_some());
    assert!(lane.acked(0).is_none());
}

#[test]
fn after_a_failure_the_rest_goes_on_under_a_new_identity_with_the_same_records() {
    let mut lane = lane_of_three();
    let failed = lane.fail_front();
    assert_eq!(failed.len(), 1);
    lane.hold = Hold::Identity;
    assert_eq!(send(&mut lane, 1), [] as [u64; 0]);
    assert!(!lane.has_room());
    assert!(lane.adopt(SECOND).is_empty());
    let front = lane.front().expect("two are left");
    let batch = Batch::from_bytes(front.bytes.clone()).expect("whole");
    batch.verify().expect("whole");
    assert_eq!(batch.header().producer.id, SECOND.id);
    assert_eq!(batch.header().producer.base_sequence, 0);
    assert_eq!(batch.header().base_timestamp_ms, 17);
    let views: Vec<_> = batch
        .records()
        .expect("whole")
        .map(Result::unwrap)
        .collect();
    assert_eq!(views[1].value.as_deref(), Some(&b"b"[..]));
    assert_eq!(views[1].headers.len(), 1);
    assert_eq!(lane.assign(1).base_sequence, 4);
}

#[test]
fn what_may_be_stored_behind_a_failure_is_not_sent_under_another_identity() {
    let mut lane = lane_of_three();
    send(&mut lane, 1);
    lane.lost(0, 1, &LostReason::ClosedByBroker);
    lane.refused(2, 1, Refusal::bare(ErrorCode::OutOfSequence));
    let failed: Vec<u64> = lane.fail_front().iter().map(|f| f.number).collect();
    assert_eq!(failed, [0, 1], "1 is unanswered, 2 was refused");
}

#[test]
fn eight_are_in_flight_with_idempotence_and_one_without() {
    let mut lane = Lane::new(FIRST);
    for number in 0..IN_FLIGHT_MAX as u64 {
        assert!(lane.has_room());
        push(&mut lane, number, &["x"]);
    }
    assert!(!lane.has_room());
    let mut lane = Lane::new(Identity::NONE);
    push(&mut lane, 0, &["x"]);
    assert!(!lane.has_room());
}

#[test]
fn every_code_has_a_verdict_that_agrees_with_its_retry_class() {
    use Verdict::{Again, AgainInDoubt, AskTopic, Fail, Fenced, Renew};
    for code in ErrorCode::ALL {
        let verdict = judge(*code, 1, false, true, true);
        let expected = match code.name() {
            "unknown_topic" | "unknown_partition" | "not_owner" => AskTopic,
            "unknown_producer" | "out_of_sequence" => Renew,
            "producer_fenced" => Fenced,
            "corrupt_batch"
            | "too_many_connections"
            | "too_many_requests"
            | "draining"
            | "idle_timeout"
            | "stall_timeout"
            | "queue_full"
            | "storage_full"
            | "writes_stopped"
            | "read_failed"
            | "handshake_timeout" => Again,
            "internal" | "outcome_unknown" => AgainInDoubt,
            _ => Fail,
        };
        assert_eq!(verdict, expected, "{}", code.name());
        let without = judge(*code, 1, false, false, true);
        assert_ne!(
            without,
            AgainInDoubt,
            "{} could be stored twice",
            code.name()
        );
    }
    assert_eq!(judge(ErrorCode::Other(999), 1, false, true, true), Fail);
    assert_eq!(
        judge(ErrorCode::ProducerFenced, 1, false, true, false),
        Renew
    );
    assert_eq!(judge(ErrorCode::ProducerFenced, 1, true, true, false), Fail);
    assert_eq!(judge(ErrorCode::UnknownProducer, 1, true, true, true), Fail);
    assert_eq!(judge(ErrorCode::OutOfSequence, 1, true, true, true), Fail);
    assert_eq!(judge(ErrorCode::OutOfSequence, 5, false, true, true), Fail);
    assert_eq!(judge(ErrorCode::CorruptBatch, 3, false, true, true), Fail);
    assert_eq!(judge(ErrorCode::UnknownTopic, 5, false, true, true), Fail);
}

fn intake() -> Intake {
    let rules = BatchRules {
        codec: Codec::None,
        batch_bytes: 1_000,
        batch_bytes_max: 10_000,
    };
    Intake::new(rules, 2, 1 << 20)
}

#[test]
fn the_pump_is_woken_for_a_new_batch_and_for_a_full_one_only() {
    let mut intake = intake();
    let mut wakes = Vec::new();
    for _ in 0..20 {
        let record = Record::new(vec![b'x'; 100]);
        let (_ticket, wake) = intake
            .push(Some(Partition(0)), &record, 100)
            .expect("taken");
        wakes.push(wake);
    }
    let woken = wakes.iter().filter(|wake| **wake == Wake::Yes).count();
    assert_eq!(woken, 3, "three batches were opened");
    assert_eq!(intake.take_ready(), [0]);
    assert!(intake.take_ready().is_empty());
    assert!(intake.take_batch(0, |_, _| false).is_some());
    assert!(intake.take_batch(0, |_, _| false).is_some());
    assert!(intake.take_batch(0, |_, _| false).is_none(), "still open");
    assert!(intake.take_batch(0, |_, _| true).is_some());
}

#[test]
fn a_record_that_is_refused_leaves_nothing_behind() {
    let mut intake = intake();
    let huge = Record::new(vec![b'x'; 20_000]);
    assert!(intake.push(Some(Partition(0)), &huge, 1).is_err());
    assert!(intake.is_settled());
    assert!(intake.take_batch(0, |_, _| true).is_none());
}

#[test]
fn a_ticket_polled_before_and_after_the_end_gives_its_records_offset() {
    let completion = Completion::new(Partition(3));
    let mut tickets: Vec<Ticket> = (0..3)
        .map(|index| Ticket::new(Arc::clone(&completion), index))
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = |ticket: &mut Ticket| std::pin::Pin::new(ticket).poll(&mut cx);
    assert!(poll(&mut tickets[0]).is_pending());
    completion.complete(Ok(BatchReceipt {
        base_offset: Offset(40),
        append_time_ms: 5,
        is_duplicate: false,
    }));
    for (index, ticket) in tickets.iter_mut().enumerate() {
        let Poll::Ready(Ok(receipt)) = poll(ticket) else {
            panic!("not ready");
        };
        assert_eq!(receipt.offset.get(), 40 + index as u64);
    }
}
