//! What came of a benchmark: a few lines for people, or one JSON object.

use std::time::Duration;

use falcon::clock::Instant;
use serde::Serialize;
use serde_json::{Map, Value};

use super::BenchCommand;
use super::schedule::Kept;
use super::stage::Stage;
use super::times::Latency;
use crate::cli::failure::CliError;
use crate::cli::output::Output;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    /// What it was asked for, with the partitions that there are.
    load: Map<String, Value>,
    /// Whether it ran to its end.
    complete: bool,
    /// By a signal.
    interrupted: bool,
    /// Of all subscribers together, where there are several.
    records: u64,
    value_bytes: u64,
    seconds: f64,
    /// Records that a rate asked for.
    records_due: Option<u64>,
    schedule: Option<Schedule>,
    /// How often connections were lost and made again.
    reconnects: u64,
    /// Until the ack.
    ack: Option<Latency>,
    /// Until a subscriber has it.
    delivery: Option<Latency>,
    /// From a join or a leave until every partition is held.
    rebalance: Option<Latency>,
}

/// How well a rate was kept.
#[derive(Debug, Serialize)]
struct Schedule {
    reached: bool,
    behind_us: u128,
    behind_max_us: u128,
    /// Of the time, how much was spent waiting for room in the window.
    window_full_share: f64,
    limit: Option<Limit>,
}

/// What a rate was not reached for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    /// Records did not leave, for want of acks.
    Acks,
    /// This program did not make and send them faster.
    Client,
}

/// Less of what was due than this is said.
const REACHED: f64 = 0.99;
/// Later than this in the end, or than what is missing of `REACHED`, is said: a thread may have been kept waiting.
const BEHIND_MAX: Duration = Duration::from_millis(10);
/// A client that waited for more of its time would have been faster.
const WAITED: f64 = 0.1;

impl Schedule {
    fn new(kept: &Kept, records: u64, measured: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let is_all = records as f64 >= kept.due as f64 * REACHED;
        let behind_max = measured.mul_f64(1.0 - REACHED).max(BEHIND_MAX);
        let reached = is_all && kept.behind <= behind_max;
        // What left when it was due and is not there waits for its ack.
        let waits_for_acks = !is_all && kept.behind <= behind_max;
        let limit = if waits_for_acks || kept.waited_share >= WAITED {
            Limit::Acks
        } else {
            Limit::Client
        };
        Self {
            reached,
            behind_us: kept.behind.as_micros(),
            behind_max_us: kept.behind_max.as_micros(),
            window_full_share: kept.waited_share,
            limit: (!reached).then_some(limit),
        }
    }

    /// For people, of a rate that was not reached.
    fn lines(&self) -> [String; 2] {
        let full = self.window_full_share * 100.0;
        let why = match self.limit {
            Some(Limit::Acks) => "the acks: the broker, its device or the network",
            Some(Limit::Client) | None => {
                "this client, or the processors it shares with the broker"
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let seconds = |micros: u128| micros as f64 / 1e6;
        let (behind, most) = (seconds(self.behind_us), seconds(self.behind_max_us));
        [
            format!("  it was {behind:.3} s behind its schedule in the end, {most:.3} s at most"),
            format!("  {full:.0} % of the time its window was full; the limit was {why}"),
        ]
    }
}

#[derive(Serialize)]
struct Rates<'a> {
    #[serde(flatten)]
    report: &'a Report,
    records_per_second: f64,
    megabytes_per_second: f64,
}

impl Report {
    pub(super) fn new(
        command: &BenchCommand,
        stage: &Stage,
        reconnects: u64,
        result: &Result<(), CliError>,
    ) -> Self {
        let (records, value_bytes) = stage.tally.measured();
        let [ack, delivery, rebalance] = stage.tally.times();
        let measured = stage.tally.phase().measured();
        let kept = stage.tally.schedule.kept(Instant::now());
        let mut load = command.settings();
        load.insert("partitions".into(), stage.partitions().into());
        Self {
            bench: command.name(),
            load,
            complete: result.is_ok(),
            interrupted: matches!(result, Err(CliError::Interrupted)),
            records,
            value_bytes,
            seconds: measured.as_secs_f64(),
            records_due: kept.map(|kept| kept.due),
            schedule: kept.map(|kept| Schedule::new(&kept, records, measured)),
            reconnects,
            ack,
            delivery,
            rebalance,
        }
    }

    /// Prints it, unless it failed before anything was measured: then there is its error.
    pub(super) fn print(&self, is_json: bool) -> Result<(), CliError> {
        if self.is_empty() && !self.complete && !self.interrupted {
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

    fn is_empty(&self) -> bool {
        self.records == 0 && self.rebalance.is_none()
    }

    fn lines(&self, rate: f64, megabytes: f64) -> Vec<String> {
        let load = self.load.iter().filter_map(setting);
        let load = load.collect::<Vec<_>>().join(", ");
        let early = if self.complete { "" } else { " (ended early)" };
        let mut lines = vec![format!("{}{early}: {load}", self.bench)];
        if self.is_empty() {
            lines.push("  nothing was measured".into());
        } else if self.rebalance.is_none() {
            lines.push(format!(
                "  {rate:.0} records/s  {megabytes:.1} MB/s  ({} records of {} bytes in {:.2} s)",
                self.records,
                self.mean_bytes(),
                self.seconds
            ));
        }
        let subscribers = self.load.get("subscribers").and_then(Value::as_u64);
        if let Some(count) = subscribers.filter(|count| *count > 1) {
            #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
            let (each, each_megabytes) = (rate / count as f64, megabytes / count as f64);
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
        let missed = self.schedule.as_ref().filter(|kept| !kept.reached);
        if let (Some(due), Some(kept)) = (self.records_due, missed) {
            lines.push(format!(
                "  the rate was not reached: {} of {due} records were published; the others have no times",
                self.records
            ));
            lines.extend(kept.lines());
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

/// For people; what was not asked for is left out.
fn setting((name, value): (&String, &Value)) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(name.clone()),
        Value::String(text) => Some(format!("{name} {text}")),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(match name.strip_suffix("_ms") {
                Some(name) => format!("{name} {value} ms"),
                None => format!("{name} {value}"),
            })
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(records: u64, behind_ms: u64, waited_share: f64) -> Option<Limit> {
        let kept = Kept {
            due: 1000,
            behind: Duration::from_millis(behind_ms),
            behind_max: Duration::from_millis(behind_ms),
            waited_share,
        };
        Schedule::new(&kept, records, Duration::from_secs(1)).limit
    }

    #[test]
    fn the_limit_is_the_client_only_when_records_were_late_without_waiting_for_acks() {
        assert_eq!(limit(1000, 1, 0.0), None);
        assert_eq!(limit(300, 500, 0.0), Some(Limit::Client));
        assert_eq!(limit(300, 500, 0.5), Some(Limit::Acks));
        // They have left in time, and the broker is gone.
        assert_eq!(limit(300, 0, 0.0), Some(Limit::Acks));
    }
}
