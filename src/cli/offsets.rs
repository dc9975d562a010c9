//! `falcon offsets list|get|set|delete`: where groups will read next.

use clap::{Args, Subcommand};
use falcon_client::{Client, Start};
use falcon_protocol::Partition;
use falcon_protocol::message::CommittedOffset;
use serde::Serialize;

use super::Global;
use super::arguments::{self, show_time};
use super::connect::{close, connect};
use super::failure::{CliError, Exit};
use super::output::Output;
use super::positions;

/// The commands of `falcon offsets`.
#[derive(Debug, Subcommand)]
pub(crate) enum OffsetsCommand {
    /// List the groups, or the offsets of one group.
    List(ListArgs),
    /// Print a group's offsets for a topic: "PARTITION OFFSET".
    Get(GetArgs),
    /// Set where a group will read next.
    Set(SetArgs),
    /// Forget a group's offsets.
    Delete(DeleteArgs),
}

/// Arguments of `falcon offsets list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The group; without it, all groups are listed.
    group: Option<String>,
}

/// Arguments of `falcon offsets get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The group.
    group: String,
    /// The topic.
    topic: String,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
}

/// Arguments of `falcon offsets set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The group; it comes into being with its first offset.
    group: String,
    /// The topic.
    topic: String,
    /// The new position: earliest, latest, offset:N, last:N or time:RFC3339.
    #[arg(long, value_name = "POSITION", value_parser = arguments::position)]
    to: Start,
    /// Only this partition; without it, all partitions.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
}

/// Arguments of `falcon offsets delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The group.
    group: String,
    /// Only the offsets of this topic.
    #[arg(long)]
    topic: Option<String>,
}

/// Runs one of them.
pub(crate) async fn run(command: OffsetsCommand, global: Global) -> Result<(), CliError> {
    let client = connect(&global).await?;
    let result = match command {
        OffsetsCommand::List(ListArgs { group: None }) => list_groups(&client, global.json).await,
        OffsetsCommand::List(ListArgs { group: Some(group) }) => {
            list(&client, &group, global.json).await
        }
        OffsetsCommand::Get(args) => get(&client, &args, global.json).await,
        OffsetsCommand::Set(args) => set(&client, &args, global.json).await,
        OffsetsCommand::Delete(args) => delete(&client, &args, global.json).await,
    };
    close(&client).await;
    result
}

async fn list_groups(client: &Client, is_json: bool) -> Result<(), CliError> {
    let groups = client.list_groups().await;
    let groups = groups.map_err(|error| CliError::from_client("offsets list", &error))?;
    let mut output = Output::new();
    for group in &groups {
        if is_json {
            output.json(&Group { group })?;
        } else {
            output.line(group.as_bytes())?;
        }
    }
    output.flush()
}

async fn list(client: &Client, group: &str, is_json: bool) -> Result<(), CliError> {
    let offsets = client.offsets(group).fetch_all().await;
    let offsets = offsets.map_err(|error| CliError::from_client("offsets list", &error))?;
    if offsets.is_empty() {
        let why = format!("group {group:?} has no offsets");
        let remedy = "falcon offsets list shows the groups there are";
        return Err(CliError::new(Exit::Failed, "offsets list", why, remedy));
    }
    let mut output = Output::new();
    if is_json {
        for offset in &offsets {
            output.json(&Row::of(group, offset))?;
        }
    } else {
        let rows: Vec<[String; 6]> = offsets
            .iter()
            .map(|offset| {
                [
                    offset.topic.clone(),
                    offset.partition.to_string(),
                    offset.offset.to_string(),
                    offset.high_watermark.since(offset.offset).to_string(),
                    show_time(offset.commit_time_ms),
                    offset.note.clone(),
                ]
            })
            .collect();
        let names = ["topic", "partition", "offset", "lag", "committed", "note"];
        output.table(names, &rows)?;
    }
    output.flush()
}

async fn get(client: &Client, args: &GetArgs, is_json: bool) -> Result<(), CliError> {
    let offsets = client.offsets(&args.group).fetch(&args.topic).await;
    let offsets = offsets.map_err(|error| CliError::from_client("offsets get", &error))?;
    let wanted = |offset: &&CommittedOffset| {
        args.partition
            .is_none_or(|partition| offset.partition == Partition(partition))
    };
    let offsets: Vec<&CommittedOffset> = offsets.iter().filter(wanted).collect();
    if offsets.is_empty() {
        let why = format!("group {:?} has no offset for this", args.group);
        let remedy = format!("see falcon offsets list {}", args.group);
        return Err(CliError::new(Exit::Failed, "offsets get", why, remedy));
    }
    let mut output = Output::new();
    for offset in offsets {
        if is_json {
            output.json(&Row::of(&args.group, offset))?;
        } else {
            let line = format!("{} {}", offset.partition, offset.offset);
            output.line(line.as_bytes())?;
        }
    }
    output.flush()
}

async fn set(client: &Client, args: &SetArgs, is_json: bool) -> Result<(), CliError> {
    let failed = |error| CliError::from_client("offsets set", &error);
    let targets = positions::resolve(client, &args.topic, args.partition, args.to).await;
    let targets = targets.map_err(failed)?;
    let offsets: Vec<_> = targets
        .iter()
        .map(|target| (args.topic.as_str(), target.partition, target.offset))
        .collect();
    let committed = client.offsets(&args.group).commit_all(&offsets).await;
    committed.map_err(failed)?;
    let mut output = Output::new();
    for target in &targets {
        if is_json {
            output.json(&Set {
                group: &args.group,
                topic: &args.topic,
                partition: target.partition.0,
                offset: target.offset.0,
            })?;
        } else {
            let line = format!("{} {}", target.partition, target.offset);
            output.line(line.as_bytes())?;
        }
    }
    output.flush()
}

async fn delete(client: &Client, args: &DeleteArgs, is_json: bool) -> Result<(), CliError> {
    let deleted = client
        .offsets(&args.group)
        .delete(args.topic.as_deref())
        .await;
    deleted.map_err(|error| CliError::from_client("offsets delete", &error))?;
    let mut output = Output::new();
    if is_json {
        output.json(&Group { group: &args.group })?;
    } else {
        output.line(format!("deleted the offsets of {}", args.group).as_bytes())?;
    }
    output.flush()
}

#[derive(Serialize)]
struct Group<'a> {
    group: &'a str,
}

#[derive(Serialize)]
struct Set<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    offset: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    offset: u64,
    high_watermark: u64,
    lag: u64,
    commit_time_ms: i64,
    note: &'a str,
}

impl<'a> Row<'a> {
    fn of(group: &'a str, offset: &'a CommittedOffset) -> Self {
        Self {
            group,
            topic: &offset.topic,
            partition: offset.partition.0,
            offset: offset.offset.0,
            high_watermark: offset.high_watermark.0,
            lag: offset.high_watermark.since(offset.offset),
            commit_time_ms: offset.commit_time_ms,
            note: &offset.note,
        }
    }
}
