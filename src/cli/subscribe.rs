//! `falcon subscribe`: records on standard output, one a line.

mod group;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use falcon_client::{Client, Delivered, Start, Subscription};
use falcon_protocol::{Offset, Partition};
use futures_util::FutureExt;
use serde::Serialize;

use super::Global;
use super::arguments;
use super::connect::{close, connect};
use super::failure::{CliError, Exit};
use super::notice;
use super::output::{Output, base64};
use super::positions;

/// Arguments of `falcon subscribe`.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// The topic; with --group also a pattern: '*' is one word between dots, '>' the rest.
    topic: String,
    /// As a member of this consumer group: its members share the partitions, go on where the group has
    /// committed, and commit what they printed. --from is for partitions without a commit (default: earliest).
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["partition", "until_end"])]
    group: Option<String>,
    /// Where to start: earliest, latest, offset:N, last:N (of each partition), or
    /// time:2013-01-01T10:00:00Z. Default: latest, or earliest with --until-end.
    #[arg(long, value_name = "POSITION", value_parser = arguments::position)]
    from: Option<Start>,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop at the end that the topic has now, instead of waiting for more.
    #[arg(long)]
    until_end: bool,
}

impl SubscribeArgs {
    /// Whether it subscribes as a member of a group.
    pub(crate) const fn is_member(&self) -> bool {
        self.group.is_some()
    }
}

/// Prints records until told to stop.
pub(crate) async fn run(args: SubscribeArgs, global: Global) -> Result<(), CliError> {
    let client = connect(&global).await?;
    if let Some(group) = &args.group {
        let printer = Printer {
            output: Output::new(),
            is_json: global.json,
            timeout: global.timeout,
            left: args.count,
            plan: Plan { ranges: None },
        };
        group::run(&client, &args, group, printer).await?;
        close(&client).await;
        return Ok(());
    }
    let default = if args.until_end {
        Start::Earliest
    } else {
        Start::Latest
    };
    let from = args.from.unwrap_or(default);
    let plan = Plan::make(&client, &args, from).await?;
    if plan.is_done() || args.count == Some(0) {
        close(&client).await;
        return Ok(());
    }
    let records = plan.open(&client, &args, from).await?;
    let printer = Printer {
        output: Output::new(),
        is_json: global.json,
        timeout: global.timeout,
        left: args.count,
        plan,
    };
    let events = records.events();
    // CANCEL SAFETY: watching ends with the printing and keeps nothing.
    tokio::select! {
        printed = printer.print_all(records) => printed?,
        () = notice::watch_subscription(events, global.json) => {}
    }
    close(&client).await;
    Ok(())
}

/// What is still to be printed of each partition when the end is known; empty when it is not.
struct Plan {
    ranges: Option<BTreeMap<Partition, (Offset, Offset)>>,
}

impl Plan {
    async fn make(client: &Client, args: &SubscribeArgs, from: Start) -> Result<Self, CliError> {
        if !args.until_end {
            return Ok(Self { ranges: None });
        }
        let listed = positions::resolve(client, &args.topic, args.partition, from).await;
        let listed = listed.map_err(|error| CliError::from_client("subscribe", &error))?;
        let ranges = listed.into_iter().map(|partition| {
            let range = (partition.offset, partition.high_watermark);
            (partition.partition, range)
        });
        let ranges = ranges.filter(|(_, (next, end))| next != end).collect();
        Ok(Self {
            ranges: Some(ranges),
        })
    }

    async fn open(
        &self,
        client: &Client,
        args: &SubscribeArgs,
        from: Start,
    ) -> Result<Subscription, CliError> {
        let mut builder = client.subscribe(&args.topic);
        match (&self.ranges, args.partition) {
            (Some(ranges), _) => {
                for (partition, (next, _)) in ranges {
                    builder = builder.partition_from(*partition, Start::Offset(*next));
                }
            }
            (None, Some(partition)) => {
                builder = builder.partition_from(Partition(partition), from);
            }
            (None, None) => builder = builder.from(from),
        }
        let opened = builder.open().await;
        opened.map_err(|error| CliError::from_subscribe("subscribe", &error))
    }

    /// Whether every partition has reached its end.
    fn is_done(&self) -> bool {
        self.ranges.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Takes note of a record; false when it lies behind the end and is not wanted.
    fn advance(&mut self, partition: Partition, offset: Offset) -> bool {
        let Some(ranges) = &mut self.ranges else {
            return true;
        };
        let Some((next, end)) = ranges.get_mut(&partition) else {
            return false;
        };
        *next = offset.advance(1);
        let end = *end;
        if offset.advance(1) >= end {
            ranges.remove(&partition);
        }
        offset < end
    }
}

struct Printer {
    output: Output,
    is_json: bool,
    timeout: Option<Duration>,
    left: Option<u64>,
    plan: Plan,
}

impl Printer {
    async fn print_all(mut self, mut records: Subscription) -> Result<(), CliError> {
        while !self.plan.is_done() && self.left != Some(0) {
            let Some(record) = self.next(&mut records).await? else {
                break;
            };
            if self.plan.advance(record.partition, record.offset) {
                self.print(&record)?;
                self.left = self.left.map(|left| left - 1);
            }
        }
        self.output.flush()
    }

    async fn next(&mut self, records: &mut Subscription) -> Result<Option<Delivered>, CliError> {
        let next = if let Some(next) = records.next().now_or_never() {
            next
        } else {
            self.output.flush()?;
            self.wait(records).await?
        };
        let failed = |error| CliError::from_subscribe("subscribe", &error);
        match next.transpose() {
            Ok(record) => Ok(record),
            Err(error) => {
                self.output.flush()?;
                Err(failed(error))
            }
        }
    }

    async fn wait(
        &mut self,
        records: &mut Subscription,
    ) -> Result<Option<Result<Delivered, falcon_client::SubscribeError>>, CliError> {
        let Some(timeout) = self.timeout else {
            return Ok(records.next().await);
        };
        // CANCEL SAFETY: a stream that is not polled to a record has not lost it.
        tokio::time::timeout(timeout, records.next())
            .await
            .map_err(|_| {
                let why = format!("no record came within {} ms", timeout.as_millis());
                let remedy = "allow a longer --timeout, or use --until-end";
                CliError::new(Exit::TimedOut, "subscribe", why, remedy)
            })
    }

    fn print(&mut self, record: &Delivered) -> Result<(), CliError> {
        if !self.is_json {
            return self
                .output
                .line(record.value.as_deref().unwrap_or_default());
        }
        let (key, key_base64) = text_or_base64(record.key.as_deref());
        let (value, value_base64) = text_or_base64(record.value.as_deref());
        let headers = record.headers.iter().map(|header| {
            let (value, value_base64) = text_or_base64(Some(&header.value));
            JsonHeader {
                name: &header.name,
                value,
                value_base64,
            }
        });
        self.output.json(&JsonRecord {
            topic: &record.topic,
            partition: record.partition.0,
            offset: record.offset.0,
            timestamp_ms: record.timestamp_ms,
            // Null says that there is none, which Base64 in its place contradicts.
            key: key_base64.is_none().then_some(Text(key)),
            key_base64,
            value: value_base64.is_none().then_some(Text(value)),
            value_base64,
            headers: headers.collect(),
        })
    }
}

/// Bytes as text when they are UTF-8, else as Base64 in a field of its own.
fn text_or_base64(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(base64(bytes))),
    }
}

/// Text, or null where the record has nothing.
#[derive(Serialize)]
struct Text<'a>(Option<&'a str>);

#[derive(Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}
