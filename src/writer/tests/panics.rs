//! A thread of the writer ends by a panic: whoever waits for it is told.

use super::*;

type Answered<T, E> = Receiver<Result<T, E>>;

/// What was said behind an answer that panics.
struct Panicked {
    others: Vec<Result<Appended, PublishError>>,
    offsets: Result<(), OffsetsError>,
    topic: Result<TopicId, TopicError>,
}

fn send_publish(rig: &Rig, id: PartitionId, answer: PublishAnswer) {
    rig.send(Command::Publish(Publish {
        partition: id,
        batch: batch(Producer::default(), 100),
        answer,
    }));
}

/// A turn is held at the device. In one behind it a publish panics as it is answered, with more behind that.
fn panic_in_an_answer(rig: &Rig, id: PartitionId, is_beside: bool) -> Panicked {
    let taken = || rig.metrics.writer.queue_seconds.value().1;
    let before = taken();
    let wait_until_taken = |commands| {
        loop_until(|| {
            std::thread::yield_now();
            (taken() >= before + commands).then_some(())
        });
    };
    rig.disk.hold_syncs(true);
    let (first, first_answered) = answer();
    send_publish(rig, id, PublishAnswer::from(first));
    wait_until_taken(1);
    if is_beside {
        // Another one waits for the device, so that what follows becomes one turn.
        let (second, _answered) = answer();
        send_publish(rig, id, PublishAnswer::from(second));
        wait_until_taken(2);
    }
    send_publish(rig, id, PublishAnswer::new(|_| panic!("as a bug would")));
    let mut others: Vec<Answered<_, _>> = Vec::new();
    for _ in 0..20 {
        let (other, answered) = answer();
        send_publish(rig, id, PublishAnswer::from(other));
        others.push(answered);
    }
    if is_beside {
        // A turn of publishes alone, which the other thread finishes.
        rig.disk.hold_syncs(false);
        wait_until_taken(2 + 1 + others.len() as u64);
    }
    let (commit, committed) = answer();
    let offsets = CommitOffsets {
        group: "g".into(),
        offsets: vec![(id, Offset(1), String::new())],
    };
    rig.send(Command::CommitOffsets(offsets, commit));
    let (create, created) = answer();
    rig.send(Command::CreateTopic("u".into(), 1, Vec::new(), create));
    rig.disk.hold_syncs(false);
    first_answered
        .recv()
        .expect("an answer")
        .expect("published");
    let others = others.into_iter();
    Panicked {
        others: others
            .map(|other| other.recv().expect("an answer"))
            .collect(),
        offsets: committed.recv().expect("an answer"),
        topic: created.recv().expect("an answer"),
    }
}

/// Nobody is told that something did not happen which may have, and nothing more is accepted.
fn check(mut rig: Rig, is_beside: bool) {
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    let panicked = panic_in_an_answer(&rig, id, is_beside);
    assert_eq!(panicked.others.len(), 20);
    for other in panicked.others {
        let unknown = PublishError::Journal(JournalError::OutcomeUnknown);
        let refused = PublishError::Journal(JournalError::Stopped);
        assert!(other == Err(unknown) || other == Err(refused), "{other:?}");
    }
    assert!(matches!(panicked.offsets, Err(OffsetsError::Journal(_))));
    assert!(matches!(panicked.topic, Err(TopicError::Journal(_))));
    loop_until(|| {
        std::thread::yield_now();
        (rig.views().write_state() == WriteState::Stopped).then_some(())
    });
    // What a broker does at its end.
    rig.store = None;
    let running = rig.running.take().expect("running");
    drop(running.handle);
    let closed = running.thread.join();
    assert!(!matches!(closed, Ok(Ok(()))), "it was not a clean stop");
}

#[test]
fn everybody_is_answered_when_the_writer_panics() {
    check(Rig::new(), false);
}

#[test]
fn and_when_the_thread_beside_it_does() {
    check(Rig::overlapping(SimDisk::new(), 0), true);
}
