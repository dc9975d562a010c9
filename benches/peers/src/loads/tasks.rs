//! Tasks that each publish a record, wait for its ack, and publish the next.

use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::{STREAM, Stage, Times, WARM_UP, note, times};
use crate::peer::{Peer, Writer};
use crate::record;

/// How many tasks, on how many connections that they share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    tasks: usize,
    connections: usize,
}

pub(super) const MANY: Crowd = Crowd {
    tasks: 256,
    connections: 4,
};
pub(super) const ONE: Crowd = Crowd {
    tasks: 1,
    connections: 1,
};

/// Times until the ack of what was sent and acknowledged while it is measured.
pub(super) async fn run<P: Peer>(stage: &Stage<'_, P>, size: usize, crowd: Crowd) -> Result<Times> {
    stage.peer.create(STREAM, 1).await?;
    let mut writers = Vec::new();
    for _ in 0..crowd.connections {
        writers.push(stage.peer.writer(STREAM, 0).await?);
    }
    let from = Instant::now() + WARM_UP;
    let until = from + stage.length;
    let mut tasks = JoinSet::new();
    for writer in writers.iter().cycle().take(crowd.tasks) {
        tasks.spawn(one_by_one(writer.clone(), size, (from, until)));
    }
    let (mut all, mut acked) = (times()?, 0);
    while let Some(task) = tasks.join_next().await {
        let (found, sent) = task??;
        all.add(found)?;
        acked += sent;
    }
    let there = stage.peer.count(STREAM, 0).await?;
    ensure!(there == acked, "{acked} acked, {there} there");
    drop(writers);
    stage.peer.delete(STREAM, 1).await?;
    Ok(all)
}

async fn one_by_one<W: Writer>(
    writer: W,
    size: usize,
    (from, until): (Instant, Instant),
) -> Result<(Times, u64)> {
    let (mut times, mut sent) = (times()?, 0);
    loop {
        let at = Instant::now();
        if at >= until {
            return Ok((times, sent));
        }
        writer.publish(record::marked(size, sent)).await?;
        sent += 1;
        let now = Instant::now();
        if at >= from && now <= until {
            note(&mut times, now - at);
        }
    }
}
