//! `falcon topic create|list|describe|alter|delete`.

use std::time::Duration;

use clap::{Args, Subcommand};
use falcon::config::units::{show_bytes, show_millis};
use falcon_client::{Client, TopicChange, TopicOptions};
use falcon_protocol::message::{ConfigEntry, TopicConfig, TopicDescription};
use serde::Serialize;

use super::Global;
use super::arguments::{self, Setting, show_time};
use super::connect::{close, connect};
use super::failure::CliError;
use super::output::Output;

/// The commands of `falcon topic`.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic.
    Create(CreateArgs),
    /// List all topics.
    List,
    /// Show a topic and what its partitions hold.
    Describe(NameArgs),
    /// Change retention, or add partitions.
    Alter(AlterArgs),
    /// Delete a topic and its records.
    Delete(NameArgs),
}

/// A topic's name.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The topic: 1 to 200 letters, digits, '.', '_', '-'.
    name: String,
}

/// Arguments of `falcon topic create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How many partitions; records with equal keys meet in one, in order.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Records older than this may be trimmed: 7d, 12h. Default: kept for ever.
    #[arg(long, value_name = "AGE", value_parser = arguments::duration)]
    retention_age: Option<Duration>,
    /// A partition larger than this loses its oldest records: 10GiB. Default: no limit.
    #[arg(long, value_name = "SIZE", value_parser = arguments::bytes)]
    retention_bytes: Option<u64>,
}

/// Arguments of `falcon topic alter`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct AlterArgs {
    #[command(flatten)]
    name: NameArgs,
    /// New number of partitions, not fewer than before; keys may move to other partitions.
    #[arg(long, group = "change", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// New retention by age, with a unit (7d, 12h), or none.
    #[arg(long, group = "change", value_name = "AGE|none", value_parser = arguments::duration_or_none)]
    retention_age: Option<Setting<Duration>>,
    /// New retention by size of a partition, or none.
    #[arg(long, group = "change", value_name = "SIZE|none", value_parser = arguments::bytes_or_none)]
    retention_bytes: Option<Setting<u64>>,
}

/// Runs one of them.
pub(crate) async fn run(command: TopicCommand, global: Global) -> Result<(), CliError> {
    let client = connect(&global).await?;
    let is_json = global.json;
    let result = match command {
        TopicCommand::Create(args) => create(&client, args, is_json).await,
        TopicCommand::List => list(&client, is_json).await,
        TopicCommand::Describe(args) => describe(&client, &args.name, is_json).await,
        TopicCommand::Alter(args) => alter(&client, args, is_json).await,
        TopicCommand::Delete(args) => delete(&client, &args.name, is_json).await,
    };
    close(&client).await;
    result
}

async fn create(client: &Client, args: CreateArgs, is_json: bool) -> Result<(), CliError> {
    let mut options = TopicOptions::new(args.partitions);
    if let Some(age) = args.retention_age {
        options = options.retention_age(age);
    }
    if let Some(bytes) = args.retention_bytes {
        options = options.retention_bytes(bytes);
    }
    let name = args.name.name;
    let created = client.create_topic(&name, options).await;
    let topic_id = created.map_err(|error| CliError::from_client("topic create", &error))?;
    let mut output = Output::new();
    if is_json {
        output.json(&Created {
            topic: &name,
            topic_id: topic_id.0,
            partitions: args.partitions,
            retention_age_ms: args.retention_age.map(millis),
            retention_bytes: args.retention_bytes,
        })?;
        return output.flush();
    }
    let age = args.retention_age.map(millis).map(show_millis);
    let age = age.map(|age| format!(", retention age {age}"));
    let size = args.retention_bytes.map(show_bytes);
    let size = size.map(|size| format!(", retention bytes {size}"));
    let line = format!(
        "created {name} with {}{}{}",
        show_partitions(args.partitions),
        age.unwrap_or_default(),
        size.unwrap_or_default()
    );
    output.line(line.as_bytes())?;
    output.flush()
}

async fn list(client: &Client, is_json: bool) -> Result<(), CliError> {
    let topics = client.list_topics().await;
    let topics = topics.map_err(|error| CliError::from_client("topic list", &error))?;
    let mut output = Output::new();
    if is_json {
        for topic in &topics {
            let config = retention(&topic.config);
            output.json(&Listed {
                topic: &topic.name,
                topic_id: topic.topic_id.0,
                partitions: topic.partitions,
                retention_age_ms: config.retention_age_ms,
                retention_bytes: config.retention_bytes,
            })?;
        }
    } else {
        let rows: Vec<[String; 4]> = topics
            .iter()
            .map(|topic| {
                let config = retention(&topic.config);
                [
                    topic.name.clone(),
                    topic.partitions.to_string(),
                    show_age(&config),
                    show_size(&config),
                ]
            })
            .collect();
        let names = ["topic", "partitions", "retention age", "retention bytes"];
        output.table(names, &rows)?;
    }
    output.flush()
}

