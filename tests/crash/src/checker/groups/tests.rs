//! Bad histories of groups are found bad for the right reason, good ones pass.

use super::*;

const BOUNDS: Bounds = Bounds {
    ownerless: Duration::from_secs(3),
    blocked: Duration::from_secs(2),
    recovery: Duration::from_secs(1),
};
/// The only partition.
const LOG: u16 = 0;
const A: u32 = 1;
const B: u32 = 2;

const fn ms(time: u64) -> u64 {
    time * 1_000_000
}

fn entry(op: Op, member: u32, epoch: u64, offset: u64) -> Entry {
    Entry {
        op,
        outcome: Outcome::Ok,
        partition: LOG,
        actor: member,
        value: ValueId::of_epoch(epoch),
        offset,
        invoked_ns: 0,
        completed_ns: 0,
    }
}

/// Between two times, milliseconds.
fn within(from: u64, until: u64, entry: Entry) -> Entry {
    Entry {
        invoked_ns: ms(from),
        completed_ns: ms(until),
        ..entry
    }
}

fn own(at: u64, member: u32, epoch: u64) -> Entry {
    within(at, at, entry(Op::Own, member, epoch, 0))
}

fn disown(at: u64, member: u32, epoch: u64) -> Entry {
    within(at, at, entry(Op::Disown, member, epoch, 0))
}

fn handled(at: u64, member: u32, epoch: u64, offset: u64) -> Entry {
    within(at, at + 1, entry(Op::Handled, member, epoch, offset))
}

fn commit(at: u64, member: u32, epoch: u64, offset: u64) -> Entry {
    within(at, at + 1, entry(Op::CommitOwned, member, epoch, offset))
}

fn fetch(at: u64, offset: u64) -> Entry {
    within(at, at + 1, entry(Op::FetchOwned, 0, 0, offset))
}

fn alive(from: u64, until: u64, member: u32) -> Entry {
    within(from, until, entry(Op::Alive, member, 0, 0))
}

fn published(at: u64, offset: u64) -> [Entry; 2] {
    let value = ValueId {
        publisher: 7,
        sequence: u32::try_from(offset).unwrap(),
    };
    [Op::Publish, Op::FinalRead].map(|op| {
        let entry = Entry {
            value,
            ..entry(op, 0, 0, offset)
        };
        within(at, at, entry)
    })
}

/// Four records; member A owns the partition, handles two and commits, leaves at 2,000; B does the rest.
fn good() -> Vec<Entry> {
    let mut history: Vec<Entry> = (0..4).flat_map(|n| published(10, n)).collect();
    history.extend([
        own(100, A, 5),
        handled(200, A, 5, 0),
        handled(300, A, 5, 1),
        commit(400, A, 5, 2),
        fetch(500, 2),
        disown(2_000, A, 5),
        own(2_100, B, 6),
        handled(2_200, B, 6, 2),
        handled(2_300, B, 6, 3),
        commit(2_400, B, 6, 4),
        fetch(2_500, 4),
        alive(50, 2_000, A),
        alive(60, 3_000, B),
    ]);
    history
}

#[track_caller]
fn judged(history: &[Entry], expected: &[(Violation, u64)]) -> GroupCounts {
    let found = check(history, BOUNDS).unwrap();
    let violations: Vec<(Violation, u64)> = found.verdict.violations.into_iter().collect();
    assert_eq!(violations, expected, "{:#?}", found.verdict.examples);
    found.counts
}

/// The good history with other entries.
fn with(more: &[Entry]) -> Vec<Entry> {
    [&good(), more].concat()
}

