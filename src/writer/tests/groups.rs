//! Fences, and the commits they let through.

use falcon_protocol::OwnerEpoch;
use falcon_protocol::message::{CommitOwned, GroupHold, OwnedCommit};

use super::*;

pub(super) fn owned(id: PartitionId, epoch: u64, offset: u64, may_rewind: bool) -> OwnedCommit {
    OwnedCommit {
        hold: GroupHold {
            partition: id,
            epoch: OwnerEpoch(epoch),
        },
        offset: Offset(offset),
        may_rewind,
        note: String::new(),
    }
}

pub(super) fn commit_of(offsets: Vec<OwnedCommit>) -> CommitOwned {
    let group = "g".to_owned();
    CommitOwned { group, offsets }
}

fn stale(partition: PartitionId, current: u64, given: u64) -> Result<(), OffsetsError> {
    Err(OffsetsError::StaleOwner {
        partition,
        current: OwnerEpoch(current),
        given: OwnerEpoch(given),
    })
}

impl Rig {
    /// Asks for one fence; answers whether it was granted, and the epoch in force.
    pub(super) fn fence(&self, id: PartitionId, epoch: u64) -> (bool, u64) {
        let wanted = vec![(id, OwnerEpoch(epoch))];
        let fenced = self.ask(|answer| Command::Fence("g".into(), wanted, answer));
        let fenced = fenced.expect("answered");
        assert_eq!((fenced.len(), fenced[0].partition), (1, id));
        (fenced[0].is_granted, fenced[0].epoch.0)
    }

    fn owned(&self, offsets: Vec<OwnedCommit>) -> Result<(), OffsetsError> {
        self.ask(|answer| Command::CommitOwned(commit_of(offsets), answer))
    }

    fn one(&self, id: PartitionId, epoch: u64, offset: u64) -> Result<(), OffsetsError> {
        self.owned(vec![owned(id, epoch, offset, false)])
    }

    fn reset(&self, id: PartitionId, offset: u64) -> Result<Vec<(PartitionId, u64)>, OffsetsError> {
        let commit = CommitOffsets {
            group: "g".into(),
            offsets: vec![(id, Offset(offset), String::new())],
        };
        let raised = self.ask(|answer| Command::ResetOffsets(commit, answer))?;
        Ok(raised
            .into_iter()
            .map(|(id, epoch)| (id, epoch.0))
            .collect())
    }

    fn delete_group(&self) -> Result<(), OffsetsError> {
        self.ask(|answer| Command::DeleteGroup("g".into(), answer))
    }

    pub(super) fn committed(&self, id: PartitionId) -> Option<u64> {
        let offsets = self.views().offsets();
        Some(offsets.group("g")?.get(&id)?.offset.0)
    }

    /// After a clean stop, which leaves a snapshot, or after a power cut.
    fn again(self, is_clean: bool) -> Self {
        let mut rig = self;
        if is_clean {
            rig.restart();
            return rig;
        }
        let crashed = rig.disk.crash(3);
        rig.stop();
        Self::on(crashed)
    }

    /// Two partitions with ten records each.
    pub(super) fn with_records() -> (Self, [PartitionId; 2]) {
        let rig = Self::new();
        let topic = rig.create("t", 3).expect("created");
        let ids = [0, 1].map(|partition| PartitionId {
            topic,
            ..PartitionId::new(0, partition)
        });
        for id in ids {
            for _ in 0..10 {
                rig.publish(id, Producer::default()).expect("published");
            }
        }
        (rig, ids)
    }
}

#[test]
fn a_commit_is_taken_under_the_fence_and_under_no_other_epoch() {
    let (rig, [a, b]) = Rig::with_records();
    assert_eq!(rig.one(a, 0, 1), stale(a, 0, 0), "0 is no epoch");
    assert_eq!(rig.one(a, 1, 1), stale(a, 0, 1), "nobody owns it");
    assert_eq!(rig.fence(a, 0), (false, 0));
    assert_eq!(rig.fence(a, 4), (true, 4));
    rig.one(a, 4, 2).expect("it owns it");
    assert_eq!(rig.one(a, 3, 5), stale(a, 4, 3));
    assert_eq!(rig.one(a, 5, 5), stale(a, 4, 5));
    assert_eq!(rig.fence(a, 4), (false, 4), "epochs only grow");
    assert_eq!(rig.fence(a, 3), (false, 4));
    assert_eq!(rig.fence(a, 9), (true, 9));
    assert_eq!(rig.one(a, 4, 5), stale(a, 9, 4));
    // All or nothing.
    let both = vec![owned(a, 9, 7, false), owned(b, 9, 7, false)];
    assert_eq!(rig.owned(both), stale(b, 0, 9));
    assert_eq!((rig.committed(a), rig.committed(b)), (Some(2), None));
    let twice = vec![owned(a, 9, 7, false), owned(a, 9, 8, false)];
    assert_eq!(rig.owned(twice), Err(OffsetsError::NamedTwice(a)));
    let beyond = rig.one(a, 9, 11);
    assert!(matches!(beyond, Err(OffsetsError::BeyondEnd { .. })));
    let missing = PartitionId::new(77, 0);
    assert_eq!(rig.fence(missing, 1), (false, 0), "there is no such topic");
    let wanted = (0..5).map(|n| {
        (
            PartitionId {
                partition: falcon_protocol::Partition(n),
                ..a
            },
            OwnerEpoch(50),
        )
    });
    let full = rig.ask(|answer| Command::Fence("h".into(), wanted.collect(), answer));
    assert!(
        matches!(full, Err(OffsetsError::Limit { limit: 4, .. })),
        "{full:?}"
    );
}

