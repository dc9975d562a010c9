//! The writer task: frames to bytes, and a heartbeat when there are none.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
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
pub(super) async fn write_loop(
    session: &Session,
    mut socket: impl AsyncWrite + Unpin,
) -> LostReason {
    let heartbeat = session.heartbeat();
    let mut frames = Vec::new();
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        session.outbox.take(&mut frames, CHUNK_BYTES);
        if frames.is_empty() {
            if timeout(heartbeat, session.outbox.filled()).await.is_err() {
                session.ping();
            }
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
            write_bytes(socket, buffer).await?;
            buffer.clear();
            write_bytes(socket, &frame.body).await?;
        }
    }
    write_bytes(socket, buffer).await?;
    buffer.clear();
    Ok(())
}

/// Writes all; fails when nothing at all is taken for [`STALL`].
async fn write_bytes(
    socket: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
) -> Result<(), LostReason> {
    while !bytes.is_empty() {
        let written = timeout(STALL, socket.write(bytes)).await;
        let written = written.map_err(|_| LostReason::Stalled(STALL))??;
        if written == 0 {
            return Err(LostReason::Io(io::ErrorKind::WriteZero));
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
