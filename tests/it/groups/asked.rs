//! What people are told of groups: the command line against a broker with members.

use falcon_protocol::message::*;
use falcon_protocol::*;

use super::broker_with_orders;
use super::member::{Member, rounds};
use crate::broker::Broker;

#[track_caller]
fn expect_why(broker: &Broker, number: usize, words: &[&str]) {
    let ran = broker.run(&["why", "g"]);
    let lines = ran.lines();
    let line = lines[number];
    let start = format!("orders/{number}: ");
    assert!(line.starts_with(&start), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[test]
fn a_group_is_listed_and_described() {
    let (broker, _) = broker_with_orders(2);
    broker.run_with(&["publish", "orders", "--partition", "0"], b"a\nb\nc\n");
    assert_eq!(broker.run(&["group", "list", "--json"]).json().len(), 0);
    let ran = broker.try_run(&["group", "describe", "g"]);
    ran.expect_failure(1, &["\"g\" has no members"]);
    let mut member = Member::named(&broker, "g", 1, "till-1");
    rounds("it has both", &mut [&mut member], |m| m[0].holds.len() == 2);
    assert_eq!(member.report(), Ok(()), "it says that it has them");
    let (partition, epoch) = member.any();
    assert_eq!(member.commit(partition, epoch, 1), None);

    broker.run(&["offsets", "set", "alone", "orders", "--to", "earliest"]);
    let groups = broker.run(&["group", "list", "--json"]).json();
    let expected = serde_json::json!([
        {"group": "alone", "members": 0, "offsets": 2, "lag": 3},
        {"group": "g", "members": 1, "offsets": 1, "lag": 2},
    ]);
    assert_eq!(serde_json::Value::from(groups), expected);
    assert_eq!(broker.run(&["group", "list"]).lines().len(), 3);

    let described = broker.run(&["group", "describe", "g", "--json"]).json();
    let shown = &described[0]["members"][0];
    assert_eq!(shown["instance"], "till-1");
    assert_eq!(shown["client"], "test/1");
    assert_eq!(shown["topics"], "orders");
    assert_eq!(shown["partitions"], 2);
    let first = &described[0]["partitions"][0];
    assert_eq!(first["committed"], 1);
    assert_eq!(
        (&first["high_watermark"], &first["lag"]),
        (&3.into(), &2.into())
    );
    assert!(first["lag_ms"].is_u64(), "{first}");
    let second = &described[0]["partitions"][1];
    assert_eq!(second["state"], "done");
    assert!(second["lag_ms"].is_null() && second["committed"].is_null());
    let ran = broker.run(&["group", "describe", "g"]);
    assert!(
        ran.lines()[1].starts_with("till-1  test/1"),
        "{}",
        ran.text()
    );
    let described = broker.run(&["group", "describe", "alone"]);
    assert!(described.text().starts_with("alone has no members"));
}

#[test]
fn why_says_for_each_situation_what_is_in_the_way() {
    let (broker, _) = broker_with_orders(2);
    broker.run_with(&["publish", "orders", "--partition", "0"], b"a\nb\nc\n");
    broker.run(&["offsets", "set", "g", "orders", "--to", "earliest"]);
    expect_why(
        &broker,
        0,
        &["the group has no members", "3 records behind"],
    );
    expect_why(&broker, 1, &["the group has no members", "all is read"]);

    let mut member = Member::start(&broker, "g", 1);
    member.session_ms = 600_000;
    member.instance = Some("till-1".into());
    assert_eq!(member.rejoin(), Ok(()));
    while member.holds.len() < 2 {
        assert_eq!(member.report(), Ok(()));
    }
    member.send_report();
    expect_why(
        &broker,
        0,
        &["till-1 has it and has not said how far it is"],
    );
    expect_why(&broker, 1, &["all is read"]);
    for (activity, words) in [
        (
            Activity::Reading,
            &["moves: member till-1 reads at offset 1"][..],
        ),
        (Activity::Handling, &["handles offset 0 since 41 s"]),
        (Activity::Full, &["has not taken records for 41 s"]),
        (
            Activity::Paused,
            &["paused by the application of member till-1"],
        ),
        (
            Activity::Damaged(Offset(1), Offset(2)),
            &["offsets 1 to 2 are damaged"],
        ),
        (Activity::Failing(52), &["reading fails", "is tried again"]),
    ] {
        tell(&mut member, activity, 1);
        expect_why(&broker, 0, words);
    }
    // Another joins; the first keeps what it shall give up.
    member.is_stuck = true;
    let mut other = Member::join(&broker, "g", 2);
    let ran = broker.run(&["why", "g", "--json"]).json();
    let states: Vec<_> = ran.iter().map(|row| row["state"].as_str()).collect();
    assert!(states.contains(&Some("giving_up")), "{states:?}");
    assert_eq!(other.leave(), None);
}

/// Says how far it is, and leaves the answer for later.
fn tell(member: &mut Member, activity: Activity, position: u64) {
    let progress = |partition: &PartitionId| GroupProgress {
        partition: *partition,
        position: Offset(position),
        activity,
        since_ms: 41_000,
    };
    member.progress = member.holds.keys().map(progress).collect();
    member.send_report();
    // The connection's requests are handled in order: what follows comes after it.
    let list = ListTopics {
        after: None,
        rows_max: 1,
    };
    member.correlation += 1;
    let body = encode(&list).expect("encodes");
    let frame = Frame::request(Kind::ListTopics, member.correlation, body);
    member.peer.send(&frame);
    loop {
        let answer = member.peer.receive().expect("an answer");
        if answer.header.correlation == member.correlation {
            return;
        }
    }
}

#[test]
fn a_silent_member_is_named() {
    let (broker, _) = broker_with_orders(1);
    let mut member = Member::start(&broker, "g", 1);
    // It is said between a half and the whole of this.
    member.session_ms = 12_000;
    member.instance = Some("till-1".into());
    assert_eq!(member.rejoin(), Ok(()));
    rounds("it has it", &mut [&mut member], |m| m[0].holds.len() == 1);
    crate::broker::eventually("it is silent for too long", || {
        let ran = broker.run(&["why", "g"]);
        ran.text().contains("member till-1 is silent for")
    });
}

#[test]
fn subscribing_as_a_member_goes_on_where_the_group_has_committed() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "lines.a", "--partitions", "1"]);
    let lines = b"1\n2\n3\n4\n5\n";
    broker.run_with(&["publish", "lines.a", "--file", "-"], lines);
    let take = |count: &str| {
        let args = ["subscribe", "lines.*", "--group", "g", "--count", count];
        broker.run(&args).stdout
    };
    assert_eq!(take("3"), b"1\n2\n3\n");
    assert_eq!(take("2"), b"4\n5\n");
    let offsets = broker.run(&["offsets", "get", "g", "lines.a"]);
    assert_eq!(offsets.stdout, b"0 5\n");
}
