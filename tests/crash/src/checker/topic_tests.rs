//! Bad histories of topics are found bad for the right reason, good ones pass.

use super::*;
use crate::history::{NO_OFFSET, NO_TOPIC, ValueId};

const NAME: u32 = 3;

fn change(op: Op, outcome: Outcome, number: u32) -> Entry {
    Entry {
        op,
        outcome,
        partition: 1,
        actor: NAME,
        value: ValueId {
            publisher: number,
            sequence: 0,
        },
        offset: NO_OFFSET,
        invoked_ns: 0,
        completed_ns: 0,
    }
}

fn created(number: u32) -> Entry {
    change(Op::CreateTopic, Outcome::Ok, number)
}

fn deleted() -> Entry {
    change(Op::DeleteTopic, Outcome::Ok, NO_TOPIC)
}

fn seen(number: u32) -> Entry {
    change(Op::SeeTopic, Outcome::Ok, number)
}

fn gone() -> Entry {
    seen(NO_TOPIC)
}

fn unknown(op: Op) -> Entry {
    change(op, Outcome::Unknown, NO_TOPIC)
}

fn with_setting(entry: Entry, setting: u64) -> Entry {
    Entry {
        offset: setting,
        ..entry
    }
}

fn record(op: Op, (publisher, sequence): (u32, u32), offset: u64) -> Entry {
    Entry {
        partition: 0,
        value: ValueId {
            publisher,
            sequence,
        },
        offset,
        ..change(op, Outcome::Ok, 0)
    }
}

fn acked(value: (u32, u32), offset: u64) -> Entry {
    record(Op::TopicPublish, value, offset)
}

fn read(value: (u32, u32), offset: u64) -> Entry {
    record(Op::TopicRead, value, offset)
}

fn end(offset: u64) -> Entry {
    record(Op::TopicEnd, (0, 0), offset)
}

#[track_caller]
fn finds(history: &[Entry], expected: &[(Violation, u64)]) {
    let verdict = check(history).unwrap();
    let found: Vec<(Violation, u64)> = verdict.violations.clone().into_iter().collect();
    assert_eq!(found, expected, "{:#?}", verdict.examples);
}

/// Two lives of a name, with two records each.
fn good() -> Vec<Entry> {
    let mut history = Vec::new();
    for (number, publisher) in [(5, 1), (7, 2)] {
        let records = [(publisher, 0), (publisher, 1)];
        history.extend([gone(), created(number), seen(number)]);
        history.extend(records.iter().zip(0..).map(|(value, at)| acked(*value, at)));
        history.extend(records.iter().zip(0..).map(|(value, at)| read(*value, at)));
        history.extend([end(2), deleted()]);
    }
    history
}

