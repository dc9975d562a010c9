//! Atomic steps: all or nothing, also on failing disks and after power cuts.

use falcon_protocol::message::CommitOwned;

use super::groups::{commit_of, owned};
use super::*;

fn entry(partition: PartitionId, producer: Producer) -> StepEntry {
    StepEntry {
        partition,
        expected: None,
        batch: batch(producer, 100),
    }
}

impl Rig {
    fn step(
        &self,
        batches: Vec<StepEntry>,
        commit: Option<CommitOwned>,
    ) -> Result<Vec<Appended>, StepError> {
        let step = Step { batches, commit };
        self.ask(|answer| Command::Step(step, answer))
    }

    /// What a refused step must leave as it was.
    fn ends(&self, ids: [PartitionId; 2]) -> ([Offset; 2], [Option<u64>; 2]) {
        (
            ids.map(|id| self.high_watermark(id)),
            ids.map(|id| self.committed(id)),
        )
    }
}

fn offsets(appended: &[Appended]) -> Vec<(u64, bool)> {
    let of = |appended: &Appended| (appended.base_offset.0, appended.is_duplicate);
    appended.iter().map(of).collect()
}

#[test]
fn a_step_happens_once_and_its_repetition_is_not_looked_at() {
    let (mut rig, [a, b]) = Rig::with_records();
    let id = rig.init(None).expect("granted").producer_id;
    rig.fence(a, 1);
    let batches = |from| {
        let mut first = entry(a, sequence(id, 0, from));
        first.expected = Some(Offset(10 + from));
        vec![first, entry(b, sequence(id, 0, from))]
    };
    let commit = |offset| Some(commit_of(vec![owned(a, 1, offset, false)]));
    let first = rig.step(batches(0), commit(4)).expect("taken in");
    assert_eq!(offsets(&first), [(10, false), (10, false)]);
    assert_eq!(rig.committed(a), Some(4));
    rig.fence(a, 2);
    for _ in 0..2 {
        // The fence has moved, the expected offset too.
        let again = rig.step(batches(0), commit(4)).expect("known");
        assert_eq!(offsets(&again), [(10, true), (10, true)]);
        assert_eq!(again[0].append_time_ms, first[0].append_time_ms);
        rig.restart();
    }
    let partly = rig.step(
        vec![entry(a, sequence(id, 0, 0)), entry(b, sequence(id, 0, 1))],
        None,
    );
    assert_eq!(partly, Err(StepError::PartlyKnown { partition: a }));
    assert_eq!(rig.ends([a, b]), ([Offset(11); 2], [Some(4), None]));
    rig.step(batches(1), None).expect("the sequences go on");
}

#[test]
fn a_refused_step_leaves_nothing() {
    let (rig, [a, b]) = Rig::with_records();
    let id = rig.init(None).expect("granted").producer_id;
    let old = rig.init(Some("p")).expect("granted");
    rig.init(Some("p")).expect("granted");
    rig.fence(a, 3);
    let good = || entry(a, sequence(id, 0, 0));
    let before = rig.ends([a, b]);
    let refuse = |second: StepEntry, commit: Option<CommitOwned>| {
        let refused = rig.step(vec![good(), second], commit).expect_err("refused");
        assert_eq!(rig.ends([a, b]), before, "{refused}");
        refused
    };
    let plain = || entry(b, Producer::default());
    let fenced = refuse(entry(b, sequence(old.producer_id, old.epoch, 0)), None);
    assert!(
        matches!(fenced, StepError::Batch { partition, source: PublishError::Admit(AdmitError::Fenced { .. }) } if partition == b),
        "{fenced}"
    );
    let gap = refuse(entry(b, sequence(id, 0, 5)), None);
    assert!(
        matches!(
            gap,
            StepError::Batch {
                source: PublishError::Admit(_),
                ..
            }
        ),
        "{gap}"
    );
    let unknown = refuse(
        entry(
            PartitionId {
                partition: falcon_protocol::Partition(9),
                ..a
            },
            Producer::default(),
        ),
        None,
    );
    assert!(matches!(
        unknown,
        StepError::Batch {
            source: PublishError::UnknownPartition { .. },
            ..
        }
    ));
    let unexpected = StepEntry {
        expected: Some(Offset(9)),
        ..plain()
    };
    let mismatch = StepError::OffsetMismatch {
        partition: b,
        expected: Offset(9),
        next: Offset(10),
    };
    assert_eq!(refuse(unexpected, None), mismatch);
    assert_eq!(refuse(good(), None), StepError::NamedTwice(a));
    let stale = refuse(plain(), Some(commit_of(vec![owned(a, 2, 1, false)])));
    assert!(
        matches!(stale, StepError::Offsets(OffsetsError::StaleOwner { .. })),
        "{stale}"
    );
    // The records of the step itself do not count.
    let beyond = refuse(plain(), Some(commit_of(vec![owned(a, 3, 11, false)])));
    assert!(
        matches!(beyond, StepError::Offsets(OffsetsError::BeyondEnd { .. })),
        "{beyond}"
    );
    let taken = rig
        .step(vec![good(), plain()], None)
        .expect("no sequence was used up");
    assert_eq!(offsets(&taken), [(10, false), (10, false)]);
}

