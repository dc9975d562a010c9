use falcon_protocol::message::{AssignorKind, GroupGrant};
use falcon_protocol::{ErrorCode, Offset};

use super::*;

const SESSION: u64 = 6000;

fn wish() -> Wish {
    Wish {
        instance: None,
        patterns: vec!["orders.>".into()],
        assignor: AssignorKind::Sticky,
        session_ms: SESSION,
    }
}

fn hold(partition: u32, epoch: u64) -> GroupHold {
    GroupHold {
        partition: PartitionId::new(1, partition),
        epoch: OwnerEpoch(epoch),
    }
}

fn grant(partition: u32, epoch: u64) -> GroupGrant {
    GroupGrant {
        hold: hold(partition, epoch),
        topic: "orders.eu".into(),
        committed: Some(Offset(7)),
    }
}

fn news(sequence: u64) -> GroupNews {
    GroupNews {
        sequence,
        generation: 1,
        lost: Vec::new(),
        revoked: Vec::new(),
        granted: Vec::new(),
    }
}

fn all(member: &mut Member, now: u64) -> Vec<Output> {
    std::iter::from_fn(|| member.poll(now)).collect()
}

fn answer(member: &mut Member, now: u64, news: GroupNews) -> Vec<Output> {
    member.handle(now, Input::Answered(news.sequence, Answer::News(news)));
    all(member, now)
}

fn report(output: Option<&Output>) -> GroupReport {
    match output {
        Some(Output::Heartbeat(report)) => report.clone(),
        Some(Output::Join(join)) => join.report.clone(),
        other => panic!("{other:?} is no request"),
    }
}

/// Joined at 0, holding partitions 0 and 1 under epoch 5; request 2 is out.
fn joined() -> Member {
    let mut member = Member::new("g", MemberId(1), wish());
    let first = all(&mut member, 0);
    assert!(matches!(first[..], [Output::Join(_)]));
    let granted = vec![grant(0, 5), grant(1, 5)];
    let out = answer(&mut member, 0, GroupNews { granted, ..news(1) });
    let events = [
        Output::Joined,
        Output::Granted(grant(0, 5)),
        Output::Granted(grant(1, 5)),
    ];
    assert_eq!(out[..3], events);
    assert_eq!(report(out.get(3)).holds, [hold(0, 5), hold(1, 5)]);
    member
}

#[test]
fn what_is_released_is_left_out_of_one_request_for_all_of_it() {
    let mut member = joined();
    let revoked = vec![hold(0, 5), hold(1, 5)];
    let out = answer(&mut member, 10, GroupNews { revoked, ..news(2) });
    assert_eq!(
        out[..2],
        [Output::Revoke(hold(0, 5)), Output::Revoke(hold(1, 5))]
    );
    assert_eq!(report(out.get(2)).holds.len(), 2);
    // A release of an older grant means nothing.
    member.handle(20, Input::Released(hold(0, 4)));
    assert_eq!(all(&mut member, 20), []);
    member.handle(30, Input::Released(hold(0, 5)));
    member.handle(30, Input::Released(hold(1, 5)));
    let out = all(&mut member, 30);
    assert_eq!(out.len(), 1);
    assert_eq!(
        (report(out.first()).holds, report(out.first()).seen),
        (vec![], 2)
    );
}

#[test]
fn only_the_answer_to_the_last_request_counts() {
    let mut member = joined();
    member.handle(10, Input::Stale(hold(0, 5)));
    let out = all(&mut member, 10);
    assert_eq!(out[0], Output::Fenced(hold(0, 5)));
    assert_eq!(
        (report(out.get(1)).sequence, report(out.get(1)).seen),
        (3, 1)
    );
    let granted = vec![grant(7, 9)];
    assert_eq!(
        answer(&mut member, 20, GroupNews { granted, ..news(2) }),
        []
    );
    assert_eq!(member.epoch(PartitionId::new(1, 7)), None);
}

