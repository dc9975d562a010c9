//! Changes of a group from outside, while it has members and while it has none.

use falcon_protocol::message::*;
use falcon_protocol::*;

use super::broker_with_orders;
use super::member::{Member, rounds};
use crate::peer::Peer;

fn offset(topic_id: TopicId, offset: u64) -> Vec<OffsetCommit> {
    vec![OffsetCommit {
        topic_id,
        partition: Partition(0),
        offset: Offset(offset),
        note: String::new(),
    }]
}

#[test]
fn offsets_of_a_group_with_members_are_theirs() {
    let (broker, topic) = broker_with_orders(1);
    broker.run_with(&["publish", "orders"], b"a\nb\nc\n");
    let mut peer = Peer::connect(broker.socket_address());
    let (group, offsets) = ("g".to_owned(), offset(topic, 1));
    let commit = CommitOffsets {
        group: group.clone(),
        offsets: offsets.clone(),
    };
    let forget = DeleteOffsets {
        group: group.clone(),
        topic: None,
    };
    let reset = ResetOffsets {
        group: group.clone(),
        offsets,
        is_forced: false,
    };
    let delete = DeleteGroup {
        group,
        is_forced: false,
    };
    let mut member = Member::join(&broker, "g", 1);
    rounds("it has it", &mut [&mut member], |m| m[0].holds.len() == 1);
    let active = Some(ErrorCode::GroupActive);
    assert_eq!(peer.ask(Kind::CommitOffsets, &commit).error(), active);
    assert_eq!(peer.ask(Kind::DeleteOffsets, &forget).error(), active);
    assert_eq!(peer.ask(Kind::ResetOffsets, &reset).error(), active);
    assert_eq!(peer.ask(Kind::DeleteGroup, &delete).error(), active);
    let ran = broker.try_run(&["group", "reset", "g", "--topic", "orders", "--to", "latest"]);
    ran.expect_failure(1, &["has members", "--force"]);
    let ran = broker.try_run(&["group", "delete", "g"]);
    ran.expect_failure(1, &["has members", "--force"]);

    assert_eq!(member.leave(), None);
    assert_eq!(peer.ask(Kind::ResetOffsets, &reset).error(), None);
    assert_eq!(peer.ask(Kind::CommitOffsets, &commit).error(), None);
    assert_eq!(peer.ask(Kind::DeleteGroup, &delete).error(), None);
    let unknown = Some(ErrorCode::UnknownGroup);
    assert_eq!(peer.ask(Kind::DeleteGroup, &delete).error(), unknown);
}

#[test]
fn after_a_forced_reset_the_owners_read_on_from_there() {
    let (broker, topic) = broker_with_orders(2);
    broker.run_with(&["publish", "orders", "--partition", "0"], b"a\nb\nc\n");
    let mut member = Member::join(&broker, "g", 1);
    rounds("it has both", &mut [&mut member], |m| m[0].holds.len() == 2);
    let partition = PartitionId {
        topic,
        partition: Partition(0),
    };
    let (epoch, other) = (member.holds[&partition], PartitionId::new(topic.0, 1));
    let untouched = member.holds[&other];
    assert_eq!(member.commit(partition, epoch, 3), None);

    let reset = [
        "group",
        "reset",
        "g",
        "--topic",
        "orders",
        "--partition",
        "0",
    ];
    let shift = [&reset[..], &["--to", "shift:-2", "--force"]].concat();
    let dry = broker
        .run(&[&shift[..], &["--dry-run", "--json"]].concat())
        .json();
    assert_eq!((&dry[0]["from"], &dry[0]["to"]), (&3.into(), &1.into()));
    assert_eq!(dry[0]["is_done"], false);
    assert_eq!(member.commit(partition, epoch, 3), None, "nothing was done");
    broker.run(&shift);
    let stale = member.commit(partition, epoch, 3);
    assert_eq!(stale, Some(ErrorCode::StaleOwner));
    rounds("it has it anew", &mut [&mut member], |m| {
        m[0].holds.get(&partition).is_some_and(|now| *now > epoch)
    });
    assert_eq!(member.begins[&partition], Some(Offset(1)));
    assert_eq!(
        member.holds[&other], untouched,
        "the other is not disturbed"
    );
    let epoch = member.holds[&partition];
    assert_eq!(member.commit(partition, epoch, 2), None);
    let shifted = [&reset[..], &["--to", "shift:-100", "--force"]].concat();
    let ran = broker.run(&shifted);
    assert!(
        ran.text().contains("cut off at the log's start"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_group_deleted_under_its_members_begins_anew() {
    let (mut broker, _) = broker_with_orders(2);
    broker.run_with(&["publish", "orders", "--partition", "0"], b"a\nb\nc\n");
    let mut member = Member::join(&broker, "g", 1);
    rounds("it has both", &mut [&mut member], |m| m[0].holds.len() == 2);
    let before = member.holds.clone();
    let (partition, epoch) = member.any();
    assert_eq!(member.commit(partition, epoch, 3), None);
    broker.run(&["group", "delete", "g", "--force"]);
    let stale = member.commit(partition, epoch, 3);
    assert_eq!(stale, Some(ErrorCode::StaleOwner));
    rounds("it has both anew", &mut [&mut member], |m| {
        let is_newer = |(id, epoch): (&PartitionId, &OwnerEpoch)| *epoch > before[id];
        m[0].holds.len() == 2 && m[0].holds.iter().all(is_newer)
    });
    assert_eq!(member.begins[&partition], None);
    assert_eq!(member.leave(), None);
    broker.run(&["group", "delete", "g"]);
    broker.crash_and_restart();
    let ran = broker.try_run(&["group", "describe", "g"]);
    ran.expect_failure(1, &["no members"]);
}