#[test]
fn a_step_counts_all_its_publishers_against_their_limit() {
    let (rig, [a, b]) = Rig::with_records();
    for _ in 0..3 {
        let id = rig.init(None).expect("granted").producer_id;
        rig.publish(a, sequence(id, 0, 0))
            .expect("within the limit");
    }
    let id = rig.init(None).expect("granted").producer_id;
    let refused = rig.step(
        vec![entry(a, sequence(id, 0, 0)), entry(b, sequence(id, 0, 0))],
        None,
    );
    assert!(
        matches!(
            refused,
            Err(StepError::Publish(PublishError::Limit { limit: 4, .. }))
        ),
        "{refused:?}"
    );
    rig.step(vec![entry(a, sequence(id, 0, 0))], None)
        .expect("one place was left");
}

#[test]
fn publishes_of_the_same_drain_come_before_the_step() {
    let (rig, [a, b]) = Rig::with_records();
    rig.fence(a, 1);
    let guard = rig.views().offsets();
    let (hold, held) = answer();
    rig.send(Command::CommitOwned(
        commit_of(vec![owned(a, 1, 1, false)]),
        hold,
    ));
    let (published, publish_answered) = answer();
    rig.send(Command::Publish(Publish {
        partition: a,
        batch: batch(Producer::default(), 10),
        answer: PublishAnswer::from(published),
    }));
    let wanted = [10, 11].map(|expected| {
        let (answer, answered) = answer();
        let first = StepEntry {
            expected: Some(Offset(expected)),
            ..entry(a, Producer::default())
        };
        let commit = Some(commit_of(vec![owned(a, 1, expected, false)]));
        let batches = vec![entry(b, Producer::default()), first];
        rig.send(Command::Step(Step { batches, commit }, answer));
        answered
    });
    drop(guard);
    held.recv().expect("an answer").expect("owned");
    publish_answered
        .recv()
        .expect("an answer")
        .expect("published");
    let [refused, taken] = wanted.map(|answered| answered.recv().expect("an answer"));
    let mismatch = StepError::OffsetMismatch {
        partition: a,
        expected: Offset(10),
        next: Offset(11),
    };
    assert_eq!(refused, Err(mismatch));
    assert_eq!(
        offsets(&taken.expect("taken in")),
        [(10, false), (11, false)]
    );
    assert_eq!(
        rig.ends([a, b]),
        ([Offset(12), Offset(11)], [Some(11), None])
    );
}

#[test]
fn a_full_disk_refuses_all_of_a_step() {
    let (rig, [a, b]) = Rig::with_records();
    let id = rig.init(None).expect("granted").producer_id;
    rig.fence(a, 1);
    let before = rig.ends([a, b]);
    rig.disk.set_free_bytes(32 << 20);
    loop_until(|| {
        rig.publish(
            PartitionId {
                partition: falcon_protocol::Partition(2),
                ..a
            },
            Producer::default(),
        )
        .err()
    });
    let batches = || vec![entry(a, sequence(id, 0, 0)), entry(b, sequence(id, 0, 0))];
    let commit = || Some(commit_of(vec![owned(a, 1, 5, false)]));
    let full = rig.step(batches(), commit());
    assert!(
        matches!(
            full,
            Err(StepError::Publish(PublishError::Journal(
                JournalError::Full { .. }
            )))
        ),
        "{full:?}"
    );
    assert_eq!(rig.ends([a, b]), before);
    rig.step(Vec::new(), Some(commit_of(vec![owned(a, 1, 2, false)])))
        .expect("offsets alone are small");
    rig.disk.set_free_bytes(1 << 40);
    loop_until(|| rig.step(batches(), commit()).ok());
    assert_eq!(rig.ends([a, b]), ([Offset(11); 2], [Some(5), None]));
}

#[test]
fn a_step_whose_sync_failed_may_have_happened_and_is_known_if_it_did() {
    let mut happened = [0; 2];
    for seed in 0..40 {
        let (mut rig, [a, b]) = Rig::with_records();
        let id = rig.init(None).expect("granted").producer_id;
        rig.fence(a, 1);
        let batches = || vec![entry(a, sequence(id, 0, 0)), entry(b, sequence(id, 0, 0))];
        let commit = || Some(commit_of(vec![owned(a, 1, 5, false)]));
        rig.disk.fail_sync(1, SimFault::Device);
        let unknown = StepError::Publish(PublishError::Journal(JournalError::OutcomeUnknown));
        assert_eq!(rig.step(batches(), commit()), Err(unknown));
        assert_eq!(
            rig.ends([a, b]),
            ([Offset(10); 2], [None, None]),
            "readers see what failed"
        );
        let crashed = rig.disk.crash(seed);
        rig.stop();
        let rig = Rig::on(crashed);
        let is_there = rig.high_watermark(a) == Offset(11);
        let ends = if is_there {
            ([Offset(11); 2], [Some(5), None])
        } else {
            ([Offset(10); 2], [None, None])
        };
        assert_eq!(rig.ends([a, b]), ends, "seed {seed}");
        let again = rig.step(batches(), commit()).expect("taken in or known");
        assert_eq!(
            offsets(&again),
            [(10, is_there), (10, is_there)],
            "seed {seed}"
        );
        assert_eq!(rig.ends([a, b]), ([Offset(11); 2], [Some(5), None]));
        happened[usize::from(is_there)] += 1;
    }
    assert!(
        happened.iter().all(|times| *times > 0),
        "{happened:?}: one case was never tried"
    );
}

