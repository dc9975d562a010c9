mod groups;
mod names;
mod overlap;
mod panics;
mod steps;
mod sync_failures;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use falcon_protocol::message::{ConfigEntry, ProducerGranted, TopicConfig};
use falcon_protocol::{
    Batch, BatchBuilder, Codec, Offset, PartitionId, Producer, ProducerId, Record, TopicId,
};

use super::run::spawn_overlapping;
use super::*;
use crate::io::{SimDisk, SimFault};
use crate::metrics::Metrics;
use crate::partition::AdmitError;
use crate::store::Store;
use crate::store::local::{LocalConfig, LocalStore};

const LIMITS: StateLimits = StateLimits {
    topics_max: 4,
    partitions_max: 16,
    committed_offsets_max: 4,
    producers_max: 4,
};

/// A writer on a simulated disk.
struct Rig {
    disk: SimDisk,
    index: tempfile::TempDir,
    overlap_bytes: u64,
    metrics: Arc<Metrics>,
    running: Option<Running>,
    store: Option<Arc<LocalStore>>,
}

impl Rig {
    fn new() -> Self {
        Self::on(SimDisk::new())
    }

    fn on(disk: SimDisk) -> Self {
        Self::overlapping(disk, u64::MAX)
    }

    /// With groups of so many bytes finished beside the writer.
    fn overlapping(disk: SimDisk, overlap_bytes: u64) -> Self {
        let index = tempfile::tempdir().expect("a folder");
        let mut rig = Self {
            disk,
            index,
            overlap_bytes,
            metrics: Arc::default(),
            running: None,
            store: None,
        };
        rig.start();
        rig
    }

    fn start(&mut self) {
        let config = LocalConfig {
            index_dir: Some(self.index.path().join("index")),
            segment_bytes: 64 << 10,
            first_segment_bytes: 64 << 10,
            // A segment prepared meanwhile would take the fault that was meant for a commit.
            spare_segments: 0,
            metrics: Arc::clone(&self.metrics),
            forward_after: std::time::Duration::ZERO,
            ..LocalConfig::new(Path::new("/data"))
        };
        let mut state = State::new(LIMITS);
        let disk = Arc::new(self.disk.clone());
        let (store, _) = LocalStore::open(config, disk, &mut state).expect("opens");
        store.retain(&state.live_partitions());
        self.store = Some(Arc::clone(&store));
        let metrics = Arc::clone(&self.metrics);
        let running = spawn_overlapping(state, store, metrics, self.overlap_bytes);
        self.running = Some(running.expect("threads"));
    }

