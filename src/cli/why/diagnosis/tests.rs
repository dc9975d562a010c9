use super::*;
use falcon_client::{AssignorKind, OwnerEpoch, PartitionId};

const OWNER: MemberId = MemberId(1);

fn member(silent_ms: u64) -> GroupMember {
    GroupMember {
        member: OWNER,
        instance: Some("till-1".into()),
        client: "shop".into(),
        address: "127.0.0.1:1".into(),
        patterns: "orders".into(),
        assignor: AssignorKind::Sticky,
        session_ms: 10_000,
        silent_ms,
        partitions: 1,
    }
}

fn row(standing: Standing, activity: Option<Activity>) -> GroupPartition {
    let partition = PartitionId::new(1, 0);
    GroupPartition {
        topic: "orders".into(),
        partition,
        standing,
        progress: activity.map(|activity| GroupProgress {
            partition,
            position: Offset(12),
            activity,
            since_ms: 41_000,
        }),
        committed: Some(Offset(10)),
        log_start: Offset(0),
        high_watermark: Offset(15),
        lag_ms: Some(42_000),
        damaged: None,
    }
}

const HELD: Standing = Standing::Held {
    owner: OWNER,
    epoch: OwnerEpoch(1),
};

#[track_caller]
fn expect(row: &GroupPartition, members: &[GroupMember], state: &str, words: &[&str]) {
    let said = Diagnosis::of(row, members);
    assert_eq!(said.state, state, "{}", said.text);
    for word in words {
        assert!(
            said.text.contains(word),
            "{word:?} is not in {:?}",
            said.text
        );
    }
}

#[test]
fn every_standing_has_its_sentence() {
    let members = [member(0)];
    let behind = "5 records behind, the first of them 42 s old";
    let unwanted = row(Standing::Unwanted, None);
    expect(&unwanted, &[], "no_member", &["no members", behind]);
    expect(&unwanted, &members, "unwanted", &["no member subscribes"]);
    let waiting = Standing::Waiting {
        target: OWNER,
        for_ms: 1500,
    };
    let words = ["former owner at most 1.5 s", "till-1"];
    expect(&row(waiting, None), &members, "waiting", &words);
    let fencing = Standing::Fencing { since_ms: 100 };
    expect(&row(fencing, None), &members, "fencing", &["written down"]);
    let granted = Standing::Granted {
        owner: OWNER,
        epoch: OwnerEpoch(1),
    };
    expect(&row(granted, None), &members, "granted", &["till-1"]);
    let giving_up = Standing::GivingUp {
        owner: OWNER,
        target: Some(MemberId(2)),
        for_ms: 12_000,
    };
    let words = ["moving", "gives it up", "handles since 41 s", "12 s"];
    let giving_up = row(giving_up, Some(Activity::Handling));
    expect(&giving_up, &members, "giving_up", &words);
}

#[test]
fn every_activity_has_its_sentence() {
    let members = [member(3000)];
    for (activity, state, words) in [
        (
            Activity::Reading,
            "moving",
            &["moves", "offset 12", "5 records"][..],
        ),
        (
            Activity::Handling,
            "handling",
            &["handles offset 10 since 41 s"],
        ),
        (Activity::Full, "full", &["not taken records for 41 s"]),
        (
            Activity::Paused,
            "paused",
            &["paused by the application", "41 s"],
        ),
        (
            Activity::Damaged(Offset(12), Offset(14)),
            "damaged",
            &["12 to 14"],
        ),
        (
            Activity::Failing(52),
            "failing",
            &["reading fails", "read_failed"],
        ),
    ] {
        expect(&row(HELD, Some(activity)), &members, state, words);
    }
    expect(&row(HELD, None), &members, "held", &["has not said"]);
}

#[test]
fn silence_comes_first_and_the_end_is_no_trouble() {
    let stuck = row(HELD, Some(Activity::Full));
    let words = ["till-1", "silent for 6.0 s (session 10 s)"];
    expect(&stuck, &[member(6000)], "silent", &words);
    let mut done = row(HELD, Some(Activity::Reading));
    done.committed = Some(Offset(15));
    expect(&done, &[member(0)], "done", &["all is read", "offset 15"]);
    let mut damaged = row(HELD, Some(Activity::Reading));
    damaged.damaged = Some((Offset(12), Offset(13)));
    expect(&damaged, &[member(0)], "damaged", &["12 to 13"]);
}
