//! Consumer groups on a real broker, by members that speak frames by hand.

mod asked;
mod changed;
mod member;

use falcon_protocol::message::*;
use falcon_protocol::*;
use rustix::process::Signal;

use crate::broker::{Broker, eventually};
use crate::peer::Peer;
use crate::watching::{expect_value, scrape};
use member::{Member, rounds};

/// A broker with topic `orders` of so many partitions.
fn broker_with_orders(partitions: u32) -> (Broker, TopicId) {
    let broker = Broker::start();
    let mut peer = Peer::connect(broker.socket_address());
    let topic = peer.create_topic("orders", partitions, Vec::new());
    (broker, topic)
}

fn counts(members: &[&mut Member]) -> Vec<usize> {
    members.iter().map(|member| member.holds.len()).collect()
}

#[test]
fn members_share_and_who_leaves_hands_over() {
    let (broker, topic) = broker_with_orders(4);
    let mut first = Member::join(&broker, "g", 1);
    rounds("the first has all", &mut [&mut first], |m| counts(m) == [4]);
    let before = first.holds.clone();
    let mut second = Member::join(&broker, "g", 2);
    let both = &mut [&mut first, &mut second];
    rounds("both have two", both, |m| counts(m) == [2, 2]);

    let (mine, epoch) = second.any();
    assert_eq!(second.commit(mine, epoch, 0), None);
    let stale = first.commit(mine, before[&mine], 0);
    assert_eq!(stale, Some(ErrorCode::StaleOwner));
    let kept = first.any();
    assert_eq!(
        before[&kept.0], kept.1,
        "what does not move is not disturbed"
    );
    assert_eq!(kept.0.topic, topic);

    assert_eq!(second.leave(), None);
    rounds("the first has all", &mut [&mut first], |m| counts(m) == [4]);
    assert_eq!(second.commit(mine, epoch, 0), Some(ErrorCode::StaleOwner));
    let log = broker.log();
    assert!(
        log.contains("a member joined") && log.contains("a member left"),
        "{log}"
    );
    expect_value(&broker, "falcon_groups", 1);
    expect_value(&broker, "falcon_group_members", 1);
    expect_value(&broker, "falcon_group_ownerless_partitions", 0);
}

#[test]
fn a_silent_member_is_replaced_and_cannot_commit_any_more() {
    let (broker, _) = broker_with_orders(2);
    let mut silent = Member::join(&broker, "g", 1);
    rounds("it has all", &mut [&mut silent], |m| counts(m) == [2]);
    let mut heir = Member::join(&broker, "g", 2);
    rounds("the heir has all", &mut [&mut heir], |m| counts(m) == [2]);
    let (partition, epoch) = silent.any();
    assert_eq!(
        silent.commit(partition, epoch, 0),
        Some(ErrorCode::StaleOwner)
    );
    assert_eq!(silent.report().unwrap_err(), ErrorCode::UnknownMember);
    assert!(broker.log().contains("a member was silent and is let go"));
    expect_value(&broker, "falcon_group_members_let_go_total", 1);
}

#[test]
fn a_restart_of_the_broker_moves_nothing_from_who_comes_back() {
    let (mut broker, _) = broker_with_orders(4);
    let mut first = Member::join(&broker, "g", 1);
    let mut second = Member::join(&broker, "g", 2);
    let both = &mut [&mut first, &mut second];
    rounds("both have two", both, |m| counts(m) == [2, 2]);
    let before = (first.holds.clone(), second.holds.clone());
    broker.crash_and_restart();
    for member in [&mut first, &mut second] {
        member.reconnect(&broker);
        let (partition, epoch) = member.any();
        assert_eq!(member.commit(partition, epoch, 0), None, "it owns it still");
        assert_eq!(member.report().unwrap_err(), ErrorCode::UnknownMember);
    }
    assert_eq!(first.rejoin(), Ok(()));
    assert_eq!(second.rejoin(), Ok(()));
    for _ in 0..4 {
        let mut both = [&mut first, &mut second];
        rounds("a round", &mut both, |_| true);
    }
    assert_eq!((first.holds, second.holds), before);
}

#[test]
fn a_new_process_of_an_instance_takes_its_place() {
    let (broker, _) = broker_with_orders(4);
    let mut old = Member::named(&broker, "g", 1, "till-1");
    let mut other = Member::named(&broker, "g", 2, "till-2");
    let both = &mut [&mut old, &mut other];
    rounds("both have two", both, |m| counts(m) == [2, 2]);
    let undisturbed = other.holds.clone();
    let mut new = Member::named(&broker, "g", 3, "till-1");
    let both = &mut [&mut new, &mut other];
    rounds("the new one has two", both, |m| counts(m) == [2, 2]);
    assert_eq!(other.holds, undisturbed);
    let partitions = |member: &Member| member.holds.keys().copied().collect::<Vec<_>>();
    assert_eq!(partitions(&new), partitions(&old));
    assert_eq!(old.report().unwrap_err(), ErrorCode::InstanceTaken);
    assert_eq!(old.rejoin().unwrap_err(), ErrorCode::InstanceTaken);
}