#[test]
fn an_unknown_member_joins_with_what_it_holds() {
    let mut member = joined();
    member.handle(10, Input::Answered(2, Answer::UnknownMember));
    let out = all(&mut member, 10);
    assert_eq!(out[0], Output::Rejoining);
    assert!(matches!(out[1], Output::Join(_)));
    assert_eq!(report(out.get(1)).holds, [hold(0, 5), hold(1, 5)]);
    let lost = vec![hold(1, 5)];
    let out = answer(&mut member, 20, GroupNews { lost, ..news(3) });
    assert_eq!(out[..2], [Output::Joined, Output::Lost(hold(1, 5))]);
}

#[test]
fn failures_are_tried_again_more_and_more_slowly_and_without_end() {
    let mut member = joined();
    let (mut now, mut waits) = (0, Vec::new());
    for sequence in 2..9 {
        member.handle(now, Input::Answered(sequence, Answer::Failed));
        let at = member.next_timer().expect("it tries again");
        assert!(
            all(&mut member, at - 1)
                .iter()
                .all(|out| *out == Output::Unconfirmed)
        );
        waits.push(at - now);
        now = at;
        assert_eq!(report(all(&mut member, now).last()).sequence, sequence + 1);
    }
    assert_eq!(waits, [100, 200, 400, 750, 750, 750, 750]);
}

#[test]
fn without_an_answer_it_asks_again_and_says_when_its_session_must_be_over() {
    let mut member = joined();
    let mut events = Vec::new();
    for _ in 0..3 {
        let now = member.next_timer().expect("a timer");
        events.extend(
            all(&mut member, now)
                .into_iter()
                .map(|output| (now, output)),
        );
    }
    assert_eq!(events.len(), 3);
    assert_eq!((events[0].0, events[1].0), (2500, 5000));
    assert_eq!(events[2], (SESSION, Output::Unconfirmed));
    assert_eq!(member.holds().count(), 2, "it goes on");
    let out = answer(&mut member, 6100, news(4));
    assert_eq!(out[0], Output::Confirmed);
}

#[test]
fn who_lost_its_name_ends() {
    let mut member = joined();
    // Whichever request it answers.
    member.handle(10, Input::Answered(1, Answer::InstanceTaken));
    let out = all(&mut member, 10);
    let lost = [Output::Lost(hold(0, 5)), Output::Lost(hold(1, 5))];
    assert_eq!(out[..2], lost);
    assert_eq!(out[2..], [Output::Ended(End::InstanceTaken)]);
    assert_eq!(member.next_timer(), None);
}

#[test]
fn a_refusal_for_good_ends_it() {
    let mut member = Member::new("g", MemberId(1), wish());
    all(&mut member, 0);
    let code = ErrorCode::InvalidName;
    member.handle(0, Input::Answered(1, Answer::Refused(code)));
    assert_eq!(all(&mut member, 0), [Output::Ended(End::Refused(code))]);
}

#[test]
fn a_leave_is_sent_again_until_the_session_is_over_by_itself() {
    let mut member = joined();
    member.handle(0, Input::Released(hold(0, 5)));
    member.handle(0, Input::Leave);
    let out = all(&mut member, 0);
    assert_eq!(out[0], Output::Lost(hold(1, 5)));
    assert!(matches!(out[1], Output::Leave(3, _)));
    member.handle(0, Input::Answered(3, Answer::Failed));
    assert!(matches!(all(&mut member, 100)[..], [Output::Leave(4, _)]));
    member.handle(100, Input::Answered(4, Answer::Left));
    assert_eq!(all(&mut member, 100), [Output::Ended(End::Left)]);

    let mut member = joined();
    member.handle(0, Input::Leave);
    all(&mut member, 0);
    assert_eq!(all(&mut member, SESSION), [Output::Ended(End::Left)]);
}

#[test]
fn other_wishes_are_a_join_with_what_is_held() {
    let mut member = joined();
    let patterns = vec!["other".to_owned()];
    member.handle(5, Input::Wish(Wish { patterns, ..wish() }));
    let out = all(&mut member, 5);
    let [Output::Join(join)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((join.patterns.len(), join.report.holds.len()), (1, 2));
}
