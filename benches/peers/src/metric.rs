//! What is measured, and how it is called.
//!
//! Owns the lists of loads and of figures. Promises: the order here is the order of the tables. Must not know:
//! how a figure comes about.

use clap::ValueEnum;
use serde::Serialize;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// 100 B, one publisher, one partition.
    Small,
    /// 1 KB, one publisher, one partition.
    Large,
    /// 100 B, four publishers, a partition each.
    Four,
    /// 256 tasks, each awaiting the ack of its own 100 B.
    Tasks,
    /// One record at a time.
    One,
    /// Publish to subscriber, 1,000 a second.
    Delivery,
    /// Everything read again, 100 B.
    ReplaySmall,
    /// Everything read again, 1 KB.
    ReplayLarge,
}

/// In the order in which they are put on.
pub(crate) const LOADS: [Load; 8] = [
    Load::Small,
    Load::Large,
    Load::Four,
    Load::Tasks,
    Load::One,
    Load::Delivery,
    Load::ReplaySmall,
    Load::ReplayLarge,
];

impl Load {
    /// Whether what it leaves on disk is looked at, so that nothing may be there before.
    pub(crate) fn is_on_fresh(self) -> bool {
        matches!(self, Self::Small | Self::Large)
    }

    /// Whether it reads what is there, whatever its durability.
    pub(crate) fn is_replay(self) -> bool {
        matches!(self, Self::ReplaySmall | Self::ReplayLarge)
    }
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Records per second.
    Small,
    /// Bytes of values per second.
    Large,
    /// Records per second.
    Four,
    /// Acks per second.
    Tasks,
    /// Seconds until the ack.
    OneP50,
    /// Seconds until the ack.
    OneP99,
    /// Seconds from when it was due until a subscriber has it.
    DeliveryP50,
    /// Seconds from when it was due until a subscriber has it.
    DeliveryP99,
    /// Records per second.
    ReplaySmall,
    /// Bytes of values per second.
    ReplayLarge,
    /// Seconds of the server's processes per million records of 100 B.
    CpuSmall,
    /// The same with four publishers.
    CpuFour,
    /// Bytes allocated per byte of values of 100 B.
    DiskSmall,
    /// Bytes allocated per byte of values of 1 KB.
    DiskLarge,
    /// Bytes written per byte of values of 100 B.
    WrittenSmall,
    /// Bytes written per byte of values of 1 KB.
    WrittenLarge,
    /// Peak resident bytes.
    Memory,
}

/// In the order of the table.
pub(crate) const METRICS: [Metric; 17] = [
    Metric::Small,
    Metric::Large,
    Metric::Four,
    Metric::Tasks,
    Metric::OneP50,
    Metric::OneP99,
    Metric::DeliveryP50,
    Metric::DeliveryP99,
    Metric::ReplaySmall,
    Metric::ReplayLarge,
    Metric::CpuSmall,
    Metric::CpuFour,
    Metric::DiskSmall,
    Metric::DiskLarge,
    Metric::WrittenSmall,
    Metric::WrittenLarge,
    Metric::Memory,
];

impl Metric {
    /// What it is called in tables and plots.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Small => "100 B, one publisher, records/s",
            Self::Large => "1 KB, one publisher, MB/s",
            Self::Four => "100 B, 4 publishers x 4 partitions, records/s",
            Self::Tasks => "100 B, 256 tasks each awaiting its ack, acks/s",
            Self::OneP50 => "one publish at a time, p50, us",
            Self::OneP99 => "one publish at a time, p99, us",
            Self::DeliveryP50 => "publish to subscriber at 1,000/s, p50, us",
            Self::DeliveryP99 => "publish to subscriber at 1,000/s, p99, us",
            Self::ReplaySmall => "replay 100 B, records/s",
            Self::ReplayLarge => "replay 1 KB, MB/s",
            Self::CpuSmall => "server CPU s per million records, one publisher",
            Self::CpuFour => "server CPU s per million records, 4 x 4",
            Self::DiskSmall => "bytes on disk per payload byte, 100 B",
            Self::DiskLarge => "bytes on disk per payload byte, 1 KB",
            Self::WrittenSmall => "bytes written per payload byte, 100 B",
            Self::WrittenLarge => "bytes written per payload byte, 1 KB",
            Self::Memory => "peak memory of the server, MB",
        }
    }

    /// A figure as people read it.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Small | Self::Four | Self::Tasks | Self::ReplaySmall => thousands(value),
            Self::Large | Self::ReplayLarge | Self::Memory => grouped(value / 1e6),
            Self::OneP50 | Self::OneP99 | Self::DeliveryP50 | Self::DeliveryP99 => {
                grouped(value * 1e6)
            }
            _ => format!("{value:.2}"),
        }
    }
}

/// `4.74M`, `415k`.
fn thousands(value: f64) -> String {
    match value {
        _ if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        _ if value >= 99_950.0 => format!("{:.0}k", value / 1e3),
        _ if value >= 1000.0 => format!("{:.1}k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

/// `1,246`, `6.7`.
fn grouped(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let whole = value.round() as u64;
    match whole {
        0..1000 => whole.to_string(),
        1000..1_000_000 => format!("{},{:03}", whole / 1000, whole % 1000),
        _ => format!(
            "{},{:03},{:03}",
            whole / 1_000_000,
            whole / 1000 % 1000,
            whole % 1000
        ),
    }
}
