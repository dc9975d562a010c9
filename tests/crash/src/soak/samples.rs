//! What a broker holds on to, every few seconds.
//!
//! Owns the samples, their figures and their file. They come from /proc, from the data folder, and
//! from the broker's own answers; nothing in the broker knows of them.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use falcon_client::Client;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::lasting::TOPICS;
use super::shared::Shared;
use super::trend::{fit, warm_up};
use crate::campaign::describe;
use crate::error::CrashError;
use crate::trial::Findings;

const HOUR: f64 = 3_600.0;

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Rss,
    RssMax,
    OpenFiles,
    Connections,
    Threads,
    Disk,
    JournalDisk,
    IndexDisk,
    Live,
    Acked,
    Read,
    CpuMs,
}

impl Column {
    pub(super) const ALL: [Self; 12] = [
        Self::Rss,
        Self::RssMax,
        Self::OpenFiles,
        Self::Connections,
        Self::Threads,
        Self::Disk,
        Self::JournalDisk,
        Self::IndexDisk,
        Self::Live,
        Self::Acked,
        Self::Read,
        Self::CpuMs,
    ];

    fn of(self, row: &Row) -> u64 {
        let mut values = Self::ALL.iter().zip(row);
        let found = values.find(|(column, _)| **column == self);
        found.map_or(0, |(_, value)| *value)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rss => "rss_bytes",
            Self::RssMax => "rss_max_bytes",
            Self::OpenFiles => "open_files",
            Self::Connections => "connections",
            Self::Threads => "threads",
            Self::Disk => "disk_bytes",
            Self::JournalDisk => "journal_disk_bytes",
            Self::IndexDisk => "index_disk_bytes",
            Self::Live => "live_bytes",
            Self::Acked => "records_acked",
            Self::Read => "records_read",
            Self::CpuMs => "cpu_ms",
        }
    }
}

type Row = [u64; Column::ALL.len()];

/// One row for each moment.
#[derive(Debug)]
pub(super) struct Samples {
    rows: Vec<(f64, Row)>,
}

/// Takes samples for so long.
pub(super) async fn take(
    shared: &Shared,
    broker: u32,
    folder: &Path,
    length: Duration,
) -> Result<Samples, CrashError> {
    let begun = Instant::now();
    let every = Duration::from_secs(if length < Duration::from_secs(60) {
        1
    } else {
        5
    });
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let client = shared.connect().await.map_err(CrashError::Program)?;
    let mut samples = Samples { rows: Vec::new() };
    while begun.elapsed() < length {
        ticks.tick().await;
        match sample(shared, broker, folder, &client).await {
            Ok(row) => samples.rows.push((begun.elapsed().as_secs_f64(), row)),
            // A broker that ended is a finding, and what was seen of it until then is worth having.
            Err(error) => {
                shared.complain(format!("no sample of the broker: {}", describe(&error)));
                break;
            }
        }
    }
    client.shutdown().await;
    Ok(samples)
}

async fn sample(
    shared: &Shared,
    broker: u32,
    folder: &Path,
    client: &Client,
) -> Result<Row, CrashError> {
    let status = format!("/proc/{broker}/status");
    let status = Path::new(&status);
    let status = std::fs::read_to_string(status).map_err(CrashError::io("read", status))?;
    let (open_files, connections) = files_of(broker)?;
    let (journal, index) = (
        allocated(&folder.join("journal")),
        allocated(&folder.join("index")),
    );
    let live = live_bytes(client).await?;
    let tally = &shared.tally;
    let row = Column::ALL.map(|column| match column {
        Column::Rss => number_in(&status, "VmRSS:") * 1024,
        Column::RssMax => number_in(&status, "VmHWM:") * 1024,
        Column::Threads => number_in(&status, "Threads:"),
        Column::OpenFiles => open_files,
        Column::Connections => connections,
        Column::Disk => journal + index,
        Column::JournalDisk => journal,
        Column::IndexDisk => index,
        Column::Live => live,
        Column::Acked => tally.acked.load(Ordering::Relaxed),
        Column::Read => tally.read.load(Ordering::Relaxed),
        Column::CpuMs => cpu_ms(broker),
    });
    Ok(row)
}

/// Batches that the topics that last keep, as the broker counts them.
async fn live_bytes(client: &Client) -> Result<u64, CrashError> {
    let mut bytes = 0;
    for topic in &TOPICS {
        let found = client.describe_topic(topic.name).await;
        let found = found.map_err(|error| CrashError::Program(error.to_string()))?;
        bytes += found.partitions.iter().map(|at| at.bytes).sum::<u64>();
    }
    Ok(bytes)
}