/// What a power cut left: the ends of both partitions, the committed offset, the fence.
fn recovered(disk: SimDisk, ids: [PartitionId; 2]) -> Option<(u64, u64, u64, u64)> {
    let config = LocalConfig {
        index_dir: None,
        segment_bytes: 8 << 10,
        first_segment_bytes: 8 << 10,
        spare_segments: 0,
        ..LocalConfig::new(Path::new("/data"))
    };
    let mut state = State::new(LIMITS);
    let (_, report) = LocalStore::open(config, Arc::new(disk), &mut state).expect("opens");
    assert_eq!((report.damage, report.rows_damaged), (Vec::new(), 0));
    let [a, b] = ids.map(|id| state.partition(id).map_or(0, |known| known.log_end.0));
    let fence = state.fences().of("g", ids[0])?.0;
    let committed = state.recovered_offsets().group("g");
    let committed = committed.and_then(|offsets| offsets.get(&ids[0]));
    Some((
        a,
        b,
        committed.map_or(0, |committed| committed.offset.0),
        fence,
    ))
}

/// Fails at once when the writer commits a step's rows after its batches, in a group of their own.
#[test]
fn a_power_cut_at_any_point_leaves_all_of_a_step_or_nothing() {
    const STEPS: u64 = 60;
    let disk = SimDisk::new();
    disk.record();
    let mut rig = Rig::on(disk);
    let topic = rig.create("t", 2).expect("created");
    let ids = [0, 1].map(|partition| PartitionId {
        topic,
        ..PartitionId::new(0, partition)
    });
    let [a, b] = ids;
    let id = rig.init(None).expect("granted").producer_id;
    rig.fence(a, 1);
    rig.disk.note(1);
    // The n-th appends the n-th record to both, commits n - 1, and the n-th fence comes before it.
    for nth in 1..=STEPS {
        if nth > 1 {
            assert_eq!(rig.fence(a, nth), (true, nth));
        }
        if nth == STEPS / 2 {
            rig.restart();
        }
        let batches = vec![
            entry(a, sequence(id, 0, nth - 1)),
            entry(b, sequence(id, 0, nth - 1)),
        ];
        let commit = Some(commit_of(vec![owned(a, nth, nth - 1, false)]));
        rig.step(batches, commit).expect("taken in");
        rig.disk.note(nth + 1);
    }
    let mut recording = rig.disk.recording();
    rig.stop();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut acked, mut images) = (None, 0);
    while let Some(moment) = recording.step(&mut random, 2) {
        acked = moment.note.map(|note| note - 1).or(acked);
        for disk in moment.images {
            images += 1;
            let Some((first, second, committed, fence)) = recovered(disk, ids) else {
                assert_eq!(acked, None, "the fence is gone");
                continue;
            };
            let acked = acked.unwrap_or(0);
            assert_eq!(first, second, "half a step after {acked}");
            assert_eq!(
                committed,
                first.saturating_sub(1),
                "a step without its commit"
            );
            assert!(
                (acked..=acked + 1).contains(&first),
                "{first} steps after {acked}"
            );
            assert!(
                (first..=first + 1).contains(&fence),
                "fence {fence} after {first} steps"
            );
        }
    }
    assert!(images > STEPS, "{images} images");
}

#[test]
fn readers_of_two_partitions_never_find_half_a_step() {
    let (rig, [a, b]) = Rig::with_records();
    rig.fence(a, 1);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let views = Arc::clone(&rig.running.as_ref().expect("running").views);
    let view = |id| views.partition(id).expect("known");
    std::thread::scope(|scope| {
        for (first, second) in [(view(a), view(b)), (view(b), view(a))] {
            let (views, is_done) = (&views, &is_done);
            scope.spawn(move || {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    let seen = first.high_watermark();
                    assert!(second.high_watermark() >= seen);
                    let committed = |views: &Views| {
                        let offsets = views.offsets();
                        let of = offsets.group("g").and_then(|group| group.get(&a));
                        of.map_or(9, |committed| committed.offset.0)
                    };
                    assert!(committed(views) + 1 >= seen.0, "its offset comes later");
                    let committed = committed(views);
                    assert!(
                        second.high_watermark().0 > committed,
                        "its records come later"
                    );
                }
            });
        }
        for nth in 0..300 {
            let batches = vec![entry(a, Producer::default()), entry(b, Producer::default())];
            let commit = commit_of(vec![owned(a, 1, 10 + nth, false)]);
            rig.step(batches, Some(commit)).expect("taken in");
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(views);
}
