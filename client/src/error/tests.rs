//! Every error of every kind, and what it answers.

use std::io;
use std::time::Duration;

use falcon_protocol::batch::PushError;
use falcon_protocol::codes::{ErrorCode, Outcome, Retry};
use falcon_protocol::ids::NameError;
use falcon_protocol::{BatchError, Offset, Partition, Record};

use super::*;

const AFTER: Duration = Duration::from_millis(5);

fn refusals() -> impl Iterator<Item = Refusal> {
    let known = ErrorCode::ALL.iter().copied();
    known.chain([ErrorCode::Other(999)]).map(Refusal::bare)
}

/// One line, lower case unless it quotes something, without a full stop.
fn check_text(text: &str) {
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    assert!(!text.ends_with('.'), "{text}");
    let first = text.chars().next().expect("not empty");
    assert!(!first.is_uppercase(), "{text}");
}

#[test]
fn client_errors_answer_both_questions() {
    let timeout = |outcome| Error::Timeout {
        operation: "metadata",
        after: AFTER,
        outcome,
        reason: Some(LostReason::ClosedByBroker),
    };
    let connect = |reason| Error::Connect {
        address: "a:1".into(),
        reason,
    };
    let refused = || Refusal::bare(ErrorCode::UnsupportedVersion);
    // error, retryable, may have happened
    let table = [
        (
            Error::Address {
                address: "x".into(),
                reason: "r",
            },
            false,
            false,
        ),
        (
            connect(ConnectReason::Io(io::ErrorKind::ConnectionRefused)),
            true,
            false,
        ),
        (
            connect(ConnectReason::Io(io::ErrorKind::HostUnreachable)),
            true,
            false,
        ),
        (connect(ConnectReason::UnknownHost), true, false),
        (connect(ConnectReason::Timeout(AFTER)), true, false),
        (connect(ConnectReason::Refused(refused())), false, false),
        (
            connect(ConnectReason::Lost(LostReason::ClosedByBroker)),
            true,
            false,
        ),
        (connect(ConnectReason::NotFalcon), false, false),
        (Error::UnknownTopic { topic: "t".into() }, false, false),
        (
            Error::UnknownPartition {
                topic: "t".into(),
                partition: 3,
                partitions: 2,
            },
            false,
            false,
        ),
        (
            Error::InvalidName {
                name: "a/b".into(),
                reason: NameError::Character { character: '/' },
            },
            false,
            false,
        ),
        (
            Error::InvalidOption {
                option: "name",
                reason: "r",
            },
            false,
            false,
        ),
        (
            Error::Lost(LostReason::Io(io::ErrorKind::ConnectionReset)),
            true,
            true,
        ),
        (timeout(Outcome::NotApplied), true, false),
        (timeout(Outcome::Unknown), true, true),
        (Error::Answer { operation: "x" }, false, true),
        (Error::Closed, false, false),
    ];
    for (error, is_retryable, may_have_happened) in table {
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        assert_eq!(error.may_have_happened(), may_have_happened, "{error}");
        check_text(&error.to_string());
    }
    for refusal in refusals() {
        let code = refusal.code;
        let error = Error::Refused(refusal);
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.is_retryable(), code.retry() != Retry::Never);
        assert_eq!(
            error.may_have_happened(),
            code.outcome() == Outcome::Unknown
        );
        check_text(&error.to_string());
    }
}

#[test]
fn reasons_for_a_lost_connection_are_one_line() {
    let reasons = [
        LostReason::ClosedByBroker,
        LostReason::Io(io::ErrorKind::BrokenPipe),
        LostReason::Silent(AFTER),
        LostReason::Stalled(AFTER),
        LostReason::Refused(Refusal::bare(ErrorCode::IdleTimeout)),
        LostReason::Draining,
        LostReason::Protocol("a rule"),
        LostReason::Connect(Box::new(ConnectReason::UnknownHost)),
        LostReason::ShutDown,
    ];
    for reason in reasons {
        check_text(&reason.to_string());
    }
}

#[test]
fn a_brokers_text_cannot_break_the_line() {
    let refusal = Refusal {
        text: "a\nb\u{1b}[2J".into(),
        ..Refusal::bare(ErrorCode::Internal)
    };
    let frame = falcon_protocol::Frame::refusal(
        falcon_protocol::Kind::Hello,
        0,
        refusal.code,
        falcon_protocol::message::ErrorBody::text(refusal.text).encode(),
    );
    let read = Refusal::of(&frame).expect("it refuses");
    assert_eq!(read.text, "a b [2J");
}