    fn stop(&mut self) {
        self.store = None;
        let running = self.running.take().expect("running");
        drop(running.handle);
        drop(running.views);
        let _closed = running.thread.join().expect("no panic");
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn views(&self) -> &Views {
        &self.running.as_ref().expect("running").views
    }

    fn send(&self, command: Command) {
        let handle = self.running.as_ref().expect("running").handle.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime
            .block_on(handle.send(command))
            .expect("the writer takes it");
    }

    fn ask<T: Send + 'static, E: Send + 'static>(
        &self,
        command: impl FnOnce(Answer<T, E>) -> Command,
    ) -> Result<T, E> {
        let (answer, answered) = answer();
        self.send(command(answer));
        answered.recv().expect("an answer")
    }

    fn create(&self, name: &str, partitions: u32) -> Result<TopicId, TopicError> {
        self.ask(|answer| Command::CreateTopic(name.into(), partitions, Vec::new(), answer))
    }

    fn publish(&self, id: PartitionId, producer: Producer) -> Result<Appended, PublishError> {
        self.ask(|answer| {
            Command::Publish(Publish {
                partition: id,
                batch: batch(producer, 100),
                answer: PublishAnswer::from(answer),
            })
        })
    }

    fn init(&self, name: Option<&str>) -> Result<ProducerGranted, ProducerError> {
        self.ask(|answer| Command::InitProducer(name.map(Into::into), answer))
    }

    fn commit(&self, group: &str, id: PartitionId, offset: u64) -> Result<(), OffsetsError> {
        let offsets = vec![(id, Offset(offset), "note".to_owned())];
        let commit = CommitOffsets {
            group: group.into(),
            offsets,
        };
        self.ask(|answer| Command::CommitOffsets(commit, answer))
    }

    fn high_watermark(&self, id: PartitionId) -> Offset {
        self.views().partition(id).expect("known").high_watermark()
    }

    fn read(&self, id: PartitionId, offset: u64) -> Vec<Bytes> {
        let store = self.store.as_ref().expect("running");
        store
            .read(id, Offset(offset), self.high_watermark(id), 1 << 20)
            .expect("readable")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
    }
}

fn answer<T: Send + 'static, E: Send + 'static>() -> (Answer<T, E>, Receiver<Result<T, E>>) {
    let (sender, receiver) = channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

fn batch(producer: Producer, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    builder
        .push(&Record::new(vec![7; bytes]), 1_000)
        .expect("fits");
    Batch::from_bytes(builder.build(producer).expect("not empty")).expect("whole")
}

fn sequence(id: ProducerId, epoch: u32, base_sequence: u64) -> Producer {
    Producer {
        id,
        epoch,
        base_sequence,
    }
}

#[test]
fn what_was_answered_survives_power_loss() {
    for seed in 0..20 {
        let mut rig = Rig::new();
        let topic = rig.create("t", 2).expect("created");
        let id = PartitionId {
            topic,
            ..PartitionId::new(0, 1)
        };
        for _ in 0..30 {
            rig.publish(id, Producer::default()).expect("published");
        }
        rig.commit("g", id, 17).expect("committed");
        let crashed = rig.disk.crash(seed);
        rig.stop();
        let rig = Rig::on(crashed);
        assert_eq!(rig.high_watermark(id), Offset(30), "seed {seed}");
        assert!(!rig.read(id, 29).is_empty());
        let offsets = rig.views().offsets();
        let committed = offsets.group("g").and_then(|g| g.get(&id)).expect("there");
        assert_eq!(
            (committed.offset, committed.note.as_str()),
            (Offset(17), "note")
        );
    }
}

#[test]
fn one_sync_covers_everything_that_waits() {
    let rig = Rig::new();
    let topic = rig.create("t", 4).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    rig.publish(id(0), Producer::default()).expect("published");
    let (first, first_answered) = answer();
    // The writer, having synced this, waits for the guard to publish it; meanwhile the queue fills.
    let guard = rig.views().offsets();
    let before = rig.disk.syncs();
    let offsets = vec![(id(0), Offset(1), String::new())];
    rig.send(Command::CommitOffsets(
        CommitOffsets {
            group: "g".into(),
            offsets,
        },
        first,
    ));
    let mut answered = Vec::new();
    for partition in (0..4).cycle().take(100) {
        let (answer, received) = answer();
        let batch = batch(Producer::default(), 10);
        rig.send(Command::Publish(Publish {
            partition: id(partition),
            batch,
            answer: PublishAnswer::from(answer),
        }));
        answered.push(received);
    }
    drop(guard);
    first_answered
        .recv()
        .expect("an answer")
        .expect("committed");
    for received in answered {
        received.recv().expect("an answer").expect("published");
    }
    // The commit may have taken some of the publishes with it; the rest share one more sync.
    let syncs = rig.disk.syncs() - before;
    assert!(syncs <= 3, "{syncs} syncs for a commit and 100 publishes");
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    rig.publish(id, Producer::default()).expect("published");
    rig.disk.fail_sync(1, SimFault::Device);
    let during = rig.publish(id, Producer::default());
    assert_eq!(
        during,
        Err(PublishError::Journal(JournalError::OutcomeUnknown))
    );
    let syncs = rig.disk.syncs();
    let later = rig.publish(id, Producer::default());
    assert_eq!(later, Err(PublishError::Journal(JournalError::Stopped)));
    assert_eq!(
        rig.create("u", 1),
        Err(TopicError::Journal(JournalError::Stopped))
    );
    assert_eq!(
        rig.commit("g", id, 1),
        Err(OffsetsError::Journal(JournalError::Stopped))
    );
    assert_eq!(
        rig.init(None),
        Err(ProducerError::Journal(JournalError::Stopped))
    );
    assert_eq!(rig.disk.syncs(), syncs, "the same data was synced again");
    assert_eq!(rig.views().write_state(), WriteState::Stopped);
    assert_eq!(rig.high_watermark(id), Offset(1), "readers see what failed");
    assert!(
        !rig.read(id, 0).is_empty(),
        "what is durable stays readable"
    );
}

#[test]
fn a_full_disk_refuses_publishes_and_clears_by_itself() {
    let rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    rig.publish(id, Producer::default()).expect("published");
    rig.disk.set_free_bytes(32 << 20);
    let full = loop_until(|| rig.publish(id, Producer::default()).err());
    assert!(
        matches!(full, PublishError::Journal(JournalError::Full { .. })),
        "{full:?}"
    );
    assert_eq!(rig.views().write_state(), WriteState::Full);
    let stored = rig.high_watermark(id);
    rig.commit("g", id, 1)
        .expect("the reserve serves small changes");
    assert!(!rig.read(id, 0).is_empty());
    rig.disk.set_free_bytes(1 << 40);
    let appended = loop_until(|| rig.publish(id, Producer::default()).ok());
    assert_eq!(
        appended.base_offset, stored,
        "a refused publish has used an offset"
    );
    assert_eq!(rig.views().write_state(), WriteState::Accepting);
}

#[test]
fn what_is_deleted_from_a_full_disk_gives_its_space_back_through_its_neighbours() {
    let rig = Rig::new();
    let ids = ["kept", "gone"].map(|name| PartitionId {
        topic: rig.create(name, 1).expect("created"),
        ..PartitionId::new(0, 0)
    });
    let store = Arc::clone(rig.store.as_ref().expect("running"));
    while store.usage().segments < 8 {
        for (id, bytes) in ids.into_iter().zip([600, 6000]) {
            let publish = |answer| {
                Command::Publish(Publish {
                    partition: id,
                    batch: batch(Producer::default(), bytes),
                    answer: PublishAnswer::from(answer),
                })
            };
            rig.ask(publish).expect("published");
        }
    }
    // Below the floor, and not by much.
    rig.disk.set_free_bytes(60 << 20);
    loop_until(|| rig.publish(ids[0], Producer::default()).err());
    rig.ask(|answer| Command::DeleteTopic("gone".into(), answer))
        .expect("deleted");
    let before = store.usage().segments;
    loop_until(|| {
        store.gather();
        let (answer, answered) = channel();
        let tidied = move || answer.send(()).expect("somebody waits");
        rig.send(Command::Tidy(Box::new(tidied)));
        answered.recv().expect("an answer");
        (store.usage().segments + 6 <= before).then_some(())
    });
    assert!(!rig.read(ids[0], 0).is_empty());
}

#[test]
fn a_disk_that_fills_up_between_two_looks_refuses_publishes_and_never_stops_the_writer() {
    let rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    rig.create("old", 1).expect("created");
    rig.publish(id, Producer::default()).expect("published");
    for cycle in 0..3 {
        // Nothing is said to be missing: only writes find out.
        rig.disk.set_capacity_bytes(Some(rig.disk.used_bytes()));
        let full = (0..10_000).find_map(|_| rig.publish(id, Producer::default()).err());
        assert!(
            matches!(full, Some(PublishError::Journal(JournalError::Full { .. }))),
            "{full:?}"
        );
        let stored = rig.high_watermark(id);
        rig.commit("g", id, 1).expect("small changes go on");
        let refused = (0..10_000).find_map(|_| rig.commit("g", id, 1).err());
        assert!(
            matches!(
                refused,
                Some(OffsetsError::Journal(JournalError::Full { .. }))
            ),
            "{refused:?}"
        );
        if cycle == 2 {
            rig.ask(|answer| Command::DeleteTopic("old".into(), answer))
                .expect("what frees space is accepted when nothing else is");
        }
        assert!(!rig.read(id, 0).is_empty());
        rig.disk.set_capacity_bytes(None);
        let appended = rig.publish(id, Producer::default()).expect("space is back");
        assert_eq!(appended.base_offset, stored);
        assert_eq!(rig.views().write_state(), WriteState::Accepting);
    }
}

/// Free space is measured now and then: tries again until it was.
fn loop_until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_000_000 {
        if let Some(outcome) = attempt() {
            return outcome;
        }
    }
    panic!("it never happened");
}

#[test]
fn a_batch_sent_again_after_a_restart_is_a_duplicate() {
    let mut rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    let granted = rig.init(None).expect("granted");
    let first = rig
        .publish(id, sequence(granted.producer_id, 0, 0))
        .expect("published");
    rig.publish(id, sequence(granted.producer_id, 0, 1))
        .expect("published");
    for is_clean in [true, false] {
        if is_clean {
            rig.restart();
        } else {
            let crashed = rig.disk.crash(1);
            rig.stop();
            rig = Rig::on(crashed);
        }
        let again = rig
            .publish(id, sequence(granted.producer_id, 0, 0))
            .expect("recognised");
        assert_eq!(
            (again.base_offset, again.is_duplicate),
            (first.base_offset, true)
        );
        let gap = rig.publish(id, sequence(granted.producer_id, 0, 9));
        assert!(matches!(
            gap,
            Err(PublishError::Admit(AdmitError::OutOfSequence { .. }))
        ));
    }
    let next = rig.init(None).expect("granted");
    assert!(
        next.producer_id > granted.producer_id,
        "an id was granted twice"
    );
}

#[test]
fn a_named_publisher_fences_its_older_self_everywhere() {
    let mut rig = Rig::new();
    let topic = rig.create("t", 2).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    let old = rig.init(Some("billing-1")).expect("granted");
    rig.publish(id(0), sequence(old.producer_id, old.epoch, 0))
        .expect("published");
    rig.restart();
    let new = rig.init(Some("billing-1")).expect("granted");
    assert_eq!(
        (new.producer_id, new.epoch),
        (old.producer_id, old.epoch + 1)
    );
    for partition in 0..2 {
        let fenced = rig.publish(id(partition), sequence(old.producer_id, old.epoch, 1));
        assert!(
            matches!(fenced, Err(PublishError::Admit(AdmitError::Fenced { .. }))),
            "{fenced:?}"
        );
    }
    rig.publish(id(0), sequence(new.producer_id, new.epoch, 0))
        .expect("published");
    assert!(matches!(
        rig.init(Some("no/name")),
        Err(ProducerError::Name { .. })
    ));
}

#[test]
fn an_invented_producer_id_is_unknown() {
    let rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    let refused = rig.publish(id, sequence(ProducerId(99), 0, 0));
    assert!(matches!(
        refused,
        Err(PublishError::Admit(AdmitError::UnknownProducer { .. }))
    ));
}

#[test]
fn topics_are_created_changed_and_deleted_for_good() {
    let mut rig = Rig::new();
    let old = rig.create("orders", 2).expect("created");
    assert_eq!(
        rig.create("orders", 2),
        Err(TopicError::Exists("orders".into()))
    );
    assert!(matches!(rig.create("a/b", 1), Err(TopicError::Name { .. })));
    assert_eq!(rig.create("none", 0), Err(TopicError::Partitions(0)));
    let id = PartitionId {
        topic: old,
        ..PartitionId::new(0, 1)
    };
    rig.publish(id, Producer::default()).expect("published");
    rig.commit("g", id, 1).expect("committed");
    let config = vec![ConfigEntry {
        key: "retention_bytes".into(),
        value: Some("5".into()),
    }];
    let change = TopicAlteration {
        name: "orders".into(),
        config,
        partitions: Some(3),
    };
    rig.ask(|answer| Command::AlterTopic(change, answer))
        .expect("altered");
    let fewer = TopicAlteration {
        name: "orders".into(),
        config: vec![],
        partitions: Some(1),
    };
    let refused = rig.ask(|answer| Command::AlterTopic(fewer, answer));
    assert_eq!(
        refused,
        Err(TopicError::FewerPartitions { have: 3, want: 1 })
    );
    rig.restart();
    let catalog = rig.views().catalog();
    let topic = catalog.by_name("orders").expect("kept");
    let config = TopicConfig {
        retention_bytes: Some(5),
        ..TopicConfig::default()
    };
    assert_eq!((topic.partitions, topic.config), (3, config));
    rig.ask(|answer| Command::DeleteTopic("orders".into(), answer))
        .expect("deleted");
    assert!(rig.views().partition(id).is_none() && rig.views().offsets().is_empty());
    rig.restart();
    assert!(rig.views().catalog().is_empty() && rig.views().offsets().is_empty());
    let new = rig.create("orders", 2).expect("created");
    assert!(new > old, "a topic's number was used again");
    let gone = rig.publish(id, Producer::default());
    assert_eq!(gone, Err(PublishError::UnknownTopic(old)));
    let fresh = rig.publish(PartitionId { topic: new, ..id }, Producer::default());
    assert_eq!(fresh.expect("published").base_offset, Offset(0));
}

#[test]
fn offsets_beyond_the_end_and_limits_are_refused() {
    let rig = Rig::new();
    let topic = rig.create("t", 8).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    rig.publish(id(0), Producer::default()).expect("published");
    assert!(matches!(
        rig.commit("g", id(0), 2),
        Err(OffsetsError::BeyondEnd { .. })
    ));
    assert!(matches!(
        rig.commit("g", id(99), 0),
        Err(OffsetsError::UnknownPartition(_))
    ));
    for partition in 0..4 {
        rig.commit("g", id(partition), 0).expect("within the limit");
    }
    rig.commit("g", id(0), 1)
        .expect("replacing is always possible");
    assert!(matches!(
        rig.commit("g", id(5), 0),
        Err(OffsetsError::Limit { limit: 4, .. })
    ));
    let delete = |group: &str| {
        rig.ask(|answer| Command::DeleteOffsets(group.into(), Some("t".into()), answer))
    };
    assert_eq!(delete("h"), Err(OffsetsError::UnknownGroup("h".into())));
    delete("g").expect("deleted");
    rig.commit("g", id(5), 0).expect("there is room again");
    for name in ["a", "b"] {
        rig.create(name, 4).expect("within the limit");
    }
    assert!(matches!(
        rig.create("c", 1),
        Err(TopicError::Limit { limit: 16, .. })
    ));
}

#[test]
fn a_trim_survives_and_a_segment_roll_keeps_everything() {
    let mut rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    for _ in 0..1_000 {
        let (answer, answered) = answer();
        let batch = batch(Producer::default(), 400);
        rig.send(Command::Publish(Publish {
            partition: id,
            batch,
            answer: PublishAnswer::from(answer),
        }));
        answered.recv().expect("an answer").expect("published");
    }
    rig.commit("g", id, 5).expect("committed");
    let trim = Trim {
        partition: id,
        from: Offset(0),
        log_start: Offset(600),
        bytes_freed: 10,
    };
    rig.send(Command::Trim(vec![trim]));
    rig.commit("g", id, 6).expect("committed");
    assert_eq!(
        rig.views().partition(id).expect("known").log_start(),
        Offset(600)
    );
    for _ in 0..2 {
        rig.restart();
        let view = rig.views().partition(id).expect("known");
        assert_eq!(
            (view.log_start(), view.high_watermark()),
            (Offset(600), Offset(1_000))
        );
        assert!(!rig.read(id, 600).is_empty() && !rig.read(id, 999).is_empty());
    }
}

#[test]
fn an_epoch_that_was_never_granted_fences_nobody() {
    let rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    for name in [None, Some("billing-1")] {
        let granted = rig.init(name).expect("granted");
        let invented = rig.publish(id, sequence(granted.producer_id, u32::MAX, 0));
        let producer_id = granted.producer_id;
        let refusal = match name {
            Some(_) => AdmitError::UnknownProducer { producer_id },
            // Only names have epochs.
            None => AdmitError::Forgotten { producer_id },
        };
        assert_eq!(invented, Err(PublishError::Admit(refusal)));
        rig.publish(id, sequence(granted.producer_id, granted.epoch, 0))
            .expect("published");
    }
}

#[test]
fn publishers_beyond_the_limit_are_refused_and_nobody_is_forgotten() {
    let rig = Rig::new();
    let topic = rig.create("t", 8).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    let granted = rig.init(None).expect("granted");
    for partition in 0..4 {
        rig.publish(id(partition), sequence(granted.producer_id, 0, 0))
            .expect("within the limit");
    }
    let refused = rig.publish(id(4), sequence(granted.producer_id, 0, 0));
    assert!(
        matches!(refused, Err(PublishError::Limit { limit: 4, .. })),
        "{refused:?}"
    );
    for partition in 0..4 {
        let again = rig.publish(id(partition), sequence(granted.producer_id, 0, 0));
        assert!(again.expect("recognised").is_duplicate);
    }
    rig.publish(id(4), Producer::default())
        .expect("without a producer there is no limit");
}

#[test]
fn an_offset_named_twice_is_refused_and_one_key_counts_once() {
    let rig = Rig::new();
    let topic = rig.create("t", 8).expect("created");
    let id = |partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    };
    let twice = vec![(id(0), Offset(0), String::new()); 2];
    let commit = CommitOffsets {
        group: "g".into(),
        offsets: twice,
    };
    let refused = rig.ask(|answer| Command::CommitOffsets(commit, answer));
    assert_eq!(refused, Err(OffsetsError::NamedTwice(id(0))));
    // The first commit keeps the writer busy until the guard goes; the rest share one turn.
    let guard = rig.views().offsets();
    let mut answered = Vec::new();
    for partition in [0].into_iter().chain([1; 20]) {
        let (answer, received) = answer();
        let offsets = vec![(id(partition), Offset(0), String::new())];
        rig.send(Command::CommitOffsets(
            CommitOffsets {
                group: "g".into(),
                offsets,
            },
            answer,
        ));
        answered.push(received);
    }
    drop(guard);
    for received in answered {
        received
            .recv()
            .expect("an answer")
            .expect("two offsets are within the limit");
    }
}