#[test]
fn the_answer_to_a_fence_has_the_offset_of_the_commits_before_it() {
    let (rig, [a, _]) = Rig::with_records();
    rig.fence(a, 1);
    // Both in one drain: the commit is not durable yet when the fence is decided.
    let guard = rig.views().offsets();
    let (first, first_answered) = answer();
    rig.send(Command::CommitOwned(
        commit_of(vec![owned(a, 1, 3, false)]),
        first,
    ));
    let (second, second_answered) = answer();
    rig.send(Command::CommitOwned(
        commit_of(vec![owned(a, 1, 6, false)]),
        second,
    ));
    let (late, late_answered) = answer();
    let (fence, fenced) = answer();
    rig.send(Command::Fence("g".into(), vec![(a, OwnerEpoch(2))], fence));
    rig.send(Command::CommitOwned(
        commit_of(vec![owned(a, 1, 8, false)]),
        late,
    ));
    drop(guard);
    first_answered.recv().expect("an answer").expect("owned");
    second_answered.recv().expect("an answer").expect("owned");
    let fenced: Vec<Fenced> = fenced.recv().expect("an answer").expect("fenced");
    assert_eq!(
        (fenced[0].is_granted, fenced[0].committed),
        (true, Some(Offset(6)))
    );
    assert_eq!(late_answered.recv().expect("an answer"), stale(a, 2, 1));
}

#[test]
fn a_lower_offset_changes_nothing_unless_it_may_rewind() {
    let (rig, [a, b]) = Rig::with_records();
    rig.fence(a, 1);
    rig.fence(b, 1);
    rig.one(a, 1, 6).expect("owned");
    rig.owned(vec![owned(a, 1, 4, false), owned(b, 1, 4, false)])
        .expect("late, and no error");
    assert_eq!((rig.committed(a), rig.committed(b)), (Some(6), Some(4)));
    rig.owned(vec![owned(a, 1, 2, true)]).expect("a seek");
    assert_eq!(rig.committed(a), Some(2));
    // Within one drain too.
    let guard = rig.views().offsets();
    let answered: Vec<_> = [3, 9, 5]
        .map(|offset| {
            let (answer, answered) = answer();
            let commit = commit_of(vec![owned(a, 1, offset, false)]);
            rig.send(Command::CommitOwned(commit, answer));
            answered
        })
        .into();
    drop(guard);
    for answered in answered {
        answered.recv().expect("an answer").expect("owned");
    }
    assert_eq!(rig.committed(a), Some(9));
}

#[test]
fn a_reset_takes_the_partition_from_its_owner() {
    for is_clean in [true, false] {
        let (rig, [a, b]) = Rig::with_records();
        assert_eq!(rig.reset(b, 3), Ok(vec![]), "nobody owned it");
        rig.fence(a, 5);
        rig.one(a, 5, 8).expect("owned");
        assert_eq!(rig.reset(a, 2), Ok(vec![(a, 6)]));
        let rig = rig.again(is_clean);
        assert_eq!(rig.one(a, 5, 9), stale(a, 6, 5), "it would undo the reset");
        assert_eq!((rig.committed(a), rig.committed(b)), (Some(2), Some(3)));
    }
}

#[test]
fn an_epoch_from_before_a_deletion_never_fits_again() {
    for is_clean in [true, false] {
        let (rig, [a, b]) = Rig::with_records();
        rig.fence(a, 5);
        rig.fence(b, 8);
        rig.one(a, 5, 8).expect("owned");
        rig.delete_group().expect("it is there");
        let gone = Err(OffsetsError::UnknownGroup("g".into()));
        assert_eq!(rig.delete_group(), gone);
        assert_eq!(rig.committed(a), None);
        // Twice, so that what the snapshot says is read from a snapshot.
        let rig = rig.again(is_clean).again(is_clean);
        assert_eq!(rig.one(a, 5, 8), stale(a, 0, 5));
        assert_eq!(rig.fence(a, 5), (false, 8), "it was granted before");
        assert_eq!(rig.fence(a, 8), (false, 8));
        assert_eq!(rig.fence(a, 9), (true, 9));
        assert_eq!(rig.one(a, 5, 8), stale(a, 9, 5));
        let rig = rig.again(is_clean);
        rig.one(a, 9, 8).expect("owned");
    }
}

#[test]
fn fences_outlive_their_offsets_and_go_with_their_topic() {
    let (mut rig, [a, _]) = Rig::with_records();
    rig.fence(a, 5);
    rig.one(a, 5, 8).expect("owned");
    rig.ask(|answer| Command::DeleteOffsets("g".into(), None, answer))
        .expect("deleted");
    rig.restart();
    assert_eq!(rig.fence(a, 5), (false, 5));
    rig.ask(|answer| Command::DeleteTopic("t".into(), answer))
        .expect("deleted");
    let crashed = rig.disk.crash(5);
    rig.stop();
    let mut state = State::new(LIMITS);
    let config = LocalConfig {
        index_dir: None,
        ..LocalConfig::new(Path::new("/data"))
    };
    LocalStore::open(config, Arc::new(crashed), &mut state).expect("opens");
    assert!(state.fences().is_empty(), "{:?}", state.fences());
}
