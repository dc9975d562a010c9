//! The write task of a connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use falcon_protocol::{Frame, Kind};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::outbox::{Delivery, Outbox};

/// Slices handed to one vectored write.
const SLICES_MAX: usize = 64;

/// Why writing ended early.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    /// The peer took nothing for too long.
    #[error("the peer has stopped reading")]
    Stalled,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
}

/// How patient the write task is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Send something at least this often.
    pub(super) heartbeat: Duration,
    /// Give up when the peer takes nothing for this long.
    pub(super) stall: Duration,
}

/// Writes answers, deliveries and heartbeats until the outbox is finished and empty.
pub(super) async fn run(
    mut socket: OwnedWriteHalf,
    outbox: Arc<Outbox>,
    mut deliveries: mpsc::Receiver<Delivery>,
    pace: Pace,
) -> Result<(), WriteError> {
    let mut answers = BytesMut::new();
    let mut delivery = None;
    loop {
        // ORDER: take a delivery, then the answers, and write the answers first: the answer that
        // opened a subscription was queued before its first delivery, and leaves before it.
        delivery = delivery.or_else(|| deliveries.try_recv().ok());
        let is_open = outbox.take(&mut answers, delivery.as_ref());
        if answers.is_empty() && delivery.is_none() {
            if !is_open {
                break;
            }
            outbox.lend(socket);
            // CANCEL SAFETY: a notification not waited for stays; `recv` loses nothing.
            tokio::select! {
                biased;
                () = outbox.wake.notified() => {}
                Some(next) = deliveries.recv() => delivery = Some(next),
                () = sleep(pace.heartbeat) => {
                    outbox.push(&Frame::request(Kind::Ping, 0, Bytes::new()));
                }
            }
            let Some(back) = outbox.take_back() else {
                return Ok(());
            };
            socket = back;
            continue;
        }
        let mut parts = VecDeque::new();
        if !answers.is_empty() {
            parts.push_back(answers.split().freeze());
        }
        let paid = delivery.take().map(|next| {
            outbox.metrics().server.frames_sent.of(next.kind).add(1);
            parts.push_back(next.head);
            parts.extend(next.batches);
            (next.permit, next.request)
        });
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        write_all(&mut socket, parts, pace).await?;
        outbox.metrics().server.bytes_sent.add(bytes as u64);
        drop(paid);
    }
    let _ended = timeout(pace.stall, socket.shutdown()).await;
    Ok(())
}

async fn write_all(
    socket: &mut OwnedWriteHalf,
    mut parts: VecDeque<Bytes>,
    pace: Pace,
) -> Result<(), WriteError> {
    while !parts.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        let write = socket.write_vectored(slices.get(..count).unwrap_or_default());
        let written = match timeout(pace.stall, write).await {
            Err(_) => return Err(WriteError::Stalled),
            Ok(Err(error)) => return Err(WriteError::Broken(error)),
            Ok(Ok(0)) => return Err(WriteError::Broken(std::io::ErrorKind::WriteZero.into())),
            Ok(Ok(written)) => written,
        };
        advance(&mut parts, written);
    }
    Ok(())
}

fn advance(parts: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = parts.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        parts.pop_front();
    }
}
