//! What came of a benchmark: a few lines for people, or one JSON object.

use serde::{Serialize, Serializer};

use super::BenchCommand;
use super::stage::Stage;
use super::times::Latency;
use crate::cli::failure::CliError;
use crate::cli::output::Output;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    /// The load, as it was asked for.
    #[serde(serialize_with = "as_object")]
    load: Vec<(&'static str, u64)>,
    /// Whether it ran to its end.
    complete: bool,
    /// Of all subscribers together, where there are several.
    records: u64,
    value_bytes: u64,
    seconds: f64,
    /// Records that a rate asked for.
    records_due: Option<u64>,
    /// How often connections were lost and made again.
    reconnects: u64,
    /// Until the ack.
    ack: Option<Latency>,
    /// Until a subscriber has it.
    delivery: Option<Latency>,
    /// From a join or a leave until every partition is held.
    rebalance: Option<Latency>,
}

fn as_object<S: Serializer>(load: &[(&str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(load.iter().copied())
}

#[derive(Serialize)]
struct Rates<'a> {
    #[serde(flatten)]
    report: &'a Report,
    records_per_second: f64,
    megabytes_per_second: f64,
}

/// Less of what was due than this is said.
const REACHED: f64 = 0.99;

impl Report {
    pub(super) fn new(
        command: &BenchCommand,
        stage: &Stage,
        reconnects: u64,
        complete: bool,
    ) -> Self {
        let (records, value_bytes) = stage.tally.measured();
        let [ack, delivery, rebalance] = stage.tally.times();
        let mut load = Vec::new();
        // An existing topic has records of any size.
        if !matches!(command, BenchCommand::Replay(args) if args.load.topic.is_some()) {
            load.push(("size", command.load().size));
        }
        load.extend(command.numbers());
        load.push(("partitions", u64::from(stage.partitions())));
        Self {
            bench: command.name(),
            load,
            complete,
            records,
            value_bytes,
            seconds: stage.tally.phase().measured().as_secs_f64(),
            records_due: stage.tally.due(),
            reconnects,
            ack,
            delivery,
            rebalance,
        }
    }

    /// Prints it, unless nothing was measured.
    pub(super) fn print(&self, is_json: bool) -> Result<(), CliError> {
        if !self.complete && self.records == 0 && self.rebalance.is_none() {
            return Ok(());
        }
        let seconds = self.seconds.max(f64::MIN_POSITIVE);
        #[expect(clippy::cast_precision_loss, reason = "rates have three digits")]
        let (records, bytes) = (self.records as f64, self.value_bytes as f64);
        let (rate, megabytes) = (records / seconds, bytes / seconds / 1e6);
        let mut output = Output::new();
        if is_json {
            output.json(&Rates {
                report: self,
                records_per_second: rate,
                megabytes_per_second: megabytes,
            })?;
            return output.flush();
        }
        for line in self.lines(rate, megabytes) {
            output.line(line.as_bytes())?;
        }
        output.flush()
    }

    fn lines(&self, rate: f64, megabytes: f64) -> Vec<String> {
        let load = self
            .load
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        let load = load.collect::<Vec<_>>().join(", ");
        let early = if self.complete { "" } else { " (ended early)" };
        let mut lines = vec![format!("{}{early}: {load}", self.bench)];
        if self.rebalance.is_none() {
            lines.push(format!(
                "  {rate:.0} records/s  {megabytes:.1} MB/s  ({} records of {} bytes in {:.2} s)",
                self.records,
                self.mean_bytes(),
                self.seconds
            ));
        }
        let subscribers = self.load.iter().find(|(name, _)| *name == "subscribers");
        if let Some((_, count)) = subscribers.filter(|(_, count)| *count > 1) {
            #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
            let (each, each_megabytes) = (rate / *count as f64, megabytes / *count as f64);
            lines.push(format!(
                "  that is all {count} subscribers together; each: {each:.0} records/s  {each_megabytes:.1} MB/s"
            ));
        }
        let times = [
            ("ack", self.ack),
            ("delivery", self.delivery),
            ("rebalance", self.rebalance),
        ];
        let times = times
            .into_iter()
            .filter_map(|(name, times)| Some((name, times?)));
        lines.extend(times.map(|(name, times)| line_of(name, &times)));
        lines.extend(self.warnings());
        lines
    }

    fn mean_bytes(&self) -> String {
        let (bytes, records) = (self.value_bytes, self.records.max(1));
        if bytes.is_multiple_of(records) {
            return (bytes / records).to_string();
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let mean = bytes as f64 / records as f64;
        format!("{mean:.1}")
    }

    /// What whoever reads the figures must know.
    fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let missed = |due: &u64| (self.records as f64) < *due as f64 * REACHED;
        if let Some(due) = self.records_due.filter(missed) {
            lines.push(format!(
                "  the rate was not reached: {} of {due} records were published; the others have no times",
                self.records
            ));
        }
        if self.reconnects > 0 {
            lines.push(format!(
                "  the connection was lost and made again {} time(s); that is in the figures",
                self.reconnects
            ));
        }
        lines
    }
}

fn line_of(name: &str, times: &Latency) -> String {
    format!(
        "  {name}: p50 {} us  p90 {}  p99 {}  p99.9 {}  max {}  mean {:.0}  ({} measured)",
        times.p50_us,
        times.p90_us,
        times.p99_us,
        times.p999_us,
        times.max_us,
        times.mean_us,
        times.count
    )
}
