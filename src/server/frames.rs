//! Reading frames from a socket.
//!
//! A body larger than [`COPY_BYTES_MAX`] is a slice of the read buffer; a smaller one is copied, so that
//! a small batch that waits for its sync does not keep a large buffer alive. Between frames the buffer
//! has room for [`READ_BYTES`], however large the last body was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use falcon_protocol::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::Metrics;

/// Room made for each read.
pub(super) const READ_BYTES: usize = 64 * 1024;
const COPY_BYTES_MAX: usize = 8 * 1024;
const BYTES_PER_SECOND_MIN: usize = 1024 * 1024;
/// Patience inside a body whose memory others wait for.
const WANTED_PATIENCE: Duration = Duration::from_secs(1);
/// How often a body that takes longer looks whether others wait.
const WANTED_CHECK: Duration = Duration::from_millis(250);

/// Why no frame could be read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// The peer closed between frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed inside a frame.
    #[error("the peer closed the connection inside a frame")]
    Cut,
    /// Nothing came for too long.
    #[error("nothing came from the peer for {} ms", .0.as_millis())]
    Idle(Duration),
    /// A frame stood still for too long.
    #[error("the peer stopped inside a frame for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// A header that is refused.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
}

/// A socket and what was read ahead from it.
pub(super) struct FrameReader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// The buffer was made larger than [`READ_BYTES`] for a body.
    is_grown: bool,
    /// Largest body accepted.
    pub(super) body_bytes_max: u32,
    /// Patience between frames.
    pub(super) idle: Duration,
    /// Patience inside a frame.
    pub(super) stall: Duration,
    /// Where bytes are counted.
    pub(super) metrics: Option<Arc<Metrics>>,
}

impl FrameReader {
    pub(super) fn new(
        socket: OwnedReadHalf,
        body_bytes_max: u32,
        idle: Duration,
        stall: Duration,
    ) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            is_grown: false,
            body_bytes_max,
            idle,
            stall,
            metrics: None,
        }
    }

    fn count(&self, bytes: usize) {
        if let Some(metrics) = &self.metrics {
            metrics.server.bytes_received.add(bytes as u64);
        }
    }

    /// Reads the next header.
    ///
    /// CANCEL SAFETY: what was read stays in the buffer; call again.
    pub(super) async fn header(&mut self) -> Result<FrameHeader, ReadError> {
        if self.is_grown {
            // A buffer is used again as it is: it would keep the largest body's memory for ever.
            self.buffer = BytesMut::from(self.buffer.as_ref());
            self.is_grown = false;
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(READ_BYTES);
            match timeout(self.idle, self.socket.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(ReadError::Idle(self.idle)),
                Ok(Err(error)) => return Err(ReadError::Broken(error)),
                Ok(Ok(0)) => return Err(ReadError::Closed),
                Ok(Ok(bytes)) => self.count(bytes),
            }
        }
        self.fill(FRAME_HEADER_BYTES).await?;
        let Some(bytes) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err(ReadError::Cut);
        };
        let header = FrameHeader::decode(bytes, self.body_bytes_max)?;
        self.buffer.advance(FRAME_HEADER_BYTES);
        Ok(header)
    }

    /// The next `bytes` bytes of the body, still in the buffer.
    pub(super) async fn peek(&mut self, bytes: usize) -> Result<&[u8], ReadError> {
        self.fill(bytes).await?;
        Ok(self.buffer.get(..bytes).unwrap_or_default())
    }

    /// Takes a body of `bytes` bytes. Call only when its memory is paid for.
    pub(super) async fn body(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        self.fill(bytes).await?;
        Ok(self.take(bytes))
    }

    /// Takes a body like [`body`](Self::body), with less patience while `waiting` others want its memory.
    pub(super) async fn body_while(
        &mut self,
        bytes: usize,
        waiting: &AtomicUsize,
    ) -> Result<Bytes, ReadError> {
        if self.buffer.len() >= bytes {
            return Ok(self.take(bytes));
        }
        let last = Self::due(bytes, self.stall);
        let mut due = Self::due(bytes, self.stall.min(WANTED_PATIENCE));
        loop {
            match self.fill_until(bytes, due).await {
                Ok(()) => return Ok(self.take(bytes)),
                Err(ReadError::Stalled(_))
                    if waiting.load(Ordering::Relaxed) == 0 && Instant::now() < last => {}
                Err(error) => return Err(error),
            }
            due = last.min(Instant::now() + WANTED_CHECK);
        }
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        if bytes <= COPY_BYTES_MAX {
            let body = Bytes::copy_from_slice(self.buffer.get(..bytes).unwrap_or_default());
            self.buffer.advance(bytes);
            return body;
        }
        self.buffer.split_to(bytes).freeze()
    }

    /// Passes over a body without keeping it.
    pub(super) async fn skip(&mut self, mut bytes: usize) -> Result<(), ReadError> {
        while bytes > 0 {
            if self.buffer.is_empty() {
                self.fill(bytes.min(READ_BYTES)).await?;
            }
            let step = bytes.min(self.buffer.len());
            self.buffer.advance(step);
            bytes -= step;
        }
        Ok(())
    }

    /// Reads until the buffer holds `bytes`. A peer that trickles is treated as one that has
    /// stopped: the bytes must come within the patience and the time they take at
    /// [`BYTES_PER_SECOND_MIN`].
    async fn fill(&mut self, bytes: usize) -> Result<(), ReadError> {
        if self.buffer.len() >= bytes {
            return Ok(());
        }
        self.fill_until(bytes, Self::due(bytes, self.stall)).await
    }

    fn due(bytes: usize, patience: Duration) -> Instant {
        let seconds = (bytes / BYTES_PER_SECOND_MIN) as u64;
        Instant::now() + patience + Duration::from_secs(seconds)
    }

    async fn fill_until(&mut self, bytes: usize, due: Instant) -> Result<(), ReadError> {
        self.is_grown |= bytes > READ_BYTES;
        while self.buffer.len() < bytes {
            let room = (bytes - self.buffer.len()).max(READ_BYTES);
            self.buffer.reserve(room);
            // Not all the room there may be: what is read ahead is not paid for.
            let mut buffer = (&mut self.buffer).limit(room);
            let read = self.socket.read_buf(&mut buffer);
            match timeout_at(due, read).await {
                Err(_) => return Err(ReadError::Stalled(self.stall)),
                Ok(Err(error)) => return Err(ReadError::Broken(error)),
                Ok(Ok(0)) => return Err(ReadError::Cut),
                Ok(Ok(bytes)) => self.count(bytes),
            }
        }
        Ok(())
    }

    /// Reads and throws away what the peer still sends, so that closing does not reset the
    /// connection before the peer has read why.
    pub(super) async fn drain(&mut self, bytes_max: usize) {
        let mut left = bytes_max;
        while left > 0 {
            self.buffer.clear();
            self.buffer.reserve(READ_BYTES);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    }
}
