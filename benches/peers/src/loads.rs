//! The loads, the same for every peer.
//!
//! Owns what is put on a server and how it is timed. Promises: every record counted was acknowledged and is
//! there; clocks run until the last ack; streams are fresh and deleted afterwards. Must not know: which peer.

mod bulk;
mod delivery;
mod replay;
mod tasks;

use std::time::Duration;

use anyhow::Result;

use crate::metric::{Load, Metric};
use crate::peer::Peer;
use crate::server::Server;

/// Bytes of a small and of a large value.
const SMALL: usize = 100;
const LARGE: usize = 1024;
/// Runs before it counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// The one stream of a load.
const STREAM: &str = "peers";

/// What was found.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// Where a load is put on.
pub(crate) struct Stage<'a, P> {
    pub(crate) peer: P,
    pub(crate) server: &'a Server,
    pub(crate) length: Duration,
}

/// Puts a load on.
pub(crate) async fn measure<P: Peer>(stage: &Stage<'_, P>, load: Load) -> Result<Figures> {
    match load {
        Load::Small => {
            let ran = bulk::run(stage, SMALL, 1).await?;
            Ok(vec![
                (Metric::Small, ran.records_per_second()),
                (Metric::CpuSmall, ran.cpu_per_million),
                (Metric::DiskSmall, ran.disk_per_byte),
                (Metric::WrittenSmall, ran.written_per_byte),
            ])
        }
        Load::Large => {
            let ran = bulk::run(stage, LARGE, 1).await?;
            Ok(vec![
                (Metric::Large, ran.records_per_second() * LARGE as f64),
                (Metric::DiskLarge, ran.disk_per_byte),
                (Metric::WrittenLarge, ran.written_per_byte),
            ])
        }
        Load::Four => {
            let ran = bulk::run(stage, SMALL, 4).await?;
            Ok(vec![
                (Metric::Four, ran.records_per_second()),
                (Metric::CpuFour, ran.cpu_per_million),
            ])
        }
        Load::Tasks => {
            let times = tasks::run(stage, SMALL, tasks::MANY).await?;
            let seconds = stage.length.as_secs_f64();
            Ok(vec![(Metric::Tasks, times.len() as f64 / seconds)])
        }
        Load::One => {
            let times = tasks::run(stage, SMALL, tasks::ONE).await?;
            Ok(quantiles(&times, Metric::OneP50, Metric::OneP99))
        }
        Load::Delivery => {
            let times = delivery::run(stage, SMALL).await?;
            Ok(quantiles(&times, Metric::DeliveryP50, Metric::DeliveryP99))
        }
        Load::ReplaySmall => {
            let rate = replay::run(stage, SMALL).await?;
            Ok(vec![(Metric::ReplaySmall, rate)])
        }
        Load::ReplayLarge => {
            let rate = replay::run(stage, LARGE).await?;
            Ok(vec![(Metric::ReplayLarge, rate * LARGE as f64)])
        }
    }
}

/// Times in nanoseconds.
pub(crate) type Times = hdrhistogram::Histogram<u64>;

fn quantiles(times: &Times, p50: Metric, p99: Metric) -> Figures {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e9;
    vec![(p50, at(0.5)), (p99, at(0.99))]
}

/// A histogram up to a minute.
pub(crate) fn times() -> Result<Times> {
    Ok(Times::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Adds one, however long.
pub(crate) fn note(times: &mut Times, time: Duration) {
    times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}
