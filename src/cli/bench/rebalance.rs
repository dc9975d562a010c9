//! `falcon bench rebalance`.

use std::time::Duration;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{Client, Consumer};
use serde::Serialize;

use super::Load;
use super::stage::Stage;
use super::tally::{Kind, Phase};
use crate::cli::failure::{CliError, Exit};

/// Longest a rebalance may take.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// Arguments of `falcon bench rebalance`.
#[derive(Debug, Args, Serialize)]
#[command(mut_arg("topic", |topic| topic.help("A topic that exists; nothing is written to it. Default: a fresh one, deleted in the end")))]
#[command(
    after_help = "A rebalance is over when every partition is held, and members hold equally many."
)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    /// Members of the group, each on a connection of its own; one of them leaves and joins again.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) members: u32,
    /// How often it leaves and joins.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Lets a member leave and join.
pub(super) async fn run(args: &RebalanceArgs, stage: &Stage) -> Result<(), CliError> {
    let group = format!("bench-{:08x}", fastrand::u32(..));
    let mut members = Vec::new();
    for _ in 1..args.members {
        members.push(join(stage, &group).await?);
    }
    let partitions = stage.partitions() as usize;
    settled(&members, partitions).await?;
    let from = Instant::now();
    for done in 0..args.rounds {
        stage.tally.enter(Phase::Rounds {
            from,
            done: done.into(),
            total: args.rounds.into(),
        });
        let at = Instant::now();
        members.push(join(stage, &group).await?);
        settled(&members, partitions).await?;
        stage.tally.note(Kind::Rebalance, at.elapsed());
        let at = Instant::now();
        if let Some((_, mut leaver)) = members.pop() {
            leaver.close().await.map_err(|error| failure(&error))?;
        }
        settled(&members, partitions).await?;
        stage.tally.note(Kind::Rebalance, at.elapsed());
    }
    stage.tally.end();
    for (_, mut member) in members {
        member.close().await.map_err(|error| failure(&error))?;
    }
    Ok(())
}

async fn join(stage: &Stage, group: &str) -> Result<(Client, Consumer), CliError> {
    let client = stage.connect_aside().await?;
    let joined = client.consumer(group).topics([&stage.topic]).join().await;
    Ok((client, joined.map_err(|error| failure(&error))?))
}

/// Waits until all partitions are held, in equal shares.
async fn settled(members: &[(Client, Consumer)], partitions: usize) -> Result<(), CliError> {
    let begun = Instant::now();
    loop {
        let held = members.iter().map(|(_, member)| member.assignment().len());
        let held: Vec<usize> = held.collect();
        let least = held.iter().min().copied().unwrap_or_default();
        let most = held.iter().max().copied().unwrap_or_default();
        if held.iter().sum::<usize>() == partitions && most <= least + 1 {
            return Ok(());
        }
        if begun.elapsed() > DEADLINE {
            let why = format!("the members hold {least} to {most} of {partitions} partitions each");
            let remedy = "look at the broker's log";
            return Err(CliError::new(Exit::TimedOut, "bench", why, remedy));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn failure(error: &dyn std::error::Error) -> CliError {
    CliError::failed("bench", error, "look at the broker's log")
}
