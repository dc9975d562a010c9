//! From when a record was due until a subscriber has it, at even times.

use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{STREAM, Stage, Times, WARM_UP, note, times};
use crate::peer::{Peer, Reader, Writer};
use crate::record;

/// Records a second.
const RATE: u32 = 1000;
/// Acks awaited at a time.
const ACKS_MAX: usize = 65_536;
/// A sleeping thread wakes up to so much late; the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(150);
/// After the last was sent, all must be there within this.
const LATE_MAX: Duration = Duration::from_secs(10);

/// One publisher and one subscriber, each on a connection of its own.
pub(super) async fn run<P: Peer>(stage: &Stage<'_, P>, size: usize) -> Result<Times> {
    stage.peer.create(STREAM, 1).await?;
    let writer = stage.peer.writer(STREAM, 0).await?;
    // Some clients wait for a stream's first record before they know of it.
    writer.publish(record::marked(size, 0)).await?;
    let reader = stage.peer.reader(STREAM, 0).await?;
    let epoch = Instant::now();
    let length = WARM_UP + stage.length;
    let count = u64::from(RATE) * u64::try_from(length.as_millis())? / 1000;
    let (mut found, mut read) = (times()?, 0);
    let (to, done) = tokio::sync::oneshot::channel();
    let mut to = Some(to);
    let each = move |value: &[u8]| {
        let now = epoch.elapsed();
        let due = Duration::from_nanos(record::mark_of(value).unwrap_or(0));
        if due >= WARM_UP {
            note(&mut found, now.saturating_sub(due));
        }
        read += 1;
        if read <= count {
            return true;
        }
        to.take().map(|to| to.send(found.clone()));
        false
    };
    let reading = tokio::spawn(reader.read(each));
    send(writer, size, (epoch, count)).await?;
    let Ok(found) = tokio::time::timeout(LATE_MAX, done).await else {
        bail!("a subscriber waits for records that were acknowledged");
    };
    reading.await??;
    let there = stage.peer.count(STREAM, 0).await?;
    ensure!(there == count + 1, "{} acked, {there} there", count + 1);
    stage.peer.delete(STREAM, 1).await?;
    Ok(found?)
}

/// Sends at even times, whatever the server does; returns when all is acknowledged.
async fn send<W: Writer>(writer: W, size: usize, (epoch, count): (Instant, u64)) -> Result<()> {
    let (to, mut sent) = mpsc::channel(ACKS_MAX);
    let handle = Handle::current();
    let pacer = tokio::task::spawn_blocking(move || {
        for number in 0..count {
            let due = Duration::from_secs(1) / RATE * u32::try_from(number)?;
            wait(epoch + due);
            let value = record::marked(size, u64::try_from(due.as_nanos())?);
            let writer = writer.clone();
            let mut ack = async move { writer.publish(value).await }.boxed();
            // The first poll hands the record over; the ack is awaited elsewhere.
            match handle.block_on(async { futures_util::poll!(&mut ack) }) {
                Poll::Ready(acked) => acked?,
                // Nobody waits for acks any more: that one's error is the result.
                Poll::Pending if to.blocking_send(ack).is_err() => break,
                Poll::Pending => {}
            }
        }
        anyhow::Ok(())
    });
    let mut acks = FuturesUnordered::new();
    loop {
        tokio::select! {
            ack = sent.recv() => match ack {
                Some(ack) => acks.push(ack),
                None => break,
            },
            Some(ack) = acks.next() => ack?,
        }
    }
    while let Some(ack) = acks.next().await {
        ack?;
    }
    pacer.await?
}

/// Blocks until then: a timer of the runtime rounds to milliseconds.
fn wait(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > AWAKE {
        std::thread::sleep(left.saturating_sub(AWAKE));
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}
