//! `falcon group list|describe|reset|delete`: consumer groups.

mod describe;
mod reset;

use clap::{Args, Subcommand};
use falcon_client::{Client, GroupSummary};
use serde::Serialize;

use super::Global;
use super::connect::{close, connect};
use super::failure::CliError;
use super::output::Output;

pub(crate) use describe::{lag, name, seconds};

/// The commands of `falcon group`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups: members, offsets, lag.
    List,
    /// Show a group's members, and for each partition its owner, how far it is, and how far behind.
    Describe(NameArgs),
    /// Set where a group reads next.
    Reset(reset::ResetArgs),
    /// Forget a group: its offsets and who owned what.
    Delete(DeleteArgs),
}

/// Arguments that name a group.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The group.
    group: String,
}

/// Arguments of `falcon group delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The group.
    group: String,
    /// Although it has members; they begin anew.
    #[arg(long)]
    force: bool,
}

/// Runs one of them.
pub(crate) async fn run(command: GroupCommand, global: Global) -> Result<(), CliError> {
    let client = connect(&global).await?;
    let is_json = global.json;
    let result = match command {
        GroupCommand::List => list(&client, is_json).await,
        GroupCommand::Describe(args) => describe::run(&client, &args.group, is_json).await,
        GroupCommand::Reset(args) => reset::run(&client, &args, is_json).await,
        GroupCommand::Delete(args) => delete(&client, &args, is_json).await,
    };
    close(&client).await;
    result
}

async fn list(client: &Client, is_json: bool) -> Result<(), CliError> {
    let groups = client.summarize_groups().await;
    let groups = groups.map_err(|error| CliError::from_client("group list", &error))?;
    let mut output = Output::new();
    if is_json {
        for group in &groups {
            output.json(&Row::of(group))?;
        }
        return output.flush();
    }
    let row = |group: &GroupSummary| {
        [
            group.group.clone(),
            group.members.to_string(),
            group.offsets.to_string(),
            group.lag.to_string(),
        ]
    };
    let rows: Vec<[String; 4]> = groups.iter().map(row).collect();
    output.table(["group", "members", "offsets", "lag"], &rows)?;
    output.flush()
}

async fn delete(client: &Client, args: &DeleteArgs, is_json: bool) -> Result<(), CliError> {
    let deleted = client.delete_group(&args.group, args.force).await;
    deleted.map_err(|error| CliError::from_client("group delete", &error))?;
    let mut output = Output::new();
    let group = &args.group;
    if is_json {
        output.json(&Deleted {
            group,
            done: "deleted",
        })?;
    } else {
        output.line(format!("deleted {group}").as_bytes())?;
    }
    output.flush()
}

#[derive(Serialize)]
struct Row<'a> {
    group: &'a str,
    members: u32,
    offsets: u32,
    lag: u64,
}

impl<'a> Row<'a> {
    fn of(group: &'a GroupSummary) -> Self {
        Self {
            group: &group.group,
            members: group.members,
            offsets: group.offsets,
            lag: group.lag,
        }
    }
}

#[derive(Serialize)]
struct Deleted<'a> {
    group: &'a str,
    done: &'static str,
}