#[test]
fn a_good_history_of_topics_passes_and_is_counted() {
    finds(&good(), &[]);
    let counts = check(&good()[..]).unwrap().counts;
    let expected = Counts {
        topics_created: 2,
        topics_deleted: 2,
        topic_acked: 4,
        topic_read: 4,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn a_topic_that_was_created_and_is_not_there_is_lost() {
    finds(&[created(5), gone()], &[(Violation::TopicLost, 1)]);
    finds(&[created(5), seen(6)], &[(Violation::TopicLost, 1)]);
    finds(&[created(5), created(6)], &[(Violation::TopicLost, 1)]);
    let seen_first = [unknown(Op::CreateTopic), seen(5), gone()];
    finds(&seen_first, &[(Violation::TopicLost, 1)]);
}

#[test]
fn a_deleted_topic_that_is_there_came_back() {
    let found = [
        (Violation::TopicReturned, 1),
        (Violation::TopicNumberReused, 1),
    ];
    finds(&[created(5), deleted(), seen(5)], &found);
    let seen_gone = [created(5), unknown(Op::DeleteTopic), gone(), seen(5)];
    finds(&seen_gone, &found);
    finds(&[seen(5)], &found[..1]);
    finds(&[created(5), deleted(), deleted()], &found[..1]);
}

#[test]
fn a_number_given_twice_is_found_in_one_name_and_in_two() {
    let reused = [(Violation::TopicNumberReused, 1)];
    finds(&[created(5), deleted(), created(5)], &reused);
    let other = Entry {
        actor: NAME + 1,
        ..created(5)
    };
    finds(&[created(5), other], &reused);
    let unsure = [created(5), deleted(), unknown(Op::CreateTopic), seen(5)];
    finds(&unsure, &reused);
}

#[test]
fn what_is_unknown_may_have_happened_or_not() {
    let create = unknown(Op::CreateTopic);
    finds(&[create, gone(), created(5)], &[]);
    finds(&[create, seen(5), deleted()], &[]);
    finds(&[create, gone(), seen(5)], &[]);
    finds(&[create, deleted(), gone()], &[]);
    let delete = unknown(Op::DeleteTopic);
    finds(&[created(5), delete, gone(), created(6)], &[]);
    finds(&[created(5), delete, seen(5), deleted()], &[]);
    finds(&[created(5), delete, created(6), seen(6)], &[]);
    finds(&[created(5), delete, deleted(), gone()], &[]);
}

#[test]
fn what_failed_has_changed_nothing() {
    let failed = |op| change(op, Outcome::Failed, NO_TOPIC);
    finds(&[failed(Op::CreateTopic), gone()], &[]);
    finds(&[created(5), failed(Op::DeleteTopic), seen(5)], &[]);
    finds(
        &[failed(Op::CreateTopic), seen(5)],
        &[(Violation::TopicReturned, 1)],
    );
}

#[test]
fn records_of_an_older_topic_of_the_name_or_of_another_name_are_mixed() {
    let mixed = [(Violation::TopicMixed, 1)];
    let history = [good(), vec![created(8), read((1, 0), 0)]].concat();
    finds(&history, &mixed);
    let other = Entry {
        actor: NAME + 1,
        ..acked((9, 0), 0)
    };
    // Also when the other name's entries come later.
    finds(&[created(5), read((9, 0), 0), other], &mixed);
}

#[test]
fn records_of_a_short_lived_topic_in_the_lasting_one_and_the_other_way_round_are_phantoms() {
    let phantom = [(Violation::Phantom, 1)];
    let lasting = record(Op::FinalRead, (1, 0), 0);
    finds(&[created(5), acked((1, 0), 0), lasting], &phantom);
    let sent = record(Op::Publish, (1, 0), 0);
    let stored = record(Op::FinalRead, (1, 0), 0);
    finds(&[sent, stored, created(5), read((1, 0), 0)], &phantom);
}

#[test]
fn records_of_a_topic_that_are_not_there_any_more_are_lost() {
    let before = [created(5), acked((1, 0), 0), acked((1, 1), 1)];
    let with = |rest: &[Entry]| [&before[..], rest].concat();
    finds(&with(&[read((1, 0), 0), end(1)]), &[(Violation::Lost, 1)]);
    finds(&with(&[end(0)]), &[(Violation::Lost, 1)]);
    let given_up = Entry {
        outcome: Outcome::Unknown,
        ..end(1)
    };
    let twice = [
        read((1, 0), 0),
        given_up,
        read((1, 0), 0),
        read((1, 1), 1),
        end(2),
    ];
    finds(&with(&twice), &[]);
}

#[test]
fn records_of_a_topic_at_wrong_places_are_found() {
    let before = [created(5), acked((1, 0), 0), acked((1, 1), 1)];
    let with = |rest: &[Entry]| [&before[..], rest].concat();
    finds(&with(&[read((1, 1), 1)]), &[(Violation::Gap, 1)]);
    let twice = [read((1, 0), 0), read((1, 0), 0)];
    finds(&with(&twice), &[(Violation::Duplicate, 1)]);
    let verdict = check(&with(&[read((1, 1), 0), read((1, 0), 1)])[..]).unwrap();
    assert_eq!(verdict.count(Violation::OffsetMismatch), 2, "{verdict:?}");
    assert_eq!(verdict.count(Violation::Reordered), 1, "{verdict:?}");
    finds(&with(&[read((4, 0), 0)]), &[(Violation::Phantom, 1)]);
}

#[test]
fn a_refused_record_that_is_in_a_topic_is_a_phantom_and_an_unknown_one_may_be() {
    let sent = |outcome| Entry {
        outcome,
        ..acked((1, 0), NO_OFFSET)
    };
    let found = |outcome| [created(5), sent(outcome), read((1, 0), 0), end(1)];
    finds(&found(Outcome::Unknown), &[]);
    let phantom = [(Violation::Phantom, 1)];
    finds(&found(Outcome::Failed)[..3], &phantom);
    let later = [created(5), sent(Outcome::Failed), acked((1, 1), 0)];
    finds(&[&later[..], &[read((1, 0), 0)]].concat(), &phantom);
}

#[test]
fn settings_and_partitions_are_those_that_were_acknowledged() {
    let wrong = [(Violation::TopicSettings, 1)];
    let alter = |outcome, setting| with_setting(change(Op::AlterTopic, outcome, 5), setting);
    let found = |setting| with_setting(seen(5), setting);
    finds(&[created(5), found(9)], &wrong);
    finds(&[created(5), alter(Outcome::Ok, 9), found(9)], &[]);
    finds(&[created(5), alter(Outcome::Ok, 9), seen(5)], &wrong);
    for setting in [NO_OFFSET, 9] {
        let unsure = alter(Outcome::Unknown, 9);
        finds(&[created(5), unsure, found(setting), found(setting)], &[]);
        let flips = [created(5), unsure, found(setting), found(!setting)];
        finds(&flips, &wrong);
    }
    let more = Entry {
        partition: 2,
        ..seen(5)
    };
    finds(&[created(5), more], &wrong);
    finds(&[unknown(Op::CreateTopic), more], &wrong);
}
