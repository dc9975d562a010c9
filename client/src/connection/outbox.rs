//! Frames waiting to be written: control frames first, then bulk.
//!
//! While the writer task has nothing to do it lends its socket: then a frame that comes alone is written by the task
//! that sends it, without waking another.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Mutex;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use falcon_protocol::Kind;
use falcon_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::sync::lock;

/// Control frames that may wait. Requests in flight and credit bound them; only a peer that sends
/// pings and reads nothing gets here.
const CONTROL_FRAMES_MAX: usize = 8192;

/// A frame in two parts, so that a batch is not copied to get a header in front.
#[derive(Debug)]
pub(super) struct OutFrame {
    /// Frame header, and the front of the body where there are two parts.
    pub(super) head: Bytes,
    /// The rest of the body.
    pub(super) body: Bytes,
}

impl OutFrame {
    /// A request or one-way frame whose body is `front` and then `body`.
    pub(super) fn request(kind: Kind, correlation: u32, front: &[u8], body: Bytes) -> Self {
        Self::new(kind, false, correlation, front, body)
    }

    /// The answer to a request of the broker.
    pub(super) fn response(kind: Kind, correlation: u32) -> Self {
        Self::new(kind, true, correlation, &[], Bytes::new())
    }

    fn new(kind: Kind, is_response: bool, correlation: u32, front: &[u8], body: Bytes) -> Self {
        let body_bytes = front.len() + body.len();
        let header = FrameHeader {
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
            kind: kind.number(),
            is_response,
            status: 0,
            correlation,
        };
        let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES + front.len());
        header.encode(&mut head);
        head.put_slice(front);
        Self {
            head: head.freeze(),
            body,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The first `bytes` bytes were written.
    fn advance(&mut self, bytes: usize) {
        let of_head = bytes.min(self.head.len());
        self.head.advance(of_head);
        self.body.advance((bytes - of_head).min(self.body.len()));
    }
}

/// The control queue is full: the peer does not read.
#[derive(Debug)]
pub(super) struct Overflow;

#[derive(Debug, Default)]
struct Queues {
    /// What is left of a frame of which the socket took a part: goes before everything else.
    rest: Option<OutFrame>,
    control: VecDeque<OutFrame>,
    bulk: VecDeque<OutFrame>,
    /// Lent by the writer task: everything taken before has been written.
    socket: Option<OwnedWriteHalf>,
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.rest.is_none() && self.control.is_empty() && self.bulk.is_empty()
    }
}

/// Where senders put frames and the writer takes them. Bulk is bounded by the publish window.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queues: Mutex<Queues>,
    filled: Notify,
}

impl Outbox {
    pub(super) fn push_control(&self, frame: OutFrame) -> Result<(), Overflow> {
        {
            let mut queues = lock(&self.queues);
            if queues.control.len() >= CONTROL_FRAMES_MAX {
                return Err(Overflow);
            }
            queues.control.push_back(frame);
        }
        self.filled.notify_one();
        Ok(())
    }

    pub(super) fn push_bulk(&self, frame: OutFrame) {
        lock(&self.queues).bulk.push_back(frame);
        self.filled.notify_one();
    }

    /// As [`push_bulk`](Self::push_bulk), for a frame that no other is likely to follow soon: it is written here and now
    /// if nothing is before it and the socket takes it.
    pub(super) fn push_lone(&self, mut frame: OutFrame) {
        let mut queues = lock(&self.queues);
        if queues.is_empty()
            && let Some(socket) = &queues.socket
        {
            let parts = [IoSlice::new(&frame.head), IoSlice::new(&frame.body)];
            // An error is the writer task's to meet.
            let written = socket.try_write_vectored(&parts).unwrap_or(0);
            if written >= frame.len() {
                return;
            }
            frame.advance(written);
            queues.rest = Some(frame);
        } else {
            queues.bulk.push_back(frame);
        }
        drop(queues);
        self.filled.notify_one();
    }

    /// Lends the socket until [`take_back`](Self::take_back). For the writer task alone, with nothing in hand.
    pub(super) fn lend(&self, socket: OwnedWriteHalf) {
        lock(&self.queues).socket = Some(socket);
    }

    /// The socket that was lent.
    pub(super) fn take_back(&self) -> Option<OwnedWriteHalf> {
        lock(&self.queues).socket.take()
    }

