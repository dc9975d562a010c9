//! The writer task: frames to bytes, and a heartbeat when there are none.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::outbox::OutFrame;
use super::session::Session;
use crate::error::LostReason;

/// Bulk bytes written before control frames get their next turn.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bodies up to this are copied together into one write.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// How long the broker may take nothing before the connection counts as dead.
const STALL: Duration = Duration::from_secs(30);

/// Writes until the connection fails, and says why it did.
pub(super) async fn write_loop(session: &Session, mut socket: OwnedWriteHalf) -> LostReason {
    let heartbeat = session.heartbeat();
    let mut frames = Vec::new();
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        session.outbox.take(&mut frames, CHUNK_BYTES);
        if frames.is_empty() {
            session.outbox.lend(socket);
            if timeout(heartbeat, session.outbox.filled()).await.is_err() {
                session.ping();
            }
            let Some(back) = session.outbox.take_back() else {
                return LostReason::ClosedByBroker;
            };
            socket = back;
            continue;
        }
        if let Err(reason) = write_frames(&mut socket, &mut frames, &mut buffer).await {
            return reason;
        }
    }
}

async fn write_frames(
    socket: &mut (impl AsyncWrite + Unpin),
    frames: &mut Vec<OutFrame>,
    buffer: &mut BytesMut,
) -> Result<(), LostReason> {
    for frame in frames.drain(..) {
        buffer.extend_from_slice(&frame.head);
        if frame.body.len() <= COPY_BYTES_MAX {
            buffer.extend_from_slice(&frame.body);
        } else {
            write_both(socket, buffer, &frame.body).await?;
            buffer.clear();
        }
    }
    write_bytes(socket, buffer).await?;
    buffer.clear();
    Ok(())
}

/// Writes one behind the other, without a packet of its own for the first.
async fn write_both(
    socket: &mut (impl AsyncWrite + Unpin),
    mut front: &[u8],
    mut body: &[u8],
) -> Result<(), LostReason> {
    while !front.is_empty() {
        let parts = [IoSlice::new(front), IoSlice::new(body)];
        let written = took_some(timeout(STALL, socket.write_vectored(&parts)).await)?;
        let of_body = written.saturating_sub(front.len());
        front = front.get(written..).unwrap_or_default();
        body = body.get(of_body..).unwrap_or_default();
    }
    write_bytes(socket, body).await
}

/// Writes all; fails when nothing at all is taken for [`STALL`].
async fn write_bytes(
    socket: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
) -> Result<(), LostReason> {
    while !bytes.is_empty() {
        let written = took_some(timeout(STALL, socket.write(bytes)).await)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// How much a write took, if it took anything in time.
fn took_some(written: Result<io::Result<usize>, Elapsed>) -> Result<usize, LostReason> {
    match written.map_err(|_| LostReason::Stalled(STALL))?? {
        0 => Err(LostReason::Io(io::ErrorKind::WriteZero)),
        written => Ok(written),
    }
}
