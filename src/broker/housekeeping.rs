//! What is done from time to time: retention, tidying the store, forgetting idle publishers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::message::TopicConfig;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::metrics::Metrics;
use crate::store::{Extent, ReadError, Store};
use crate::writer::{Command, PartitionView, Trim, Views, WriteState, WriterHandle};

/// How often the store may tidy up.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// LIMIT: turns of copying old records forward before retention is looked at again.
const TURNS_MAX: u32 = 64;

pub(super) struct Housekeeping {
    pub(super) store: Arc<dyn Store>,
    pub(super) views: Arc<Views>,
    pub(super) writer: WriterHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) retention_check: Duration,
    pub(super) producer_expiry_ms: i64,
}

impl Housekeeping {
    pub(super) async fn run(self) {
        let ticks = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut retention = ticks(self.retention_check);
        let mut tidying = ticks(TIDY_EVERY.min(self.retention_check));
        loop {
            // CANCEL SAFETY: a tick that is not taken is not lost.
            let is_retention_due = tokio::select! {
                _ = retention.tick() => true,
                _ = tidying.tick() => false,
            };
            if self.views.write_state() == WriteState::Stopped {
                continue;
            }
            let metrics = Arc::clone(&self.metrics);
            metrics.process.housekeeping.begin();
            let done = if is_retention_due {
                self.retain().await
            } else {
                self.tidy().await
            };
            metrics.process.housekeeping.end();
            if done.is_none() {
                return;
            }
        }
    }

    /// Lets old records and idle publishers go. `None`: the writer is gone.
    async fn retain(&self) -> Option<()> {
        let now_ms = clock::now_unix_ms();
        let trims = self.find_trims(now_ms).await;
        let records = trims.iter().map(|trim| trim.log_start.since(trim.from));
        let records: u64 = records.sum();
        if !trims.is_empty() {
            self.writer.send(Command::Trim(trims)).await.ok()?;
        }
        self.metrics.writer.records_trimmed.add(records);
        let before_ms = now_ms.saturating_sub(self.producer_expiry_ms);
        let expire = Command::ExpireProducers(before_ms);
        self.writer.send(expire).await.ok()
    }

    /// Lets the store move what lives among dead records, a bounded part per turn of the writer, so
    /// that publishes hardly wait. `None`: the writer is gone.
    async fn tidy(&self) -> Option<()> {
        for _ in 0..TURNS_MAX {
            let store = Arc::clone(&self.store);
            let gathered = tokio::task::spawn_blocking(move || store.gather()).await;
            let (done, is_done) = oneshot::channel();
            let tidied = Box::new(move || {
                // Nobody waits any more when the broker stops.
                let _ = done.send(());
            });
            self.writer.send(Command::Tidy(tidied)).await.ok()?;
            is_done.await.ok()?;
            if !gathered.unwrap_or(false) {
                break;
            }
        }
        Some(())
    }

    /// Looks through the oldest extents of every partition with a retention setting.
    async fn find_trims(&self, now_ms: i64) -> Vec<Trim> {
        let catalog = self.views.catalog();
        let mut wanted: Vec<(Arc<PartitionView>, TopicConfig)> = Vec::new();
        for topic in catalog.topics() {
            if topic.config != TopicConfig::default() {
                let views = topic
                    .partition_ids()
                    .filter_map(|id| self.views.partition(id));
                wanted.extend(views.map(|view| (view, topic.config)));
            }
        }
        if wanted.is_empty() {
            return Vec::new();
        }
        let store = Arc::clone(&self.store);
        let search = tokio::task::spawn_blocking(move || {
            let found = wanted.iter().filter_map(|(view, config)| {
                find_trim(store.as_ref(), view, *config, now_ms).unwrap_or_else(|error| {
                    warn!(partition = %view.id, %error, "retention could not look at a partition");
                    None
                })
            });
            found.collect::<Vec<Trim>>()
        });
        let trims = search.await.unwrap_or_default();
        for trim in &trims {
            let topic = catalog
                .by_id(trim.partition.topic)
                .map(|topic| topic.name.as_str());
            info!(
                topic,
                partition = trim.partition.partition.0,
                log_start = trim.log_start.0,
                bytes = trim.bytes_freed,
                "retention trims"
            );
        }
        trims
    }
}

/// How much of a partition may go. By age: extents whose newest batch is too old. By size: the
/// oldest extents, as long as what stays is at least the size kept.
fn find_trim(
    store: &dyn Store,
    view: &PartitionView,
    config: TopicConfig,
    now_ms: i64,
) -> Result<Option<Trim>, ReadError> {
    let (log_start, end) = (view.log_start(), view.high_watermark());
    let mut left = view.bytes();
    let mut trim = Trim {
        partition: view.id,
        from: log_start,
        log_start,
        bytes_freed: 0,
    };
    let oldest_ms = config
        .retention_age_ms
        .map(|age| now_ms.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)));
    store.extents(view.id, log_start, &mut |extent: Extent| {
        let is_old = oldest_ms.is_some_and(|oldest| extent.append_time_ms < oldest);
        let rest = left.saturating_sub(u64::from(extent.bytes));
        let is_over = config
            .retention_bytes
            .is_some_and(|kept| rest >= kept && left > kept);
        if !(is_old || is_over) || extent.end_offset() > end {
            return ControlFlow::Break(());
        }
        left = rest;
        trim.log_start = extent.end_offset();
        trim.bytes_freed += u64::from(extent.bytes);
        ControlFlow::Continue(())
    })?;
    Ok((trim.log_start > log_start).then_some(trim))
}