#[test]
fn publish_errors_answer_both_questions() {
    let delivery = |is_uncertain| PublishError::DeliveryTimeout {
        after: AFTER,
        last: "no answer".into(),
        is_uncertain,
    };
    let table = [
        (
            PublishError::RecordTooLarge { bytes: 2, max: 1 },
            false,
            false,
        ),
        (
            PublishError::InvalidRecord(PushError::TooManyHeaders { count: 2, max: 1 }),
            false,
            false,
        ),
        (
            PublishError::UnknownPartition {
                partition: Partition(3),
                partitions: 2,
            },
            false,
            false,
        ),
        (PublishError::Encode { reason: "r".into() }, false, false),
        (PublishError::WindowFull { after: AFTER }, true, false),
        (PublishError::Lost(LostReason::ClosedByBroker), true, true),
        (delivery(false), true, false),
        (delivery(true), true, true),
        (
            PublishError::EarlierFailed {
                cause: Box::new(delivery(true)),
            },
            true,
            true,
        ),
        (
            PublishError::Fenced {
                is_uncertain: false,
            },
            false,
            false,
        ),
        (PublishError::Fenced { is_uncertain: true }, false, true),
        (PublishError::Closed, false, false),
        (
            PublishError::Abandoned {
                is_uncertain: false,
            },
            false,
            false,
        ),
        (PublishError::Abandoned { is_uncertain: true }, false, true),
        (
            PublishError::Client(Error::Lost(LostReason::ClosedByBroker)),
            true,
            true,
        ),
        (
            PublishError::Client(Error::UnknownTopic { topic: "t".into() }),
            false,
            false,
        ),
    ];
    for (error, is_retryable, may_have_happened) in table {
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        assert_eq!(error.may_have_happened(), may_have_happened, "{error}");
        check_text(&error.to_string());
        let failed = TrySendError::Failed(error.clone());
        assert_eq!(failed.is_retryable(), is_retryable);
        assert_eq!(failed.may_have_happened(), may_have_happened);
        assert_eq!(failed.code(), error.code());
    }
    let full = TrySendError::Full(Record::new("x"));
    assert!(full.is_retryable() && !full.may_have_happened());
    for (refusal, is_uncertain) in refusals().flat_map(|r| [(r.clone(), false), (r, true)]) {
        let code = refusal.code;
        let error = PublishError::Refused {
            refusal,
            is_uncertain,
        };
        let is_retryable = code.retry() != Retry::Never || code == ErrorCode::OutOfSequence;
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        let may_have_happened = is_uncertain || code.outcome() == Outcome::Unknown;
        assert_eq!(error.may_have_happened(), may_have_happened, "{error}");
        assert_eq!(error.code(), Some(code));
    }
}

#[test]
fn subscribe_errors_answer_both_questions() {
    let partition = Partition(0);
    let range = Offset(1)..Offset(2);
    let table = [
        (
            SubscribeError::OffsetOutOfRange {
                partition,
                position: Offset(9),
                available: range.clone(),
            },
            false,
        ),
        (
            SubscribeError::DamagedRange {
                partition,
                range: range.clone(),
            },
            false,
        ),
        (
            SubscribeError::Corrupt {
                partition,
                position: Offset(9),
                damage: BatchError::Stamp,
            },
            true,
        ),
        (
            SubscribeError::Gap {
                partition,
                missing: range,
            },
            true,
        ),
        (SubscribeError::TopicDeleted { topic: "t".into() }, false),
        (
            SubscribeError::Decode {
                partition,
                offset: Offset(1),
                reason: "r".into(),
            },
            false,
        ),
        (SubscribeError::NothingLeft, false),
        (SubscribeError::Client(Error::Closed), false),
        (
            SubscribeError::Client(Error::Lost(LostReason::Draining)),
            true,
        ),
    ];
    for (error, is_retryable) in table {
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        assert!(!error.may_have_happened(), "{error}");
        check_text(&error.to_string());
    }
    for refusal in refusals() {
        let code = refusal.code;
        let error = SubscribeError::PartitionEnded { partition, refusal };
        assert_eq!(error.is_retryable(), code.retry() != Retry::Never);
        assert_eq!(error.code(), Some(code));
    }
}
