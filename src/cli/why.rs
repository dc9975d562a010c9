//! `falcon why`: why a group does not move, partition by partition.

mod diagnosis;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::connect::{close, connect};
use super::failure::CliError;
use super::output::Output;

pub(crate) use diagnosis::Diagnosis;

/// Arguments of `falcon why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The group.
    group: String,
}

/// Prints one sentence for each partition.
pub(crate) async fn run(args: WhyArgs, global: Global) -> Result<(), CliError> {
    let client = connect(&global).await?;
    let result = say(&client, &args.group, global.json).await;
    close(&client).await;
    result
}

async fn say(client: &falcon_client::Client, group: &str, is_json: bool) -> Result<(), CliError> {
    let failed = |error| CliError::from_client("why", &error);
    let members = client.describe_group(group).await.map_err(failed)?.members;
    let partitions = client.group_partitions(group).await.map_err(failed)?;
    let mut output = Output::new();
    if partitions.is_empty() && !is_json {
        let line = if members.is_empty() {
            format!("{group} has no members and no offsets")
        } else {
            format!("no topic fits what the members of {group} subscribe to")
        };
        output.line(line.as_bytes())?;
    }
    for row in &partitions {
        let Diagnosis { state, text } = Diagnosis::of(row, &members);
        let (topic, partition) = (row.topic.as_str(), row.partition.partition.0);
        if is_json {
            output.json(&Row {
                group,
                topic,
                partition,
                state,
                text,
            })?;
        } else {
            output.line(format!("{topic}/{partition}: {text}").as_bytes())?;
        }
    }
    output.flush()
}

#[derive(Serialize)]
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    state: &'static str,
    text: String,
}