#[test]
fn a_topic_that_appears_is_granted_to_who_wants_its_like() {
    let broker = Broker::start();
    let mut member = Member::start(&broker, "g", 1);
    member.patterns = vec!["orders.*".into()];
    assert_eq!(member.rejoin(), Ok(()));
    let mut peer = Peer::connect(broker.socket_address());
    peer.create_topic("other", 1, Vec::new());
    let topic = peer.create_topic("orders.eu", 3, Vec::new());
    rounds("it has three", &mut [&mut member], |m| counts(m) == [3]);
    assert!(member.holds.keys().all(|id| id.topic == topic));
    assert_eq!(member.topics, ["orders.eu"]);
    broker.run(&["topic", "delete", "orders.eu"]);
    rounds("it lost them", &mut [&mut member], |m| counts(m) == [0]);
}

#[test]
fn a_heartbeat_that_waits_holds_up_nothing() {
    let (broker, _) = broker_with_orders(1);
    let mut member = Member::start(&broker, "g", 1);
    member.session_ms = SESSION_LONG_MS;
    assert_eq!(member.rejoin(), Ok(()));
    rounds("it has it", &mut [&mut member], |m| counts(m) == [1]);
    member.send_report();
    // On the same connection, while the heartbeat waits.
    let list = ListTopics {
        after: None,
        rows_max: 1,
    };
    let body = encode(&list).expect("encodes");
    member
        .peer
        .send(&Frame::request(Kind::ListTopics, 77, body));
    let answer = member.peer.receive().expect("an answer");
    assert_eq!(
        answer.header.correlation, 77,
        "the heartbeat is answered later"
    );
    // A later request answers the earlier one.
    let earlier = member.correlation;
    member.send_report();
    let answer = member.peer.receive().expect("an answer");
    assert_eq!(answer.header.correlation, earlier);
    assert_eq!(answer.error(), Some(ErrorCode::Superseded));
    // The connection ends with a heartbeat waiting: the member stays one.
    member.reconnect(&broker);
    member.send_report();
    let earlier = member.correlation;
    member.send_report();
    let answer = member.peer.receive().expect("an answer");
    assert_eq!(answer.header.correlation, earlier);
    assert_eq!(answer.error(), Some(ErrorCode::Superseded));
}

#[test]
fn a_member_that_waits_is_told_when_the_broker_stops() {
    let (mut broker, _) = broker_with_orders(1);
    let mut member = Member::start(&broker, "g", 1);
    member.session_ms = SESSION_LONG_MS;
    assert_eq!(member.rejoin(), Ok(()));
    rounds("it has it", &mut [&mut member], |m| counts(m) == [1]);
    member.send_report();
    eventually("the request has arrived", || {
        let series = "falcon_frames_received_total{kind=\"GroupReport\"}";
        scrape(&broker).get(series) + 0.5 > f64::from(member.reports)
    });
    broker.signal(Signal::TERM);
    assert_eq!(member.receive().unwrap_err(), ErrorCode::Draining);
    drop(member);
    assert_eq!(broker.wait().code, Some(0));
}

#[test]
fn a_connection_whose_heartbeat_waits_is_not_idle_while_it_answers_pings() {
    let broker = Broker::start_set(&[
        ("FALCON_TIMEOUTS_HEARTBEAT_MS", "100ms"),
        ("FALCON_TIMEOUTS_IDLE_MS", "500ms"),
    ]);
    let mut member = Member::start(&broker, "g", 1);
    member.session_ms = SESSION_LONG_MS;
    assert_eq!(member.rejoin(), Ok(()));
    member.send_report();
    // Three times as long as it may be idle.
    for _ in 0..15 {
        member.peer.answer_ping();
    }
    member.peer.create_topic("orders", 1, Vec::new());
    assert_eq!(member.receive(), Ok(()));
    assert_eq!(member.holds.len(), 1, "the heartbeat was answered");
}

/// So long that nothing in a test waits for its third.
const SESSION_LONG_MS: u64 = 600_000;

#[test]
fn what_no_member_may_ask_is_refused() {
    let (broker, _) = broker_with_orders(1);
    for (change, code) in [
        (
            Box::new(|m: &mut Member| m.patterns = vec!["orders.x*".into()])
                as Box<dyn Fn(&mut Member)>,
            ErrorCode::InvalidPattern,
        ),
        (
            Box::new(|m| m.patterns.clear()),
            ErrorCode::MalformedRequest,
        ),
        (Box::new(|m| m.session_ms = 1), ErrorCode::MalformedRequest),
        (Box::new(|m| m.group = "a/b".into()), ErrorCode::InvalidName),
        (
            Box::new(|m| m.instance = Some(String::new())),
            ErrorCode::InvalidName,
        ),
    ] {
        let mut member = Member::start(&broker, "g", 1);
        change(&mut member);
        assert_eq!(member.rejoin().unwrap_err(), code);
    }
    let mut member = Member::start(&broker, "g", 1);
    assert_eq!(member.report().unwrap_err(), ErrorCode::UnknownMember);
    expect_value(&broker, "falcon_groups", 0);
}
