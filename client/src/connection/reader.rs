//! The reader task: bytes to frames, and silence to the end of the connection.

use bytes::{Buf, BytesMut};
use falcon_protocol::Frame;
use falcon_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use falcon_protocol::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::session::{SILENT_INTERVALS_MAX, Session};
use crate::error::LostReason;

/// Room made for reading when a frame's length is not yet known.
const READ_BYTES: usize = 64 * 1024;

/// Reads until the connection ends, and says why it did.
pub(super) async fn read_loop(
    session: &Session,
    mut socket: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
) -> LostReason {
    let body_bytes_max = session.granted().frame_bytes_max.min(FRAME_BYTES_MAX);
    let interval = session.heartbeat();
    let mut silent_intervals = 0;
    loop {
        loop {
            match take_frame(&mut buffer, body_bytes_max) {
                Ok(Some(frame)) => {
                    if let Err(reason) = session.dispatch(frame) {
                        return reason;
                    }
                }
                Ok(None) => break,
                Err(_) => return LostReason::Protocol("a frame header makes no sense"),
            }
        }
        match timeout(interval, socket.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return LostReason::ClosedByBroker,
            Ok(Ok(_)) => silent_intervals = 0,
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                silent_intervals += 1;
                if silent_intervals >= SILENT_INTERVALS_MAX {
                    return LostReason::Silent(interval * SILENT_INTERVALS_MAX);
                }
                session.ping();
            }
        }
    }
}

/// Takes a whole frame off the front of `buffer`, or makes room for the rest of it.
pub(super) fn take_frame(
    buffer: &mut BytesMut,
    body_bytes_max: u32,
) -> Result<Option<Frame>, FrameError> {
    let Some(head) = buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
        buffer.reserve(READ_BYTES);
        return Ok(None);
    };
    let header = FrameHeader::decode(head, body_bytes_max)?;
    let frame_bytes = FRAME_HEADER_BYTES + header.body_bytes as usize;
    if buffer.len() < frame_bytes {
        // LIMIT: body_bytes is at most what this client allowed in the handshake.
        buffer.reserve((frame_bytes - buffer.len()).max(READ_BYTES));
        return Ok(None);
    }
    let mut body = buffer.split_to(frame_bytes);
    body.advance(FRAME_HEADER_BYTES);
    let body = body.freeze();
    Ok(Some(Frame { header, body }))
}
