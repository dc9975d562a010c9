//! Bad histories are found bad for the right reason, good ones pass.

use proptest::prelude::*;

use super::*;
use crate::history::{NO_OFFSET, ValueId};

fn value(publisher: u32, sequence: u32) -> ValueId {
    ValueId {
        publisher,
        sequence,
    }
}

fn entry(op: Op, value: ValueId, partition: u16, offset: u64) -> Entry {
    Entry {
        op,
        outcome: Outcome::Ok,
        partition,
        actor: 0,
        value,
        offset,
        invoked_ns: 0,
        completed_ns: 0,
    }
}

fn acked(value: ValueId, partition: u16, offset: u64) -> Entry {
    entry(Op::Publish, value, partition, offset)
}

fn stored(value: ValueId, partition: u16, offset: u64) -> Entry {
    entry(Op::FinalRead, value, partition, offset)
}

fn read(value: ValueId, partition: u16, offset: u64) -> Entry {
    entry(Op::Read, value, partition, offset)
}

fn not_acked(value: ValueId, outcome: Outcome) -> Entry {
    Entry {
        outcome,
        ..acked(value, 0, NO_OFFSET)
    }
}

fn group(op: Op, offset: u64, invoked_ns: u64, completed_ns: u64) -> Entry {
    Entry {
        invoked_ns,
        completed_ns,
        ..entry(op, ValueId::FOREIGN, 0, offset)
    }
}

/// Two values acknowledged, stored, and given to a subscriber.
fn good() -> Vec<Entry> {
    let (a, b) = (value(1, 0), value(1, 1));
    vec![
        acked(a, 0, 0),
        acked(b, 0, 1),
        read(a, 0, 0),
        read(b, 0, 1),
        stored(a, 0, 0),
        stored(b, 0, 1),
    ]
}