async fn describe(client: &Client, name: &str, is_json: bool) -> Result<(), CliError> {
    let topic = client.describe_topic(name).await;
    let topic = topic.map_err(|error| CliError::from_client("topic describe", &error))?;
    let mut output = Output::new();
    if is_json {
        output.json(&Described::of(&topic))?;
        return output.flush();
    }
    let config = retention(&topic.config);
    for (field, value) in [
        ("topic", topic.name.clone()),
        ("id", topic.topic_id.to_string()),
        ("created", show_time(topic.created_ms)),
        ("retention age", show_age(&config)),
        ("retention bytes", show_size(&config)),
    ] {
        output.line(format!("{field:<16}{value}").as_bytes())?;
    }
    output.line(b"")?;
    let rows: Vec<[String; 5]> = topic
        .partitions
        .iter()
        .map(|partition| {
            [
                partition.partition.to_string(),
                partition.log_start.to_string(),
                partition.high_watermark.to_string(),
                partition
                    .high_watermark
                    .since(partition.log_start)
                    .to_string(),
                partition.bytes.to_string(),
            ]
        })
        .collect();
    let names = [
        "partition",
        "log start",
        "high watermark",
        "records",
        "bytes",
    ];
    output.table(names, &rows)?;
    output.flush()
}

async fn alter(client: &Client, args: AlterArgs, is_json: bool) -> Result<(), CliError> {
    let mut change = TopicChange::new();
    if let Some(partitions) = args.partitions {
        change = change.partitions(partitions);
    }
    if let Some(age) = args.retention_age {
        change = change.retention_age(age.into_option());
    }
    if let Some(bytes) = args.retention_bytes {
        change = change.retention_bytes(bytes.into_option());
    }
    let name = args.name.name;
    let altered = client.alter_topic(&name, change).await;
    altered.map_err(|error| CliError::from_client("topic alter", &error))?;
    // The change is made, so a failure to read it back is no failure of the command.
    let Ok(topic) = client.describe_topic(&name).await else {
        return report("altered", &name, is_json);
    };
    let config = retention(&topic.config);
    let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    let mut output = Output::new();
    if is_json {
        output.json(&Altered {
            topic: &name,
            done: "altered",
            partitions,
            retention_age_ms: config.retention_age_ms,
            retention_bytes: config.retention_bytes,
        })?;
        return output.flush();
    }
    let partitions = args
        .partitions
        .map_or_else(String::new, |_| show_partitions(partitions) + ", ");
    let (age, size) = (show_age(&config), show_size(&config));
    let line = format!("altered {name}: {partitions}retention age {age}, retention bytes {size}");
    output.line(line.as_bytes())?;
    output.flush()
}

async fn delete(client: &Client, name: &str, is_json: bool) -> Result<(), CliError> {
    let deleted = client.delete_topic(name).await;
    deleted.map_err(|error| CliError::from_client("topic delete", &error))?;
    report("deleted", name, is_json)
}

fn report(what: &'static str, topic: &str, is_json: bool) -> Result<(), CliError> {
    let mut output = Output::new();
    if is_json {
        output.json(&Done { topic, done: what })?;
    } else {
        output.line(format!("{what} {topic}").as_bytes())?;
    }
    output.flush()
}

/// What was read from milliseconds on the command line.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn show_partitions(count: u32) -> String {
    let noun = if count == 1 {
        "partition"
    } else {
        "partitions"
    };
    format!("{count} {noun}")
}

/// A newer broker's settings that this version does not know are not shown.
fn retention(entries: &[ConfigEntry]) -> TopicConfig {
    let mut config = TopicConfig::default();
    for entry in entries {
        if let Err(reason) = config.apply(std::slice::from_ref(entry)) {
            tracing::warn!(reason, "the topic has a setting this version does not know");
        }
    }
    config
}

fn show_age(config: &TopicConfig) -> String {
    config.retention_age_ms.map_or("none".into(), show_millis)
}

fn show_size(config: &TopicConfig) -> String {
    config.retention_bytes.map_or("none".into(), show_bytes)
}

#[derive(Serialize)]
struct Done<'a> {
    topic: &'a str,
    done: &'static str,
}

#[derive(Serialize)]
struct Created<'a> {
    topic: &'a str,
    topic_id: u32,
    partitions: u32,
    retention_age_ms: Option<u64>,
    retention_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Altered<'a> {
    topic: &'a str,
    done: &'static str,
    partitions: u32,
    retention_age_ms: Option<u64>,
    retention_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Listed<'a> {
    topic: &'a str,
    topic_id: u32,
    partitions: u32,
    retention_age_ms: Option<u64>,
    retention_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Described<'a> {
    topic: &'a str,
    topic_id: u32,
    created_ms: i64,
    retention_age_ms: Option<u64>,
    retention_bytes: Option<u64>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: u32,
    log_start: u64,
    high_watermark: u64,
    bytes: u64,
}

impl<'a> Described<'a> {
    fn of(topic: &'a TopicDescription) -> Self {
        let config = retention(&topic.config);
        let partitions = topic.partitions.iter().map(|partition| DescribedPartition {
            partition: partition.partition.0,
            log_start: partition.log_start.0,
            high_watermark: partition.high_watermark.0,
            bytes: partition.bytes,
        });
        Self {
            topic: &topic.name,
            topic_id: topic.topic_id.0,
            created_ms: topic.created_ms,
            retention_age_ms: config.retention_age_ms,
            retention_bytes: config.retention_bytes,
            partitions: partitions.collect(),
        }
    }
}
