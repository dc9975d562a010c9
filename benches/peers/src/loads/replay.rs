//! Everything read again from its beginning, each record looked at.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{LARGE, STREAM, Stage, bulk};
use crate::peer::{Peer, Reader};
use crate::record::Feed;

/// Records that are there to be read.
const SMALL_RECORDS: u64 = 1_000_000;
const LARGE_RECORDS: u64 = 300_000;
/// It is read again until it took so long.
const LENGTH_MIN: Duration = Duration::from_secs(1);

/// Records per second.
pub(super) async fn run<P: Peer>(stage: &Stage<'_, P>, size: usize) -> Result<f64> {
    stage.peer.create(STREAM, 1).await?;
    let writer = stage.peer.writer(STREAM, 0).await?;
    let count = if size < LARGE {
        SMALL_RECORDS
    } else {
        LARGE_RECORDS
    };
    let acked = bulk::all(&[writer], &Feed::count(size, count)).await?;
    ensure!(acked == count, "{acked} of {count} acked");
    rustix::fs::sync();
    let (mut records, mut spent) = (0, Duration::ZERO);
    while spent < LENGTH_MIN.min(stage.length) {
        spent += read(&stage.peer, count, size).await?;
        records += count;
    }
    stage.peer.delete(STREAM, 1).await?;
    Ok(records as f64 / spent.as_secs_f64())
}

/// Connects, reads all, counts its bytes; answers how long it took to the last record.
async fn read<P: Peer>(peer: &P, count: u64, size: usize) -> Result<Duration> {
    let begun = Instant::now();
    let reader = peer.reader(STREAM, 0).await?;
    let (to, done) = tokio::sync::oneshot::channel();
    let mut to = Some(to);
    let (mut records, mut bytes) = (0, 0);
    let each = move |value: &[u8]| {
        records += 1;
        bytes += value.len() as u64;
        if records < count {
            return true;
        }
        to.take().map(|to| to.send((bytes, begun.elapsed())));
        false
    };
    // As the other loads: a task, not the thread that starts the runtime.
    tokio::spawn(reader.read(each)).await??;
    let Ok((bytes, spent)) = done.await else {
        bail!("the reader ended early");
    };
    ensure!(
        bytes == count * size as u64,
        "{bytes} bytes read of {count} records"
    );
    Ok(spent)
}
