use super::super::state::EPOCH_FIRST;
use super::*;

const MINUTE_MS: i64 = 60_000;

fn refused_for_good(rig: &Rig, topic: TopicId, old: &ProducerGranted) {
    for partition in 0..2 {
        let id = PartitionId {
            topic,
            ..PartitionId::new(0, partition)
        };
        for base_sequence in 0..3 {
            let producer = sequence(old.producer_id, old.epoch, base_sequence);
            let producer_id = old.producer_id;
            let forgotten = AdmitError::Forgotten { producer_id };
            let refused = rig.publish(id, producer);
            assert_eq!(refused, Err(PublishError::Admit(forgotten)));
        }
    }
}

#[test]
fn a_silent_name_is_forgotten_and_its_older_publishers_stay_refused() {
    let mut rig = Rig::new();
    let topic = rig.create("t", 2).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    let old = rig.init(Some("billing-1")).expect("granted");
    rig.publish(id, sequence(old.producer_id, old.epoch, 0))
        .expect("published");
    rig.send(Command::ExpireProducers(i64::MAX));
    refused_for_good(&rig, topic, &old);

    let new = rig.init(Some("billing-1")).expect("granted");
    assert!(new.producer_id > old.producer_id, "{new:?} after {old:?}");
    assert_eq!(new.epoch, EPOCH_FIRST);
    refused_for_good(&rig, topic, &old);
    rig.publish(id, sequence(new.producer_id, new.epoch, 0))
        .expect("published");

    // After a kill the journal has the row of the first grant before that of the second; after a clean stop
    // its newest snapshot knows only the second.
    let killed = rig.disk.killed();
    rig.stop();
    let mut rig = Rig::on(killed);
    refused_for_good(&rig, topic, &old);
    rig.restart();
    refused_for_good(&rig, topic, &old);
    rig.publish(id, sequence(new.producer_id, new.epoch, 1))
        .expect("published");
}

#[test]
fn a_name_in_use_is_kept_and_a_start_begins_its_time_anew() {
    let mut rig = Rig::new();
    let topic = rig.create("t", 1).expect("created");
    let id = PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    };
    let granted = rig.init(Some("billing-1")).expect("granted");
    let before_ms = crate::clock::now_unix_ms() - MINUTE_MS;
    for base_sequence in 0..3 {
        rig.send(Command::ExpireProducers(before_ms));
        let producer = sequence(granted.producer_id, granted.epoch, base_sequence);
        rig.publish(id, producer).expect("published");
        rig.restart();
    }
    let next = rig.init(Some("billing-1")).expect("granted");
    assert_eq!(
        (next.producer_id, next.epoch),
        (granted.producer_id, granted.epoch + 1)
    );
}

#[test]
fn names_beyond_the_limit_wait_for_silent_ones() {
    let mut state = State::new(LIMITS);
    let mut init = |name: &str, now_ms| state.init_producer(Some(name.to_owned()), now_ms);
    for name in ["a", "b", "c", "d"] {
        init(name, 0).expect("within the limit");
    }
    let granted = init("a", MINUTE_MS).expect("known");
    assert_eq!(granted.epoch, EPOCH_FIRST + 1);
    let refused = init("e", 9 * MINUTE_MS);
    assert!(
        matches!(refused, Err(ProducerError::Limit { limit: 4, .. })),
        "{refused:?}"
    );
    let new = init("e", 10 * MINUTE_MS + 1).expect("b, c and d were silent");
    assert_eq!(new.epoch, EPOCH_FIRST);
    let kept = init("a", 10 * MINUTE_MS + 1).expect("known");
    assert_eq!(
        (kept.producer_id, kept.epoch),
        (granted.producer_id, granted.epoch + 1)
    );
}

#[test]
fn refusals_do_not_search_the_whole_table_each() {
    let mut state = State::new(LIMITS);
    let mut init = |name: &str, now_ms| state.init_producer(Some(name.to_owned()), now_ms);
    for name in ["a", "b", "c", "d"] {
        init(name, 0).expect("within the limit");
    }
    let searched_ms = 10 * MINUTE_MS - 500;
    for now_ms in [searched_ms, 10 * MINUTE_MS + 1, searched_ms + 999] {
        let refused = init("e", now_ms);
        assert!(
            matches!(refused, Err(ProducerError::Limit { .. })),
            "{now_ms}: {refused:?}"
        );
    }
    init("e", searched_ms + 1_000).expect("searched again, and all were silent");
}

#[test]
fn a_name_without_an_epoch_of_its_own_is_never_forgotten() {
    let mut state = State::new(LIMITS);
    let mut value = 7_u64.to_le_bytes().to_vec();
    value.extend_from_slice(&0_u32.to_le_bytes());
    crate::store::Replay::row(
        &mut state,
        crate::store::Table::Publishers,
        b"old",
        Some(&value),
    );
    state.expire_producers(i64::MAX);
    let next = state.init_producer(Some("old".into()), 0).expect("known");
    assert_eq!((next.producer_id, next.epoch), (ProducerId(7), EPOCH_FIRST));
    state.expire_producers(i64::MAX);
    let next = state.init_producer(Some("old".into()), 0).expect("granted");
    assert_ne!(next.producer_id, ProducerId(7));
}