    /// Takes all control frames, then bulk frames until there are `bytes` of them. A heartbeat
    /// waits behind no more than that, or one larger frame.
    pub(super) fn take(&self, into: &mut Vec<OutFrame>, bytes: usize) {
        let mut queues = lock(&self.queues);
        into.extend(queues.rest.take());
        into.extend(queues.control.drain(..));
        let mut taken = 0;
        while taken < bytes {
            let Some(frame) = queues.bulk.pop_front() else {
                break;
            };
            taken += frame.len();
            into.push(frame);
        }
    }

    /// Waits until something was put in since the last wait.
    ///
    /// CANCEL SAFETY: a permit not consumed stays for the next wait.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::reader::take_frame;
    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connected"), far.expect("accepted").0)
    }

    /// The bytes of a frame tell which it is.
    fn frame(correlation: u32, bytes: usize) -> OutFrame {
        let body = vec![correlation.to_le_bytes()[0]; bytes];
        OutFrame::request(Kind::Publish, correlation, b"front", body.into())
    }

    /// What arrives, until `count` frames have: correlations, and lengths behind the front.
    async fn read(mut socket: TcpStream, count: usize) -> Vec<(u32, usize)> {
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        while read.len() < count {
            while let Some(frame) = take_frame(&mut buffer, 1 << 20).expect("a header") {
                let correlation = frame.header.correlation;
                let body = frame.body.strip_prefix(b"front").expect("its front");
                assert!(body.iter().all(|b| *b == correlation.to_le_bytes()[0]));
                read.push((correlation, body.len()));
            }
            if read.len() < count {
                assert!(socket.read_buf(&mut buffer).await.expect("it works") > 0);
            }
        }
        read
    }

    #[tokio::test]
    async fn a_lone_frame_leaves_at_once_and_one_behind_others_waits_for_them() {
        let (near, far) = pair().await;
        let outbox = Outbox::default();
        outbox.push_lone(frame(1, 10));
        assert_eq!(lock(&outbox.queues).bulk.len(), 1, "nothing is lent");
        let mut frames = Vec::new();
        outbox.take(&mut frames, usize::MAX);
        let (_read_half, socket) = near.into_split();
        socket.writable().await.expect("it works");
        outbox.lend(socket);
        outbox.push_lone(frame(2, 10));
        assert!(lock(&outbox.queues).is_empty());
        outbox.push_bulk(frame(3, 10));
        outbox.push_lone(frame(4, 10));
        assert_eq!(lock(&outbox.queues).bulk.len(), 2);
        assert_eq!(read(far, 1).await, [(2, 10)]);
    }

    #[tokio::test]
    async fn frames_stay_whole_and_in_order_on_a_socket_that_takes_parts() {
        let (near, far) = pair().await;
        let outbox = Outbox::default();
        let (_read_half, mut socket) = near.into_split();
        let mut expected = Vec::new();
        let mut next = || {
            let correlation = u32::try_from(expected.len()).expect("few");
            let bytes = expected.len() * 7919 % 16_000;
            expected.push((correlation, bytes));
            frame(correlation, bytes)
        };
        let mut parts = 0;
        let mut left = BytesMut::new();
        // Nobody reads until all are queued: the socket takes less than the last one, and what is behind it waits.
        socket.writable().await.expect("it works");
        outbox.lend(socket);
        loop {
            let frame = next();
            let bytes = frame.len();
            outbox.push_lone(frame);
            let queues = lock(&outbox.queues);
            if let Some(rest) = &queues.rest {
                parts += usize::from(rest.len() < bytes);
                break;
            }
        }
        outbox.push_bulk(next());
        outbox.push_lone(next());
        socket = outbox.take_back().expect("it was lent");
        let mut frames = Vec::new();
        outbox.take(&mut frames, usize::MAX);
        assert_eq!(frames.len(), 3);
        for frame in &frames {
            left.extend_from_slice(&frame.head);
            left.extend_from_slice(&frame.body);
        }
        let writing = async move { socket.write_all(&left).await };
        let (read, written) = tokio::join!(read(far, expected.len()), writing);
        written.expect("it works");
        assert_eq!(read, expected);
        assert_eq!(parts, 1, "the socket took all or nothing");
    }
}