#[track_caller]
fn finds(history: &[Entry], expected: &[(Violation, u64)]) {
    let verdict = check(history).unwrap();
    let found: Vec<(Violation, u64)> = verdict.violations.clone().into_iter().collect();
    assert_eq!(found, expected, "{:#?}", verdict.examples);
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let mut history = good();
    history.push(not_acked(value(2, 0), Outcome::Unknown));
    history.push(not_acked(value(2, 1), Outcome::Failed));
    finds(&history, &[]);
    let counts = check(&history[..]).unwrap().counts;
    let expected = Counts {
        acked: 2,
        failed: 1,
        unknown: 1,
        stored: 2,
        read: 2,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn what_is_unknown_may_be_there_or_not() {
    let mut history = good();
    history.push(not_acked(value(2, 0), Outcome::Unknown));
    history.push(not_acked(value(2, 1), Outcome::Unknown));
    history.push(stored(value(2, 1), 0, 2));
    finds(&history, &[]);
}

#[test]
fn an_acknowledged_value_that_is_not_there_is_lost() {
    let mut history = good();
    history.push(acked(value(1, 2), 0, 2));
    finds(&history, &[(Violation::Lost, 1)]);
}

#[test]
fn a_value_nobody_sent_is_a_phantom() {
    for foreign in [value(1, 2), value(9, 0), ValueId::FOREIGN] {
        let history = [good(), vec![stored(foreign, 0, 2)]].concat();
        finds(&history, &[(Violation::Phantom, 1)]);
    }
    let mut history = good();
    history.push(Entry {
        actor: 1,
        ..read(value(3, 3), 0, 0)
    });
    finds(&history, &[(Violation::Phantom, 1)]);
}

#[test]
fn a_refused_value_that_is_there_is_a_phantom() {
    let mut history = good();
    history.push(not_acked(value(2, 0), Outcome::Failed));
    history.push(stored(value(2, 0), 0, 2));
    finds(&history, &[(Violation::Phantom, 1)]);
}

#[test]
fn a_value_stored_twice_is_a_duplicate() {
    let mut history = good();
    history.push(stored(value(1, 1), 0, 2));
    finds(&history, &[(Violation::Duplicate, 1)]);
    let mut history = good();
    history.push(stored(value(1, 1), 1, 0));
    finds(&history, &[(Violation::Duplicate, 1)]);
}

#[test]
fn an_offset_given_twice_is_a_duplicate() {
    let mut history = good();
    history.push(not_acked(value(2, 0), Outcome::Unknown));
    history.push(stored(value(2, 0), 0, 1));
    finds(&history, &[(Violation::Duplicate, 1)]);
    let mut history = good();
    history.push(read(value(1, 1), 0, 1));
    finds(&history, &[(Violation::Duplicate, 1)]);
}

#[test]
fn another_order_than_sent_is_found() {
    let (a, b) = (value(1, 0), value(1, 1));
    let swapped = [
        acked(a, 0, 1),
        acked(b, 0, 0),
        stored(b, 0, 0),
        stored(a, 0, 1),
    ];
    finds(&swapped, &[(Violation::Reordered, 1)]);
    let apart = [
        acked(a, 0, 0),
        acked(b, 1, 0),
        stored(b, 1, 0),
        stored(a, 0, 0),
    ];
    finds(&apart, &[]);
}

#[test]
fn an_offset_other_than_acknowledged_or_read_is_found() {
    for (op, partition, offset) in [
        (Op::Publish, 0, 7),
        (Op::Publish, 1, 0),
        (Op::Read, 1, 0),
        (Op::Read, 0, 1),
    ] {
        let mut history = good();
        let first = history.iter_mut().find(|entry| entry.op == op).unwrap();
        (first.partition, first.offset) = (partition, offset);
        let verdict = check(&history[..]).unwrap();
        assert_eq!(verdict.count(Violation::OffsetMismatch), 1);
    }
}

#[test]
fn offsets_left_out_are_a_gap() {
    let mut history = good();
    history.push(acked(value(1, 2), 0, 3));
    history.push(stored(value(1, 2), 0, 3));
    finds(&history, &[(Violation::Gap, 1)]);
    history = good();
    history.push(acked(value(1, 2), 1, 1));
    history.push(stored(value(1, 2), 1, 1));
    finds(&history, &[(Violation::Gap, 1)]);
    history = good();
    history.push(acked(value(1, 2), 0, 2));
    history.push(acked(value(1, 3), 0, 3));
    history.push(stored(value(1, 2), 0, 2));
    history.push(stored(value(1, 3), 0, 3));
    history.push(read(value(1, 3), 0, 3));
    finds(&history, &[(Violation::Gap, 1)]);
}

#[test]
fn what_a_subscriber_saw_and_is_gone_was_read_before_durable() {
    let mut history = good();
    history.push(not_acked(value(2, 0), Outcome::Unknown));
    history.push(read(value(2, 0), 0, 2));
    finds(&history, &[(Violation::ReadBeforeDurable, 1)]);
}

#[test]
fn a_committed_offset_that_went_back_is_found() {
    let commits = [group(Op::Commit, 5, 0, 1), group(Op::Commit, 9, 2, 4)];
    let with = |offset, invoked, completed| {
        let fetch = group(Op::Fetch, offset, invoked, completed);
        [&commits[..], &[fetch]].concat()
    };
    finds(&with(9, 5, 6), &[]);
    finds(&with(5, 5, 6), &[(Violation::CommitRegression, 1)]);
    finds(&with(NO_OFFSET, 5, 6), &[(Violation::CommitRegression, 1)]);
    finds(&with(5, 3, 6), &[]);
    finds(&with(9, 3, 6), &[]);
    finds(&with(4, 3, 6), &[(Violation::CommitRegression, 1)]);
    finds(&with(10, 5, 6), &[(Violation::Phantom, 1)]);
    finds(&with(9, 0, 1), &[(Violation::Phantom, 1)]);
    finds(&with(NO_OFFSET, 0, 1), &[]);
}

#[test]
fn a_commit_of_unknown_outcome_may_count_and_a_failed_one_may_not() {
    let late = |outcome| Entry {
        outcome,
        ..group(Op::Commit, 9, 2, 3)
    };
    let history = |outcome, found| {
        let fetch = group(Op::Fetch, found, 5, 6);
        [group(Op::Commit, 5, 0, 1), late(outcome), fetch]
    };
    finds(&history(Outcome::Unknown, 5), &[]);
    finds(&history(Outcome::Unknown, 9), &[]);
    finds(&history(Outcome::Failed, 5), &[]);
    finds(&history(Outcome::Failed, 9), &[(Violation::Phantom, 1)]);
}

#[test]
fn with_retention_old_records_may_be_gone_and_newer_ones_may_not() {
    let values: Vec<ValueId> = (0..6).map(|sequence| value(1, sequence)).collect();
    let mut history = Vec::new();
    for (value, offset) in values.iter().zip(0..) {
        history.push(acked(*value, 0, offset));
        history.push(read(*value, 0, offset));
    }
    let found = |kept: &[usize]| {
        let mut history = history.clone();
        history.extend(kept.iter().map(|at| stored(values[*at], 0, *at as u64)));
        let verdict = check_trimmed(&history[..]).unwrap();
        verdict.violations.into_keys().collect::<Vec<Violation>>()
    };
    assert_eq!(found(&[2, 3, 4, 5]), []);
    let gone = [Violation::Lost, Violation::ReadBeforeDurable];
    assert_eq!(found(&[2, 3, 4]), gone);
    assert_eq!(found(&[]), gone);
    assert_eq!(found(&[2, 3, 5]), [gone[0], Violation::Gap, gone[1]]);
}

#[test]
fn a_history_with_holes_or_too_far_is_not_judged() {
    let holes = [acked(value(1, 1), 0, 0)];
    assert!(check(&holes[..]).is_err());
    let twice = [acked(value(1, 0), 0, 0), acked(value(1, 0), 0, 0)];
    assert!(check(&twice[..]).is_err());
    let far = u64::from(u32::MAX);
    let far = [acked(value(1, 0), 0, far), stored(value(1, 0), 0, far)];
    assert!(check(&far[..]).is_err());
}

/// A run that kept every promise: publishers over partitions, everything acknowledged, one subscriber.
fn run(plan: &[(u32, u16)]) -> Vec<Entry> {
    let mut history = Vec::new();
    let mut sent: HashMap<u32, u32> = HashMap::new();
    let mut ends: HashMap<u16, u64> = HashMap::new();
    for (publisher, partition) in plan {
        let sequence = sent.entry(*publisher).or_default();
        let end = ends.entry(*partition).or_default();
        let value = value(*publisher, *sequence);
        history.push(acked(value, *partition, *end));
        history.push(read(value, *partition, *end));
        history.push(stored(value, *partition, *end));
        *sequence += 1;
        *end += 1;
    }
    history
}

proptest! {
    #[test]
    fn any_single_change_of_a_good_history_is_found(
        plan in prop::collection::vec((0_u32..3, 0_u16..3), 2..60),
        at in any::<prop::sample::Index>(),
        change in 0..5,
    ) {
        let mut history = run(&plan);
        prop_assert!(check(&history[..]).unwrap().is_clean());
        let at = at.index(plan.len());
        let place = 3 * at + 2;
        let expected = match change {
            0 => {
                history.remove(place);
                Violation::Lost
            }
            1 => {
                history[place].value = ValueId::FOREIGN;
                Violation::Phantom
            }
            2 => {
                let copy = history[place];
                history.push(copy);
                Violation::Duplicate
            }
            3 => {
                history[3 * at].offset += 1;
                Violation::OffsetMismatch
            }
            _ => {
                history.remove(place);
                Violation::ReadBeforeDurable
            }
        };
        let verdict = check(&history[..]).unwrap();
        prop_assert!(verdict.count(expected) > 0, "{expected}: {verdict:?}");
    }

    #[test]
    fn two_values_that_change_places_are_found(
        plan in prop::collection::vec((0_u32..3, 0_u16..3), 2..60),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let mut history = run(&plan);
        let (a, b) = (3 * a.index(plan.len()) + 2, 3 * b.index(plan.len()) + 2);
        prop_assume!(a != b);
        let (first, second) = (history[a].value, history[b].value);
        (history[a].value, history[b].value) = (second, first);
        prop_assert!(!check(&history[..]).unwrap().is_clean());
    }
}
