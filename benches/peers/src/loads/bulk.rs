//! As many records as the server acknowledges.

use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::{STREAM, Stage, WARM_UP};
use crate::peer::{Peer, Writer};
use crate::record::Feed;

/// How it went.
pub(super) struct Ran {
    records: u64,
    seconds: f64,
    pub(super) cpu_per_million: f64,
    pub(super) disk_per_byte: f64,
    pub(super) written_per_byte: f64,
}

impl Ran {
    pub(super) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Publishers, each on a connection of its own with a partition of its own.
pub(super) async fn run<P: Peer>(
    stage: &Stage<'_, P>,
    size: usize,
    publishers: u32,
) -> Result<Ran> {
    let empty = stage.server.usage();
    stage.peer.create(STREAM, publishers).await?;
    let mut writers = Vec::new();
    for partition in 0..publishers {
        writers.push(stage.peer.writer(STREAM, partition).await?);
    }
    let warm = all(&writers, &Feed::until(size, Instant::now() + WARM_UP)).await?;
    let before = stage.server.usage();
    let begun = Instant::now();
    let feed = Feed::until(size, begun + stage.length);
    let records = all(&writers, &feed).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = stage.server.usage();
    let mut there = 0;
    for partition in 0..publishers {
        there += stage.peer.count(STREAM, partition).await?;
    }
    ensure!(
        there == warm + records,
        "{} acked, {there} there",
        warm + records
    );
    rustix::fs::sync();
    let synced = stage.server.usage();
    let payload = (there * size as u64) as f64;
    drop(writers);
    stage.peer.delete(STREAM, publishers).await?;
    Ok(Ran {
        records,
        seconds,
        cpu_per_million: (after.cpu_seconds - before.cpu_seconds) / records as f64 * 1e6,
        disk_per_byte: synced.disk_bytes.saturating_sub(empty.disk_bytes) as f64 / payload,
        written_per_byte: synced.written_bytes.saturating_sub(empty.written_bytes) as f64 / payload,
    })
}

/// Everybody publishes; answers how many were acknowledged.
pub(super) async fn all<W: Writer>(writers: &[W], feed: &Feed) -> Result<u64> {
    let mut tasks = JoinSet::new();
    for writer in writers {
        let (writer, feed) = (writer.clone(), feed.clone());
        tasks.spawn(async move { writer.bulk(feed).await });
    }
    let mut acked = 0;
    while let Some(task) = tasks.join_next().await {
        acked += task??;
    }
    Ok(acked)
}
