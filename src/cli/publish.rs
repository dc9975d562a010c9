//! `falcon publish`: one record a line, as fast as the broker makes them durable.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use falcon::clock::Instant;
use falcon_client::{Compression, Publisher, Ticket};
use falcon_protocol::{Partition, Record};
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Global;
use super::connect::{close, connect};
use super::failure::{CliError, Exit, chain};
use super::fields::Fields;
use super::lines::{Lines, LinesError};
use super::notice;
use super::output::Output;
use super::progress::Progress;

/// LIMIT: records sent and not yet seen to be durable. The publisher's window bounds their bytes.
const TICKETS_MAX: usize = 65_536;

/// A shorter run says nothing about how fast records go.
const RATE_SECONDS_MIN: f64 = 0.01;

/// Arguments of `falcon publish`.
#[derive(Debug, Args)]
#[command(
    after_help = "A record that is not acknowledged within 2 minutes, or --timeout, is an \
    error: the command ends.\nUntil then it waits for a broker that is gone, and says so."
)]
pub(crate) struct PublishArgs {
    /// The topic.
    topic: String,
    /// Where the records are, one a line, any bytes; '-' is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    /// Lines are JSON objects, and this field is the key: a string's text, or the JSON text of a
    /// number or boolean; null or missing is no key.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Lines are JSON objects, and this field is the time of the event: RFC 3339, or milliseconds
    /// since the Unix epoch; null or missing is now.
    #[arg(long, value_name = "FIELD")]
    timestamp_field: Option<String>,
    /// Send everything to this partition, whatever the key.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Compression of batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Print "PARTITION OFFSET" for each record once it is durable, in the order of the input.
    #[arg(long)]
    receipts: bool,
}

/// Names of compressions.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Codec {
    None,
    Lz4,
    Zstd,
}

/// Publishes the lines.
pub(crate) async fn run(args: PublishArgs, global: Global) -> Result<(), CliError> {
    let lines = Lines::open(&args.file).map_err(|error| input_failure(&error))?;
    let client = connect(&global).await?;
    let mut builder = client
        .publisher(&args.topic)
        .compression(match args.compression {
            Codec::None => Compression::None,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        });
    if let Some(timeout) = global.timeout {
        builder = builder.delivery_timeout(timeout);
    }
    let publisher = builder.build().await;
    let publisher = publisher.map_err(|error| CliError::from_publish("publish", &error.into()))?;

    let is_typed = args.file == Path::new("-") && io::stdin().is_terminal();
    let progress = Progress::bytes(lines.bytes_total, is_typed);
    let mut summary = Summary {
        records: 0,
        bytes: 0,
        start: Instant::now(),
        is_json: global.json,
    };
    let result = {
        let (to, tickets) = mpsc::channel(TICKETS_MAX);
        let source = Source {
            lines,
            fields: Fields {
                key: args.key_field,
                timestamp: args.timestamp_field,
            },
            partition: args.partition.map(Partition),
            timeout: global.timeout,
            is_json: global.json,
        };
        let send = pin!(source.send_all(&publisher, to, &progress));
        let receipts = args.receipts.then_some(global.json);
        let drain = pin!(drain(tickets, receipts, &mut summary));
        let work = async {
            match select(send, drain).await {
                // What was sent before a bad line shall be durable before that is reported.
                Either::Left((sent, drain)) => drain.await.and(sent),
                Either::Right((drained, _)) => drained,
            }
        };
        // CANCEL SAFETY: watching ends with the work and keeps nothing.
        tokio::select! {
            result = work => result,
            () = notice::watch_client(&client, global.json) => Ok(()),
        }
    };
    drop(progress);
    drop(summary);
    if result.is_ok() {
        close(&client).await;
    }
    result
}

fn input_failure(error: &LinesError) -> CliError {
    let remedy = match error {
        LinesError::Io { .. } => "check the path and its permissions",
        LinesError::TooLong { .. } => "split it: no broker accepts a record of this size",
    };
    CliError::new(Exit::Failed, "publish", chain(error), remedy)
}

/// Lines on their way to records.
struct Source {
    lines: Lines,
    fields: Fields,
    partition: Option<Partition>,
    timeout: Option<Duration>,
    is_json: bool,
}

