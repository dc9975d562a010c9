use bytes::Bytes;
use falcon_protocol::message::{Delivery, GroupGrant, GroupHold};
use falcon_protocol::{BatchBuilder, Codec, ErrorCode, OwnerEpoch, Producer, Record, Stamp};

use super::*;
use crate::clock;
use crate::consumer::events::ConsumerEvent;
use crate::error::Refusal;

fn desk(buffer_bytes: u64) -> Desk {
    let rules = Rules {
        buffer_bytes,
        start: StartPosition::Earliest,
        on_damage: OnDamage::Wait,
    };
    Desk::new(MemberId(1), rules, clock::now())
}

fn id(partition: u32) -> PartitionId {
    PartitionId::new(1, partition)
}

fn hold(partition: u32, epoch: u64) -> Hold {
    Hold {
        partition: id(partition),
        epoch: OwnerEpoch(epoch),
    }
}

fn grant(desk: &mut Desk, hold: Hold, committed: u64) {
    let grant = GroupGrant {
        hold: GroupHold {
            partition: hold.partition,
            epoch: hold.epoch,
        },
        topic: "orders".to_owned(),
        committed: Some(Offset(committed)),
    };
    desk.grant(grant, clock::now());
}

fn batch(partition: u32, base: u64, records: u64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    for _ in 0..records {
        builder.push(&Record::new(vec![0; bytes]), 0).unwrap();
    }
    let batch = Batch::from_bytes(builder.build(Producer::default()).unwrap()).unwrap();
    let stamp = Stamp {
        partition: id(partition),
        base_offset: Offset(base),
        append_time_ms: 5,
        epoch: 0,
    };
    batch.stamped(&stamp).unwrap().bytes().clone()
}

fn deliver(desk: &mut Desk, ask: &Ask, batches: Bytes, end: u64) {
    let delivery = Delivery {
        partition: ask.hold.partition.partition,
        log_start: Offset::ZERO,
        high_watermark: Offset(end),
        batches,
    };
    assert_eq!(desk.fetched(ask, delivery), None);
}

/// The next record, with what is between.
fn take(desk: &mut Desk, limit: Option<usize>) -> Option<Delivered> {
    loop {
        match desk.take(clock::now(), limit) {
            Taken::Record(record) => return Some(record),
            Taken::Check(unopened) => {
                let checked = check(&unopened);
                assert_eq!(desk.checked(&unopened, checked), None);
            }
            Taken::Nothing => return None,
            Taken::Error(error) => panic!("{error}"),
            Taken::End => panic!("it is open"),
        }
    }
}

fn want(desk: &mut Desk, record: &Delivered) -> Result<Pledge, CommitError> {
    let hold = record.grant.expect("a consumer's").hold;
    desk.want(&hold, &record.topic, record.next_offset())
}

#[test]
fn partitions_take_turns_and_a_full_one_asks_for_no_more() {
    let mut desk = desk(1);
    grant(&mut desk, hold(0, 1), 0);
    grant(&mut desk, hold(1, 1), 0);
    let (first, second) = (desk.ask().unwrap(), desk.ask().unwrap());
    assert!(desk.ask().is_none(), "one request each");
    deliver(&mut desk, &first, batch(0, 0, 2, 40_000), 4);
    deliver(&mut desk, &second, batch(1, 0, 2, 10), 4);
    let again = desk.ask().unwrap();
    assert_eq!(again.hold.partition, id(1), "the first is full");
    let order: Vec<u32> = (0..4)
        .map(|_| take(&mut desk, None).unwrap().partition.0)
        .collect();
    assert_eq!(order, [0, 0, 1, 1]);
    assert!(take(&mut desk, None).is_none());
    assert_eq!(desk.ask().unwrap().hold.partition, id(0), "there is room");
}

#[test]
fn a_grant_starts_at_the_committed_offset_inside_of_a_batch() {
    let mut desk = desk(1 << 20);
    grant(&mut desk, hold(0, 1), 3);
    let ask = desk.ask().unwrap();
    assert!(matches!(
        ask.want,
        Want::Records {
            offset: Offset(3),
            ..
        }
    ));
    deliver(&mut desk, &ask, batch(0, 0, 5, 1), 5);
    assert_eq!(take(&mut desk, None).unwrap().offset, Offset(3));
    assert_eq!(take(&mut desk, None).unwrap().offset, Offset(4));
    assert!(take(&mut desk, None).is_none() && desk.take_end());
}

#[test]
fn commits_are_collected_and_go_back_after_a_seek_only() {
    let mut desk = desk(1 << 20);
    grant(&mut desk, hold(0, 1), 0);
    let ask = desk.ask().unwrap();
    deliver(&mut desk, &ask, batch(0, 0, 4, 1), 4);
    let records: Vec<Delivered> = (0..4).map(|_| take(&mut desk, None).unwrap()).collect();
    for number in [2, 0, 1] {
        assert!(matches!(
            want(&mut desk, &records[number]),
            Ok(Pledge::Open(_))
        ));
    }
    let entries = desk.take_dirty(10);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].commit.offset, Offset(3));
    desk.stored(entries);
    assert!(matches!(want(&mut desk, &records[0]), Ok(Pledge::Done)));
    assert!(desk.seek(&hold(0, 1), Place::At(Offset(1))));
    assert!(matches!(want(&mut desk, &records[0]), Ok(Pledge::Open(_))));
    let entries = desk.take_dirty(10);
    assert!(entries[0].commit.may_rewind && entries[0].commit.offset == Offset(1));
    desk.stored(entries);
    assert_eq!(desk.held(&hold(0, 1)).unwrap().committed, Some(Offset(1)));
}

