//! Frames waiting to be written: control frames first, then bulk.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::{BufMut, Bytes, BytesMut};
use falcon_protocol::Kind;
use falcon_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader};
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
}

/// The control queue is full: the peer does not read.
#[derive(Debug)]
pub(super) struct Overflow;

#[derive(Debug, Default)]
struct Queues {
    control: VecDeque<OutFrame>,
    bulk: VecDeque<OutFrame>,
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

    /// Takes all control frames, then bulk frames until there are `bytes` of them. A heartbeat
    /// waits behind no more than that, or one larger frame.
    pub(super) fn take(&self, into: &mut Vec<OutFrame>, bytes: usize) {
        let mut queues = lock(&self.queues);
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
