//! `falcon bench scale`.

use std::sync::Arc;

use clap::Args;
use falcon::clock::Instant;
use falcon_client::{PublishError, Publisher, Record};
use serde::Serialize;
use tokio::task::JoinSet;

use super::stage::{Stage, broken};
use super::tally::{Kind, Phase, Span};
use super::{Load, Phases, value};
use crate::cli::failure::CliError;

/// Arguments of `falcon bench scale`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    phases: Phases,
    /// Tasks; each publishes a record, waits for its ack, and publishes the next.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) tasks: u32,
    /// Connections that the tasks share.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) connections: u32,
}

/// Publishes.
pub(super) async fn run(args: &ScaleArgs, stage: &Arc<Stage>) -> Result<(), CliError> {
    let mut publishers = Vec::new();
    for _ in 0..args.connections {
        let client = stage.connect().await?;
        publishers.push(stage.publisher(&client).await?);
    }
    let span = Span::new(args.phases.warm_up, args.phases.duration);
    stage.tally.enter(Phase::Timed(span));
    let mut tasks = JoinSet::new();
    for (number, publisher) in (0..args.tasks).zip(publishers.iter().cycle()) {
        let one = OneByOne {
            publisher: publisher.clone(),
            partition: number % stage.partitions(),
            size: args.load.size,
        };
        tasks.spawn(one.run(Arc::clone(stage), span));
    }
    while let Some(task) = tasks.join_next().await {
        let ran = task.map_err(|error| broken(&error))?;
        ran.map_err(|error| CliError::from_publish("bench", &error))?;
    }
    stage.tally.end();
    Ok(())
}

struct OneByOne {
    publisher: Publisher,
    partition: u32,
    size: u64,
}

impl OneByOne {
    /// Counts what began and ended while it is measured.
    async fn run(self, stage: Arc<Stage>, span: Span) -> Result<(), PublishError> {
        let mut sent = u64::from(self.partition);
        loop {
            let at = Instant::now();
            if at >= span.until {
                return Ok(());
            }
            let record = Record::new(value(self.size, sent));
            self.publisher
                .send_to(self.partition, record)
                .await?
                .await?;
            sent += 1;
            let now = Instant::now();
            let is_measured = at >= span.from && now <= span.until;
            if is_measured {
                stage.tally.note(Kind::Ack, now.since(at));
            }
            stage.tally.count(1, self.size, is_measured);
        }
    }
}