impl Source {
    async fn send_all(
        mut self,
        publisher: &Publisher,
        tickets: mpsc::Sender<Sent>,
        progress: &Progress,
    ) -> Result<(), CliError> {
        let mut number = 0;
        let mut has_key = false;
        while let Some(block) = self.lines.next().await {
            let mut bytes = 0;
            for line in block.map_err(|error| input_failure(&error))? {
                number += 1;
                bytes += line.len() as u64 + 1;
                let sent = self.send(publisher, line, number).await?;
                has_key |= sent.has_key;
                if tickets.send(sent).await.is_err() {
                    return Ok(());
                }
            }
            progress.advance(bytes);
        }
        if let Some(field) = self.fields.key.filter(|_| number > 0 && !has_key) {
            let text =
                format!("no record had a value in the field {field:?}: all went without a key");
            notice::say(self.is_json, "no_key", &text);
        }
        Ok(())
    }

    async fn send(
        &self,
        publisher: &Publisher,
        line: Bytes,
        number: u64,
    ) -> Result<Sent, CliError> {
        let found = self.fields.find(&line).map_err(|reason| {
            let why = format!("line {number} {reason}");
            let remedy = "correct the line; the lines before it are published";
            CliError::new(Exit::Failed, "publish", why, remedy)
        })?;
        let bytes = line.len() as u64;
        let mut record = Record::new(line);
        let has_key = found.key.is_some();
        record.key = found.key;
        record.timestamp_ms = found.timestamp_ms;
        let sending = async {
            match self.partition {
                Some(partition) => publisher.send_to(partition, record).await,
                None => publisher.send(record).await,
            }
        };
        let sent = match self.timeout {
            // CANCEL SAFETY: a send that is dropped has not taken the record.
            Some(timeout) => tokio::time::timeout(timeout, sending).await.map_err(|_| {
                let why = format!("line {number} found no room in the queue in time");
                let remedy = "allow a longer --timeout, or check why the broker is slow";
                CliError::new(Exit::TimedOut, "publish", why, remedy)
            })?,
            None => sending.await,
        };
        let ticket =
            sent.map_err(|error| CliError::from_publish(format!("publish line {number}"), &error))?;
        Ok(Sent {
            ticket,
            bytes,
            has_key,
        })
    }
}

struct Sent {
    ticket: Ticket,
    bytes: u64,
    has_key: bool,
}

/// Waits for the tickets in the order of the input. `receipts` says whether to print them, and
/// whether as JSON.
async fn drain(
    mut tickets: mpsc::Receiver<Sent>,
    receipts: Option<bool>,
    summary: &mut Summary,
) -> Result<(), CliError> {
    let mut output = Output::new();
    loop {
        let mut sent = match tickets.recv().now_or_never() {
            Some(Some(sent)) => sent,
            Some(None) => return output.flush(),
            None => {
                output.flush()?;
                match tickets.recv().await {
                    Some(sent) => sent,
                    None => return Ok(()),
                }
            }
        };
        let receipt = if let Some(receipt) = (&mut sent.ticket).now_or_never() {
            receipt
        } else {
            output.flush()?;
            sent.ticket.await
        };
        let receipt = receipt.map_err(|error| {
            CliError::from_publish(format!("publish line {}", summary.records + 1), &error)
        })?;
        summary.records += 1;
        summary.bytes += sent.bytes;
        match receipts {
            None => {}
            Some(false) => {
                let line = format!("{} {}", receipt.partition, receipt.offset);
                output.line(line.as_bytes())?;
            }
            Some(true) => output.json(&JsonReceipt {
                partition: receipt.partition.0,
                offset: receipt.offset.0,
                append_time_ms: receipt.append_time_ms,
            })?,
        }
    }
}

#[derive(Serialize)]
struct JsonReceipt {
    partition: u32,
    offset: u64,
    append_time_ms: i64,
}

/// What is durable. Said however the command ends, also when it is interrupted.
struct Summary {
    records: u64,
    bytes: u64,
    start: Instant,
    is_json: bool,
}

#[derive(Serialize)]
struct JsonSummary {
    records: u64,
    bytes: u64,
    seconds: f64,
}

/// On standard error, because standard output is for receipts.
impl Drop for Summary {
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    fn drop(&mut self) {
        let (records, bytes) = (self.records, self.bytes);
        let seconds = self.start.elapsed().as_secs_f64();
        let text = if self.is_json {
            let summary = JsonSummary {
                records,
                bytes,
                seconds,
            };
            serde_json::to_string(&summary).unwrap_or_default()
        } else {
            let noun = if records == 1 { "record" } else { "records" };
            let megabytes = bytes as f64 / 1e6;
            let rate = if seconds < RATE_SECONDS_MIN {
                String::new()
            } else {
                format!(" ({:.1} MB/s)", megabytes / seconds)
            };
            format!("published {records} {noun}, {megabytes:.1} MB in {seconds:.2} s{rate}")
        };
        // There is nobody left to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }
}