#[test]
fn what_was_lost_is_dropped_and_its_commits_are_stale_also_when_it_comes_back() {
    let mut desk = desk(1 << 20);
    grant(&mut desk, hold(0, 1), 0);
    let ask = desk.ask().unwrap();
    deliver(&mut desk, &ask, batch(0, 0, 4, 1), 4);
    let record = take(&mut desk, None).unwrap();
    let Ok(Pledge::Open(mut answer)) = want(&mut desk, &record) else {
        panic!("it is held");
    };
    desk.remove(&hold(0, 1)).unwrap();
    assert!(matches!(
        answer.try_recv(),
        Ok(Err(CommitError::StaleOwner { .. }))
    ));
    assert!(take(&mut desk, None).is_none());
    grant(&mut desk, hold(0, 2), 0);
    assert!(matches!(
        want(&mut desk, &record),
        Err(CommitError::StaleOwner { .. })
    ));
    assert_eq!(
        desk.fetched(
            &ask,
            Delivery {
                partition: Partition(0),
                log_start: Offset::ZERO,
                high_watermark: Offset(4),
                batches: batch(0, 0, 4, 1),
            }
        ),
        None
    );
    assert!(
        take(&mut desk, None).is_none(),
        "the answer was for the older grant"
    );
    let (pledges, error) = desk.want_all();
    assert!(pledges.is_empty() && matches!(error, Some(CommitError::StaleOwner { .. })));
}

#[test]
fn a_revoked_partition_waits_for_commits_but_not_for_ever() {
    let mut desk = desk(1 << 20);
    let patience = Duration::from_secs(10);
    grant(&mut desk, hold(0, 1), 0);
    let ask = desk.ask().unwrap();
    deliver(&mut desk, &ask, batch(0, 0, 4, 1), 4);
    let record = take(&mut desk, None).unwrap();
    let now = clock::now();
    desk.revoke(&hold(0, 1), now);
    assert!(take(&mut desk, None).is_none());
    assert!(desk.releasable(patience, now).is_empty());
    assert_eq!(desk.releasable(patience, now + patience), [hold(0, 1)]);
    assert!(matches!(want(&mut desk, &record), Ok(Pledge::Open(_))));
    assert!(
        desk.releasable(patience, now + patience).is_empty(),
        "it is being stored"
    );
    let entries = desk.take_dirty(10);
    desk.stored(entries);
    assert_eq!(desk.releasable(patience, now), [hold(0, 1)]);
}

#[test]
fn handlers_of_a_revoked_partition_end_and_those_not_begun_never_begin() {
    let mut desk = desk(1 << 20);
    grant(&mut desk, hold(0, 1), 0);
    let ask = desk.ask().unwrap();
    deliver(&mut desk, &ask, batch(0, 0, 4, 1), 4);
    let records: Vec<Delivered> = (0..3).map(|_| take(&mut desk, Some(3)).unwrap()).collect();
    assert!(
        take(&mut desk, Some(3)).is_none(),
        "three may be unfinished"
    );
    let grants: Vec<Grant> = records.iter().map(|r| r.grant.unwrap()).collect();
    assert!(desk.begin(&grants[0], Offset(0)));
    assert!(matches!(
        want(&mut desk, &records[1]),
        Err(CommitError::SkipsUnfinished {
            first: Offset(0),
            ..
        })
    ));
    let now = clock::now();
    desk.revoke(&hold(0, 1), now);
    assert!(!desk.begin(&grants[1], Offset(1)) && !desk.begin(&grants[2], Offset(2)));
    assert!(desk.releasable(Duration::ZERO, now).is_empty());
    assert_eq!(desk.finish(&grants[0], Offset(0)), Finished::Yes);
    assert!(desk.want_finished());
    let entries = desk.take_dirty(10);
    assert_eq!(
        entries[0].commit.offset,
        Offset(1),
        "not over what never began"
    );
    desk.stored(entries);
    assert_eq!(desk.releasable(Duration::ZERO, now), [hold(0, 1)]);
    desk.remove(&hold(0, 1));
    assert_eq!(desk.finish(&grants[1], Offset(1)), Finished::Stale);
}

#[test]
fn records_that_retention_took_are_skipped_and_damage_holds_the_partition() {
    let mut desk = desk(1 << 20);
    grant(&mut desk, hold(0, 1), 3);
    let ask = desk.ask().unwrap();
    let mut refusal = Refusal::bare(ErrorCode::OffsetOutOfRange);
    (refusal.low, refusal.high) = (10, 20);
    let event = desk.refused(&ask, &refusal).unwrap();
    assert!(
        matches!(event, ConsumerEvent::Skipped { range, .. } if range == (Offset(3)..Offset(10)))
    );
    let ask = desk.ask().unwrap();
    deliver(&mut desk, &ask, batch(0, 10, 2, 1), 20);
    assert_eq!(take(&mut desk, None).unwrap().offset, Offset(10));
    assert_eq!(take(&mut desk, None).unwrap().offset, Offset(11));
    let ask = desk.ask().unwrap();
    let mut refusal = Refusal::bare(ErrorCode::DamagedRange);
    (refusal.low, refusal.high) = (12, 15);
    assert!(matches!(
        desk.refused(&ask, &refusal),
        Some(ConsumerEvent::Damaged { .. })
    ));
    let ask = desk.ask().unwrap();
    assert!(ask.delay.is_some(), "tried again, later");
    assert_eq!(desk.refused(&ask, &refusal), None, "told once");
    assert!(desk.seek(&hold(0, 1), Place::At(Offset(15))));
    let ask = desk.ask().unwrap();
    assert!(
        ask.delay.is_none()
            && matches!(
                ask.want,
                Want::Records {
                    offset: Offset(15),
                    ..
                }
            )
    );
}
