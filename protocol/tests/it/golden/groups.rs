//! Consumer groups and atomic steps.

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;

use super::{compare, control, text};

const MEMBER: MemberId = MemberId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const OTHER: MemberId = MemberId(7);

fn hold(partition: u32, epoch: u64) -> GroupHold {
    GroupHold {
        partition: PartitionId::new(7, partition),
        epoch: OwnerEpoch(epoch),
    }
}

fn report() -> GroupReport {
    let activities = [
        Activity::Reading,
        Activity::Handling,
        Activity::Full,
        Activity::Paused,
        Activity::Damaged(Offset(8), Offset(9)),
        Activity::Failing(54),
    ];
    let progress = activities.iter().zip(0..).map(|(activity, partition)| {
        let position = Offset(10 + u64::from(partition));
        GroupProgress {
            partition: PartitionId::new(7, partition),
            position,
            activity: *activity,
            since_ms: 20,
        }
    });
    GroupReport {
        group: text("g"),
        member: MEMBER,
        sequence: 3,
        seen: 2,
        holds: vec![hold(1, 5), hold(2, 6)],
        progress: progress.collect(),
    }
}

fn commit() -> CommitOwned {
    CommitOwned {
        group: text("g"),
        offsets: vec![OwnedCommit {
            hold: hold(1, 5),
            offset: Offset(9),
            may_rewind: true,
            note: text("n"),
        }],
    }
}

#[test]
fn membership() {
    control("group_report", &report());
    for (name, assignor) in [
        ("join_group", AssignorKind::Sticky),
        ("join_group_range", AssignorKind::Range),
    ] {
        control(
            name,
            &JoinGroup {
                report: report(),
                instance: Some(text("i")),
                patterns: vec![text("a.*"), text("b.>")],
                assignor,
                session_ms: 10_000,
            },
        );
    }
    control(
        "group_news",
        &GroupNews {
            sequence: 3,
            generation: 4,
            lost: vec![hold(1, 5)],
            revoked: vec![hold(2, 6)],
            granted: vec![
                GroupGrant {
                    hold: hold(3, 7),
                    topic: text("a"),
                    committed: Some(Offset(8)),
                },
                GroupGrant {
                    hold: hold(4, 7),
                    topic: text("a"),
                    committed: None,
                },
            ],
        },
    );
    control(
        "leave_group",
        &LeaveGroup {
            group: text("g"),
            member: MEMBER,
        },
    );
}

#[test]
fn offsets_of_groups() {
    control("commit_owned", &commit());
    let offset = OffsetCommit {
        topic_id: TopicId(7),
        partition: Partition(1),
        offset: Offset(2),
        note: text("n"),
    };
    control(
        "reset_offsets",
        &ResetOffsets {
            group: text("g"),
            offsets: vec![offset],
            is_forced: true,
        },
    );
    control(
        "delete_group",
        &DeleteGroup {
            group: text("g"),
            is_forced: true,
        },
    );
}

#[test]
fn listings() {
    control(
        "summarize_groups",
        &SummarizeGroups {
            after: Some(text("f")),
            rows_max: 10,
        },
    );
    let summary = GroupSummary {
        group: text("g"),
        members: 1,
        offsets: 2,
        lag: 3,
    };
    control(
        "group_summary_page",
        &GroupSummaryPage {
            groups: vec![summary],
            has_more: true,
        },
    );
    control(
        "describe_group",
        &DescribeGroup {
            group: text("g"),
            after: Some(OTHER),
            rows_max: 10,
        },
    );
    let member = GroupMember {
        member: MEMBER,
        instance: Some(text("i")),
        client: text("golden/1"),
        address: text("127.0.0.1:1"),
        patterns: text("a.*,b.>"),
        assignor: AssignorKind::Range,
        session_ms: 1,
        silent_ms: 2,
        partitions: 3,
    };
    control(
        "group_description",
        &GroupDescription {
            generation: 4,
            members: vec![member],
            has_more: false,
        },
    );
    control(
        "list_group_partitions",
        &ListGroupPartitions {
            group: text("g"),
            after: Some(PartitionId::new(7, 1)),
            rows_max: 10,
        },
    );
    control("group_partition_page", &partitions());
}

/// Every standing once.
fn partitions() -> GroupPartitionPage {
    let (owner, epoch) = (MEMBER, OwnerEpoch(5));
    let standings = [
        Standing::Unwanted,
        Standing::Waiting {
            target: OTHER,
            for_ms: 1,
        },
        Standing::Fencing { since_ms: 2 },
        Standing::Granted { owner, epoch },
        Standing::Held { owner, epoch },
        Standing::GivingUp {
            owner,
            target: Some(OTHER),
            for_ms: 3,
        },
    ];
    let progress = report().progress;
    let row = |standing, partition| GroupPartition {
        topic: text("a"),
        partition: PartitionId::new(7, partition),
        standing,
        progress: progress.get(partition as usize).cloned(),
        committed: Some(Offset(10)),
        log_start: Offset(8),
        high_watermark: Offset(20),
        lag_ms: Some(30),
        damaged: Some((Offset(12), Offset(14))),
    };
    let rows = standings.iter().zip(0..);
    let mut partitions: Vec<_> = rows.map(|(s, partition)| row(*s, partition)).collect();
    partitions.push(GroupPartition {
        progress: None,
        committed: None,
        lag_ms: None,
        damaged: None,
        ..row(Standing::Unwanted, 6)
    });
    GroupPartitionPage {
        partitions,
        has_more: true,
    }
}

#[test]
fn steps() {
    let batch = |partition, expected, batch| StepBatch {
        partition: PartitionId::new(7, partition),
        expected,
        batch: Bytes::from_static(batch),
    };
    let step = Step {
        timeout_ms: 3,
        // A step does not look into its batches.
        batches: vec![batch(1, Some(Offset(9)), b"first"), batch(2, None, b"2nd")],
        commit: Some(commit()),
    };
    let bytes = step.encode().unwrap();
    compare("step.bin", &bytes);
    assert_eq!(Step::decode(bytes), Ok(step));
    let ack = PublishAck {
        base_offset: Offset(1),
        append_time_ms: 2,
        record_count: 3,
        is_duplicate: false,
    };
    let acks = [
        ack,
        PublishAck {
            is_duplicate: true,
            ..ack
        },
    ];
    let bytes = encode_step_acks(&acks);
    compare("step_acks.bin", &bytes);
    assert_eq!(decode_step_acks(&bytes), Ok(acks.to_vec()));
}
