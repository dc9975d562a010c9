//! Where the answers to all publishes of one task arrive.
//!
//! Owns answers until they are taken. Promises: every request that was started is answered exactly once, with a
//! frame or with the news that its connection is lost; the task is woken once for all that came since it last looked.
//!
//! LIMIT: holds no more answers than requests may be in flight.

use std::sync::{Arc, Mutex};

use falcon_protocol::Frame;
use tokio::sync::Notify;

use crate::error::LostReason;
use crate::sync::lock;

/// What a request is to the task that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) lane: usize,
    pub(crate) number: u64,
    /// Number of the connection.
    pub(crate) session: u64,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) tag: Tag,
    /// Or why it was lost.
    pub(crate) frame: Result<Frame, LostReason>,
}

/// The answers that a task has not taken yet.
#[derive(Debug)]
pub(crate) struct Tray {
    answers: Mutex<Vec<Answer>>,
    wake: Arc<Notify>,
}

impl Tray {
    /// `wake` is notified of every answer.
    pub(crate) fn new(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(Vec::new()),
            wake,
        })
    }

    /// Takes what came, in order; `into` must be empty, and its memory is used for what comes next.
    pub(crate) fn take(&self, into: &mut Vec<Answer>) {
        std::mem::swap(&mut *lock(&self.answers), into);
    }
}

/// The right to one answer. Dropped without it, the answer is lost.
pub(super) struct Slip {
    tray: Arc<Tray>,
    tag: Tag,
    frame: Option<Result<Frame, LostReason>>,
}

impl Slip {
    pub(super) fn new(tray: &Arc<Tray>, tag: Tag) -> Self {
        Self {
            tray: Arc::clone(tray),
            tag,
            frame: None,
        }
    }

    pub(super) fn answer(mut self, frame: Frame) {
        self.frame = Some(Ok(frame));
    }

    pub(super) fn lose(mut self, reason: LostReason) {
        self.frame = Some(Err(reason));
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        let frame = self.frame.take();
        let answer = Answer {
            tag: self.tag,
            frame: frame.unwrap_or(Err(LostReason::ClosedByBroker)),
        };
        lock(&self.tray.answers).push(answer);
        self.tray.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use falcon_protocol::Kind;
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn every_slip_is_one_answer_and_all_are_one_wake_up() {
        let wake = Arc::new(Notify::new());
        let tray = Tray::new(Arc::clone(&wake));
        let slip = |number| {
            let tag = Tag {
                lane: 0,
                number,
                session: 1,
            };
            Slip::new(&tray, tag)
        };
        let (answered, lost, dropped) = (slip(1), slip(2), slip(3));
        answered.answer(Frame::response(Kind::Publish, 9, Bytes::new()));
        lost.lose(LostReason::Draining);
        drop(dropped);
        assert!(wake.notified().now_or_never().is_some());
        assert!(wake.notified().now_or_never().is_none());
        let mut answers = Vec::new();
        tray.take(&mut answers);
        let numbers: Vec<u64> = answers.iter().map(|answer| answer.tag.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let mut frames = answers.into_iter().map(|answer| answer.frame);
        assert!(frames.next().is_some_and(|frame| frame.is_ok()));
        assert_eq!(frames.next(), Some(Err(LostReason::Draining)));
        assert_eq!(frames.next(), Some(Err(LostReason::ClosedByBroker)));
    }
}