/// What fits of the good history.
fn only(fits: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    good().into_iter().filter(fits).collect()
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let counts = judged(&good(), &[]);
    let expected = GroupCounts {
        grants: 2,
        epochs: 2,
        handled: 4,
        commits: 2,
        ownerless_ms_max: 100,
        ..GroupCounts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn two_members_under_one_epoch_are_found() {
    judged(&with(&[own(2_150, A, 6)]), &[(Violation::DoubleOwner, 1)]);
}

#[test]
fn a_commit_that_succeeds_after_a_higher_epoch_was_granted_is_found() {
    // What it stored itself before is no news.
    judged(&with(&[commit(2_150, A, 5, 2)]), &[]);
    let mut history = good();
    history.retain(|entry| entry.op != Op::CommitOwned || entry.actor != A);
    let with = |more: &[Entry]| [&history[..], more].concat();
    let stale = commit(2_150, A, 5, 2);
    judged(&with(&[stale]), &[(Violation::DoubleOwner, 1)]);
    for outcome in [Outcome::Failed, Outcome::Unknown] {
        let counts = judged(&with(&[Entry { outcome, ..stale }]), &[]);
        let refused = u64::from(outcome == Outcome::Failed);
        assert_eq!(counts.commits_refused_as_stale, refused);
    }
    // Its end may be heard of late.
    let slow = within(2_050, 2_300, stale);
    judged(&with(&[slow]), &[]);
}

#[test]
fn a_record_that_nobody_handled_is_skipped_once_it_is_committed() {
    let skipped = only(|e| e.op != Op::Handled || e.offset != 3);
    judged(&skipped, &[(Violation::Skipped, 1)]);
    let within_a_grant = only(|e| e.op != Op::Handled || e.offset != 0);
    judged(&within_a_grant, &[(Violation::Skipped, 1)]);
}

#[test]
fn offsets_left_out_under_one_epoch_are_skipped_and_given_twice_handled_again() {
    let left_out = with(&[handled(2_450, B, 6, 5)]);
    judged(&left_out, &[(Violation::Skipped, 1)]);
    let twice = with(&[handled(2_450, B, 6, 3)]);
    judged(&twice, &[(Violation::HandledAgain, 1)]);
}

#[test]
fn what_is_committed_before_it_was_handled_is_found() {
    let early = with(&[commit(250, A, 5, 2)]);
    judged(&early, &[(Violation::CommittedBeforeHandled, 1)]);
    let seen = with(&[fetch(250, 2)]);
    // Found by who only looks, and then gone.
    judged(&seen, &[(Violation::CommittedBeforeHandled, 1)]);
    let refused = Entry {
        outcome: Outcome::Failed,
        ..commit(250, A, 5, 2)
    };
    judged(&with(&[refused]), &[]);
}

#[test]
fn what_was_committed_is_not_handled_again_by_a_later_owner() {
    let mut again = with(&[own(2_600, A, 7), handled(2_700, A, 7, 3)]);
    judged(&again, &[(Violation::HandledAgain, 1)]);
    // Without its commits, which a member makes by itself, those who look know it.
    again.retain(|entry| entry.op != Op::CommitOwned);
    judged(&again, &[(Violation::HandledAgain, 1)]);
    // One that has been fenced may not know it yet.
    let counts = judged(&with(&[handled(2_700, A, 5, 2)]), &[]);
    assert_eq!(counts.redelivered, 1);
}

#[test]
fn a_committed_offset_that_goes_back_is_found() {
    judged(&with(&[fetch(450, 1)]), &[(Violation::CommitRegression, 1)]);
    let lower = with(&[fetch(2_600, 3), fetch(2_700, 4)]);
    judged(&lower, &[(Violation::CommitRegression, 1)]);
}

#[test]
fn what_is_not_committed_in_the_end_is_found() {
    let stopped = only(|e| e.invoked_ns < ms(2_300) || e.op == Op::Alive);
    judged(&stopped, &[(Violation::NotReached, 2)]);
    let never = only(|e| matches!(e.op, Op::Publish | Op::FinalRead));
    let never = [&never[..], &[alive(50, 60, A)]].concat();
    judged(&never, &[(Violation::NotReached, 4)]);
}

/// A ends at 1,000 without a word; B lives on, and owns the partition from a later time.
fn gap(owned: u64, more: &[Entry]) -> Vec<Entry> {
    let base = [
        own(0, A, 5),
        own(owned, B, 6),
        alive(0, 1_000, A),
        alive(0, 20_000, B),
    ];
    [&base, more].concat()
}

#[test]
fn a_partition_without_an_owner_is_found_after_its_time() {
    let counts = judged(&gap(4_000, &[]), &[]);
    assert_eq!(counts.ownerless_ms_max, 3_000);
    judged(&gap(4_001, &[]), &[(Violation::Ownerless, 1)]);
    // Also when nobody ever gets it again, and when it was given up.
    judged(&gap(30_000, &[]), &[(Violation::Ownerless, 1)]);
    let given_up = [own(500, B, 6), disown(600, B, 6)];
    judged(&gap(30_000, &given_up), &[(Violation::Ownerless, 1)]);
}

#[test]
fn time_without_a_broker_or_a_member_does_not_count() {
    let down = within(2_000, 6_000, entry(Op::Down, 0, 0, 0));
    judged(&gap(9_000, &[down]), &[]);
    judged(&gap(9_001, &[down]), &[(Violation::Ownerless, 1)]);
    let mut alone = gap(10_000, &[]);
    alone.retain(|entry| entry.op != Op::Alive || entry.actor == A);
    alone.push(alive(8_000, 20_000, B));
    judged(&alone, &[]);
    // Another member that comes does not begin the time anew; one that dies does.
    let comes = alive(3_000, 20_000, 9);
    judged(&gap(4_001, &[comes]), &[(Violation::Ownerless, 1)]);
    let dies = alive(0, 3_000, 9);
    judged(&gap(6_000, &[dies]), &[]);
    judged(&gap(6_001, &[dies]), &[(Violation::Ownerless, 1)]);
}

#[test]
fn a_member_that_wakes_up_owns_what_nobody_else_was_granted() {
    let woken = [own(0, A, 5), alive(0, 1_000, A), alive(3_500, 20_000, A)];
    let other = alive(0, 20_000, B);
    let history = [&woken[..], &[other]].concat();
    judged(&history, &[]);
    let late = [&history[..], &[own(3_000, B, 6), disown(3_200, B, 6)]].concat();
    judged(&late, &[(Violation::Ownerless, 1)]);
}

#[test]
fn a_partition_that_appears_is_owned_in_time() {
    let exists = within(5_000, 5_000, entry(Op::Exists, 0, 0, 0));
    let of = |owned| [exists, alive(0, 20_000, A), own(owned, A, 5)];
    judged(&of(8_000), &[]);
    judged(&of(8_001), &[(Violation::Ownerless, 1)]);
}

#[test]
fn when_the_machine_stood_still_is_counted_and_not_judged() {
    let hiccup = within(2_000, 2_600, entry(Op::Hiccup, 0, 0, 0));
    let counts = judged(&gap(9_000, &[hiccup]), &[]);
    assert_eq!((counts.ownerless_excluded, counts.ownerless_ms_max), (1, 0));
}

/// A handles two records, the second after some time; member 9 stalls meanwhile.
fn beside(done: u64, more: &[Entry]) -> Vec<Entry> {
    let base = [
        own(0, A, 5),
        alive(0, 20_000, A),
        alive(0, 20_000, 9),
        within(1_000, 9_000, entry(Op::Stalled, 9, 0, 0)),
        handled(1_000, A, 5, 0),
        within(done - 1, done, entry(Op::Handled, A, 5, 1)),
        fetch(done, 2),
    ];
    let records = published(0, 0).into_iter().chain(published(2_000, 1));
    records.chain(base).chain(more.iter().copied()).collect()
}

#[test]
fn a_partition_that_stands_still_while_another_member_stalls_is_found() {
    let counts = judged(&beside(4_000, &[]), &[]);
    assert_eq!(counts.blocked_by_stalled_ms_max, 2_000);
    assert_eq!(counts.handled_beside_stalled, 2);
    judged(&beside(4_001, &[]), &[(Violation::Blocked, 1)]);
}

#[test]
fn who_stalls_freezes_or_has_no_broker_is_not_held_up_by_others() {
    let own_stall = within(1_500, 3_900, entry(Op::Stalled, A, 0, 0));
    judged(&beside(5_000, &[own_stall]), &[]);
    let down = within(2_500, 3_500, entry(Op::Down, 0, 0, 0));
    judged(&beside(5_000, &[down]), &[]);
    let mut frozen = beside(5_000, &[]);
    frozen.retain(|entry| entry.op != Op::Alive || entry.actor != A);
    frozen.extend([alive(0, 2_500, A), alive(4_000, 20_000, A)]);
    judged(&frozen, &[]);
    let mut alone = beside(5_000, &[]);
    alone.retain(|entry| entry.op != Op::Stalled);
    judged(&alone, &[]);
}

#[test]
fn what_steps_publish_is_there_exactly_once() {
    let outputs: Vec<Entry> = good()
        .into_iter()
        .filter(|entry| entry.op == Op::FinalRead)
        .map(|entry| Entry {
            op: Op::Output,
            ..entry
        })
        .collect();
    let counts = judged(&with(&outputs), &[]);
    assert_eq!(counts.outputs, 4);
    let missing = with(&outputs[1..]);
    judged(&missing, &[(Violation::NotExactlyOnce, 1)]);
    let twice = [&with(&outputs)[..], &outputs[..1]].concat();
    judged(&twice, &[(Violation::NotExactlyOnce, 1)]);
    let foreign = Entry {
        value: ValueId::FOREIGN,
        ..outputs[0]
    };
    judged(
        &[&with(&outputs)[..], &[foreign]].concat(),
        &[(Violation::Phantom, 1)],
    );
}
