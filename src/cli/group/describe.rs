//! `falcon group describe`.

use falcon_client::{Client, GroupMember, GroupPartition, Standing};
use serde::Serialize;

use crate::cli::failure::CliError;
use crate::cli::output::Output;
use crate::cli::why::Diagnosis;

/// Prints members and partitions.
pub(super) async fn run(client: &Client, group: &str, is_json: bool) -> Result<(), CliError> {
    let failed = |error| CliError::from_client("group describe", &error);
    let described = client.describe_group(group).await.map_err(failed)?;
    let partitions = client.group_partitions(group).await.map_err(failed)?;
    let members = &described.members;
    let state = |row: &GroupPartition| Diagnosis::of(row, members).state;
    let mut output = Output::new();
    if is_json {
        output.json(&Described {
            group,
            generation: described.generation,
            members: members.iter().map(Member::of).collect(),
            partitions: partitions
                .iter()
                .map(|row| Row::of(row, state(row)))
                .collect(),
        })?;
        return output.flush();
    }
    if members.is_empty() {
        output.line(format!("{group} has no members").as_bytes())?;
    } else {
        show_members(&mut output, members)?;
    }
    output.line(b"")?;
    let rows: Vec<[String; 8]> = partitions
        .iter()
        .map(|row| {
            let owner = owner(row).and_then(|id| members.iter().find(|m| m.member == id));
            [
                row.topic.clone(),
                row.partition.partition.to_string(),
                owner.map_or_else(|| "-".into(), name),
                row.committed
                    .map_or_else(|| "-".into(), |at| at.to_string()),
                row.high_watermark.to_string(),
                lag(row).to_string(),
                row.lag_ms.map_or_else(|| "-".into(), seconds),
                state(row).to_owned(),
            ]
        })
        .collect();
    let names = [
        "topic",
        "partition",
        "owner",
        "committed",
        "high watermark",
        "lag",
        "behind",
        "state",
    ];
    output.table(names, &rows)?;
    output.flush()
}

fn show_members(output: &mut Output, members: &[GroupMember]) -> Result<(), CliError> {
    let row = |member: &GroupMember| {
        [
            name(member),
            member.client.clone(),
            member.address.clone(),
            member.partitions.to_string(),
            seconds(member.silent_ms),
            seconds(member.session_ms),
            member.patterns.clone(),
        ]
    };
    let rows: Vec<[String; 7]> = members.iter().map(row).collect();
    let names = [
        "member",
        "client",
        "address",
        "partitions",
        "heard",
        "session",
        "topics",
    ];
    output.table(names, &rows)
}

/// What people call a member: its instance name, else the beginning of its id.
pub(crate) fn name(member: &GroupMember) -> String {
    member.instance.clone().unwrap_or_else(|| {
        let id = member.member.to_string();
        id.chars().take(8).collect()
    })
}

/// Records between the committed offset, or the log's start, and the end.
pub(crate) fn lag(row: &GroupPartition) -> u64 {
    let next = row.committed.unwrap_or(row.log_start);
    row.high_watermark.since(next.max(row.log_start))
}

/// Milliseconds as seconds.
pub(crate) fn seconds(ms: u64) -> String {
    if ms < 10_000 {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{} s", ms / 1000)
    }
}

fn owner(row: &GroupPartition) -> Option<falcon_client::MemberId> {
    match row.standing {
        Standing::Granted { owner, .. }
        | Standing::Held { owner, .. }
        | Standing::GivingUp { owner, .. } => Some(owner),
        Standing::Unwanted | Standing::Waiting { .. } | Standing::Fencing { .. } => None,
    }
}

#[derive(Serialize)]
struct Described<'a> {
    group: &'a str,
    generation: u64,
    members: Vec<Member<'a>>,
    partitions: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    #[serde(rename = "member")]
    id: String,
    instance: Option<&'a str>,
    client: &'a str,
    address: &'a str,
    topics: &'a str,
    session_ms: u64,
    silent_ms: u64,
    partitions: u32,
}

impl<'a> Member<'a> {
    fn of(member: &'a GroupMember) -> Self {
        Self {
            id: member.member.to_string(),
            instance: member.instance.as_deref(),
            client: &member.client,
            address: &member.address,
            topics: &member.patterns,
            session_ms: member.session_ms,
            silent_ms: member.silent_ms,
            partitions: member.partitions,
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    partition: u32,
    state: &'static str,
    owner: Option<String>,
    committed: Option<u64>,
    log_start: u64,
    high_watermark: u64,
    lag: u64,
    lag_ms: Option<u64>,
    position: Option<u64>,
    damaged: Option<(u64, u64)>,
}

impl<'a> Row<'a> {
    fn of(row: &'a GroupPartition, state: &'static str) -> Self {
        Self {
            topic: &row.topic,
            partition: row.partition.partition.0,
            state,
            owner: owner(row).map(|owner| owner.to_string()),
            committed: row.committed.map(|offset| offset.0),
            log_start: row.log_start.0,
            high_watermark: row.high_watermark.0,
            lag: lag(row),
            lag_ms: row.lag_ms,
            position: row.progress.as_ref().map(|progress| progress.position.0),
            damaged: row.damaged.map(|(from, to)| (from.0, to.0)),
        }
    }
}