/// The first number behind a name.
fn number_in(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// Open files of a process, and the sockets among them.
fn files_of(process: u32) -> Result<(u64, u64), CrashError> {
    let folder = format!("/proc/{process}/fd");
    let entries = std::fs::read_dir(&folder).map_err(CrashError::io("list", Path::new(&folder)))?;
    let (mut files, mut sockets) = (0, 0);
    for entry in entries.flatten() {
        files += 1;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok((files, sockets))
}

/// What the files of a folder occupy; they come and go meanwhile.
fn allocated(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => allocated(&entry.path()),
        found => found.as_ref().map_or(0, Metadata::blocks) * 512,
    };
    entries.flatten().map(of).sum()
}

/// Processor time of a process so far. The system counts it in hundredths of a second.
fn cpu_ms(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may contain spaces. User and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    let times = times.filter_map(|ticks| ticks.parse::<u64>().ok());
    times.sum::<u64>() * 10
}

impl Samples {
    /// Samples of a broker that never was.
    #[cfg(test)]
    pub(super) fn made(
        times: impl Iterator<Item = f64>,
        value: impl Fn(Column, f64) -> f64,
    ) -> Self {
        let row = |time| Column::ALL.map(|column| whole(value(column, time)));
        Self {
            rows: times.map(|time| (time, row(time))).collect(),
        }
    }

    /// Seconds and values.
    pub(super) fn points(&self, column: Column) -> Vec<(f64, f64)> {
        let rows = self.rows.iter();
        rows.map(|(seconds, row)| (*seconds, float(column.of(row))))
            .collect()
    }

    /// The same without the part in which the broker fills.
    pub(super) fn settled(&self, column: Column) -> Vec<(f64, f64)> {
        let end = self.rows.last().map_or(0.0, |(seconds, _)| *seconds);
        let mut points = self.points(column);
        points.retain(|(seconds, _)| *seconds >= warm_up(end));
        points
    }

    fn max(&self, column: Column) -> u64 {
        let rows = self.rows.iter();
        rows.map(|(_, row)| column.of(row))
            .max()
            .unwrap_or_default()
    }

    /// Figures of the whole run; means and slopes without the warm-up.
    pub(super) fn report(&self, findings: &mut Findings) {
        for (column, name) in [
            (Column::Rss, "rss"),
            (Column::Disk, "disk"),
            (Column::IndexDisk, "index_disk"),
        ] {
            let line = fit(&self.settled(column));
            let (mean, slope) = line.map_or((0.0, 0.0), |line| (line.mean, line.slope * HOUR));
            let of = |what: &str| format!("{name}_{what}");
            findings.figure(&of("mean_bytes"), whole(mean));
            // A figure has no sign: one of the two is 0.
            findings.figure(&of("growth_bytes_per_hour"), whole(slope));
            findings.figure(&of("shrink_bytes_per_hour"), whole(-slope));
        }
        for (column, name) in [
            (Column::RssMax, "rss_max_bytes"),
            (Column::Disk, "disk_max_bytes"),
            (Column::Live, "live_max_bytes"),
            (Column::OpenFiles, "open_files_max"),
            (Column::Connections, "connections_max"),
            (Column::Threads, "threads_max"),
            (Column::CpuMs, "broker_cpu_ms"),
        ] {
            findings.figure(name, self.max(column));
        }
        findings.figure("samples", self.rows.len() as u64);
    }

    /// One line for each sample.
    pub(super) fn write_csv(&self, path: &Path) -> Result<(), CrashError> {
        let names = Column::ALL.map(Column::name);
        let mut text = format!("seconds,{}\n", names.join(","));
        for (seconds, row) in &self.rows {
            let values = row.map(|value| value.to_string());
            let line = format!("{seconds:.1},{}", values.join(","));
            writeln!(text, "{line}").map_err(|error| CrashError::Malformed(error.to_string()))?;
        }
        std::fs::write(path, text).map_err(CrashError::io("write", path))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes and counts far below 2^52"
)]
pub(super) const fn float(n: u64) -> f64 {
    n as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is negative becomes 0; sizes are far below 2^52"
)]
fn whole(n: f64) -> u64 {
    n.max(0.0).round() as u64
}
