//! Turns that are finished beside the writer: nothing is shown or answered early, and nothing overtakes.

use super::*;

/// A writer that hands every turn of publishes on, with a topic of two partitions.
fn rig() -> (Rig, PartitionId, PartitionId) {
    let rig = Rig::overlapping(SimDisk::new(), 0);
    let topic = rig.create("t", 2).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    let (first, second) = (id(0), id(1));
    (rig, first, second)
}

/// Holds syncs, also while a test fails: a writer that waits for one would never end.
struct Held(SimDisk);

impl Held {
    fn new(rig: &Rig) -> Self {
        rig.disk.hold_syncs(true);
        Self(rig.disk.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.hold_syncs(false);
    }
}

impl Rig {
    fn send_publish(
        &self,
        id: PartitionId,
        producer: Producer,
    ) -> Receiver<Result<Appended, PublishError>> {
        let (answer, answered) = answer();
        self.send(Command::Publish(Publish {
            partition: id,
            batch: batch(producer, 100),
            answer: PublishAnswer::from(answer),
        }));
        answered
    }

    /// Waits until the writer has taken so many commands out of its queue.
    fn wait_until_taken(&self, commands: u64) {
        loop_until(|| {
            std::thread::yield_now();
            let taken = self.metrics.writer.queue_seconds.value().1;
            (taken >= commands).then_some(())
        });
    }

    fn taken(&self) -> u64 {
        self.metrics.writer.queue_seconds.value().1
    }
}

#[test]
fn a_group_is_laid_out_while_another_is_synced_and_neither_is_seen() {
    let (rig, first, second) = rig();
    let taken = rig.taken();
    let held = Held::new(&rig);
    let one = rig.send_publish(first, Producer::default());
    rig.wait_until_taken(taken + 1);
    let two = rig.send_publish(second, Producer::default());
    // The second is decided on while the first is on its way.
    rig.wait_until_taken(taken + 2);
    assert!(one.try_recv().is_err() && two.try_recv().is_err());
    assert_eq!(
        (rig.high_watermark(first), rig.high_watermark(second)),
        (Offset(0), Offset(0))
    );
    drop(held);
    for answered in [one, two] {
        answered.recv().expect("an answer").expect("published");
    }
    assert_eq!(
        (rig.high_watermark(first), rig.high_watermark(second)),
        (Offset(1), Offset(1))
    );
    assert!(!rig.read(second, 0).is_empty());
}

#[test]
fn a_duplicate_of_a_batch_on_its_way_shares_its_fate() {
    let (rig, id, _) = rig();
    let granted = rig.init(None).expect("granted");
    let producer = sequence(granted.producer_id, 0, 0);
    let taken = rig.taken();
    let held = Held::new(&rig);
    let original = rig.send_publish(id, producer);
    rig.wait_until_taken(taken + 1);
    let again = rig.send_publish(id, producer);
    rig.wait_until_taken(taken + 2);
    // One more behind them, so that the duplicate is decided on for sure.
    let behind = rig.send_publish(id, sequence(granted.producer_id, 0, 1));
    assert!(original.try_recv().is_err() && again.try_recv().is_err());
    rig.disk.fail_sync(1, SimFault::Device);
    drop(held);
    assert_eq!(
        original.recv().expect("an answer"),
        Err(PublishError::Journal(JournalError::OutcomeUnknown))
    );
    // It is the same batch, so nobody can say either that it was not stored.
    assert_eq!(
        again.recv().expect("an answer"),
        Err(PublishError::Journal(JournalError::OutcomeUnknown))
    );
    let outcome = behind.recv().expect("an answer");
    assert!(
        matches!(outcome, Err(PublishError::Journal(_))),
        "{outcome:?}"
    );
    assert_eq!(rig.views().write_state(), WriteState::Stopped);
    assert_eq!(rig.high_watermark(id), Offset(0));
}

#[test]
fn what_is_decided_against_durable_offsets_waits_for_the_group_on_its_way() {
    let (rig, id, _) = rig();
    let taken = rig.taken();
    let before = rig.metrics.journal.groups.value();
    let held = Held::new(&rig);
    let published = rig.send_publish(id, Producer::default());
    rig.wait_until_taken(taken + 1);
    let groups = loop_until(|| {
        let groups = rig.metrics.journal.groups.value();
        (groups > before).then_some(groups)
    });
    let (answer, committed) = answer();
    let offsets = vec![(id, Offset(1), String::new())];
    let group = "g".to_owned();
    rig.send(Command::CommitOffsets(
        CommitOffsets { group, offsets },
        answer,
    ));
    rig.wait_until_taken(taken + 2);
    // It is taken, and not decided on: that would be done at once.
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_micros(100));
        assert_eq!(
            rig.metrics.journal.groups.value(),
            groups,
            "it was laid out"
        );
    }
    assert!(committed.try_recv().is_err());
    drop(held);
    published.recv().expect("an answer").expect("published");
    committed.recv().expect("an answer").expect("committed");
    let offsets = rig.views().offsets();
    let stored = offsets.group("g").and_then(|group| group.get(&id));
    assert_eq!(stored.map(|committed| committed.offset), Some(Offset(1)));
}

#[test]
fn what_was_answered_survives_power_loss_through_rolls() {
    for seed in 0..10 {
        let (rig, first, second) = rig();
        let mut answered = Vec::new();
        for number in 0..600 {
            let id = if number % 3 == 0 { second } else { first };
            answered.push((id, rig.send_publish(id, Producer::default())));
        }
        // Those that have their answer by now must survive; the others may.
        let mut durable: Vec<(PartitionId, u64)> = Vec::new();
        for (id, answered) in answered.iter().take(100 + 40 * seed) {
            let appended = answered.recv().expect("an answer").expect("published");
            durable.push((*id, appended.base_offset.0));
        }
        let crashed = rig.disk.crash(seed as u64);
        drop(rig);
        let rig = Rig::on(crashed);
        for (id, offset) in durable {
            assert!(
                rig.high_watermark(id).0 > offset,
                "seed {seed}: {id} {offset}"
            );
        }
        let end = rig.high_watermark(first).0;
        assert!((0..end).all(|offset| !rig.read(first, offset).is_empty()));
    }
}
