//! Reading for a subscription, and handing over what was read.
//!
//! Owns what is under way: while one piece is read or waits for room, the next one may be read already, so
//! that device and network work at the same time. Promises: each partition's records in order; at most one
//! delivery beyond the credit; nothing read that the connection's budget has not paid for. Must not know:
//! sockets, segments.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::{Frame, Kind, Offset, PartitionId};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::debug;

use super::Subscription;
use crate::reader::{Chunk, ReadFailure};
use crate::server::budget::{Paid, Wanted};
use crate::server::fetch::{head, too_large};
use crate::server::outbox::Delivery;
use crate::server::refusal::Refusal;
use crate::store::Ahead;

/// Bytes read at a time: large enough to be cheap, small enough that partitions take turns.
const CHUNK_BYTES: usize = 512 * 1024;

/// LIMIT: pieces of a subscription that are read or wait for room among the deliveries.
const PIECES_MAX: usize = 3;

/// A read that has begun.
struct Piece {
    partition: PartitionId,
    from: Offset,
    /// Where it ends, once that is sure.
    ahead: Option<Ahead>,
}

type Read = Pin<Box<dyn Future<Output = Result<Paid, ReadFailure>> + Send>>;

/// Pieces in the order in which they are sent.
///
/// INVARIANT: as many as there are in `reads` and `done` together.
#[derive(Default)]
struct UnderWay {
    pieces: VecDeque<Piece>,
    reads: FuturesOrdered<Read>,
    /// They wait for room among the deliveries.
    done: VecDeque<Result<Paid, ReadFailure>>,
    /// Will say where the last piece ends.
    telling: Option<oneshot::Receiver<Ahead>>,
}

impl UnderWay {
    /// Whether it is known where the next piece begins.
    fn takes_more(&self) -> bool {
        let last = self.pieces.back();
        self.pieces.len() < PIECES_MAX && last.is_none_or(|last| last.ahead.is_some())
    }

    /// Bytes and records that are going to be sent before the next piece.
    fn planned(&self) -> (u64, u64) {
        let planned = self.pieces.iter().filter_map(|piece| {
            let ahead = piece.ahead?;
            Some((ahead.bytes as u64, ahead.end.since(piece.from)))
        });
        planned.fold((0, 0), |sum, (bytes, records)| {
            (sum.0 + bytes, sum.1 + records)
        })
    }

    fn take_done(&mut self) -> Option<(Piece, Result<Paid, ReadFailure>)> {
        let read = self.done.pop_front()?;
        Some((self.pieces.pop_front()?, read))
    }
}

async fn told(telling: &mut Option<oneshot::Receiver<Ahead>>) -> Option<Ahead> {
    let told = match telling {
        Some(telling) => telling.await.ok(),
        None => None,
    };
    *telling = None;
    told
}

impl Subscription {
    pub(super) async fn deliver(&mut self) {
        let deliveries = self.deliveries.clone();
        let changed = Arc::clone(&self.control.changed);
        let mut under_way = UnderWay::default();
        loop {
            self.take_back();
            self.read_ahead(&mut under_way);
            if under_way.pieces.is_empty() {
                // ORDER: what is shown from now on is sent by who shows it; what was shown before has left a permit
                // with `changed`.
                self.lend();
            }
            // ORDER: who waits for room goes on driving its reads: one that was given a place at the device
            // and does not move would keep everybody from it.
            // CANCEL SAFETY: a notification or a place among the deliveries that is not waited for stays.
            tokio::select! {
                biased;
                ahead = told(&mut under_way.telling), if under_way.telling.is_some() => {
                    self.note_ahead(&mut under_way, ahead);
                }
                Some(read) = under_way.reads.next() => under_way.done.push_back(read),
                room = deliveries.reserve(), if !under_way.done.is_empty() => {
                    let Ok(room) = room else { return };
                    self.hand_over(&mut under_way, room);
                }
                // A change that happens from here on leaves a permit with `changed`.
                () = changed.notified(), if under_way.takes_more() => {}
            }
        }
    }

    /// Begins to read the next piece, if there is one and credit for it.
    fn read_ahead(&mut self, under_way: &mut UnderWay) {
        if !under_way.takes_more() {
            return;
        }
        let (planned_bytes, planned_records) = under_way.planned();
        let credit = self.credit_bytes(planned_bytes, planned_records);
        if credit == 0 {
            return;
        }
        let Some(position) = self.progress.next_with_data() else {
            return;
        };
        let (view, offset) = (Arc::clone(&position.view), position.ahead);
        // Batches are likely as large as the last one: one that was not paid for is read twice.
        let bytes_max = CHUNK_BYTES
            .max(self.progress.sent.recent_bytes)
            .min(self.budget.bytes())
            .min(self.frame_room)
            .min(usize::try_from(credit).unwrap_or(usize::MAX));
        let (tell, telling) = oneshot::channel();
        let wanted = Wanted {
            offset,
            bytes_max,
            paid: bytes_max.max(self.progress.sent.owed_bytes),
            is_ahead: !under_way.pieces.is_empty(),
            told: Some(tell),
        };
        under_way.pieces.push_back(Piece {
            partition: view.id,
            from: offset,
            ahead: None,
        });
        under_way.telling = Some(telling);
        let (budget, reader) = (self.budget.clone(), self.reader.clone());
        let read = async move { budget.read_ahead(&reader, &view, wanted).await };
        under_way.reads.push_back(Box::pin(read));
    }

    /// Has records that are shown from now on sent by the thread that shows them.
    fn lend(&mut self) {
        let progress = core::mem::take(&mut self.progress);
        self.follower.lend(progress);
    }

    /// Takes back what was lent, so that nobody else sends for this subscription.
    pub(super) fn take_back(&mut self) {
        if let Some(progress) = self.follower.take_back() {
            self.progress = progress;
        }
    }

    /// Bytes that may be sent now behind those that are planned; 0 when either total is used up.
    fn credit_bytes(&self, planned_bytes: u64, planned_records: u64) -> u64 {
        let (bytes, records) = self.progress.sent.credit(&self.control);
        if records <= planned_records {
            return 0;
        }
        bytes.saturating_sub(planned_bytes)
    }

    /// Notes where the last piece is going to end.
    fn note_ahead(&mut self, under_way: &mut UnderWay, ahead: Option<Ahead>) {
        let (Some(ahead), Some(piece)) = (ahead, under_way.pieces.back_mut()) else {
            return;
        };
        let mut positions = self.progress.positions.iter_mut();
        if let Some(position) = positions.find(|position| position.view.id == piece.partition) {
            piece.ahead = Some(ahead);
            position.ahead = ahead.end;
        }
    }

    /// Sends the piece that was read first, or ends a partition that cannot go on.
    fn hand_over(&mut self, under_way: &mut UnderWay, room: mpsc::Permit<'_, Delivery>) {
        let Some((piece, read)) = under_way.take_done() else {
            return;
        };
        let Some(index) = self.progress.index_of(piece.partition) else {
            // The partition has ended before it.
            return;
        };
        let refusal = match read {
            Ok(Paid::Read(chunk, _)) if chunk.bytes > self.frame_room => {
                too_large(chunk.bytes, self.frame_room)
            }
            Ok(Paid::Read(chunk, permit)) => {
                self.send(under_way, (index, piece), (chunk, permit), room);
                return;
            }
            // ORDER: what was read behind it is given up first, since it may be the rest of the budget.
            Ok(Paid::TooLittle(bytes)) => {
                self.progress.sent.owed_bytes = bytes;
                // Another partition would be paid for in its place, for ever.
                self.progress.turn = index;
                self.start_over(under_way);
                return;
            }
            Ok(Paid::Nothing) => {
                self.start_over(under_way);
                return;
            }
            Err(failure) => Refusal::from(failure),
        };
        let refusal = refusal.partition(piece.partition.partition);
        debug!(
            subscription = self.number,
            code = refusal.code.name(),
            text = refusal.body.text,
            "a partition of a subscription ends"
        );
        self.progress.positions.swap_remove(index);
        self.outbox.count(&refusal);
        self.outbox.delivering();
        room.send(Delivery {
            kind: Kind::PartitionEnded,
            head: ended(self.number, &refusal),
            batches: Vec::new(),
            permit: None,
            request: None,
        });
    }

    fn send(
        &mut self,
        under_way: &mut UnderWay,
        (index, piece): (usize, Piece),
        (chunk, permit): (Chunk, OwnedSemaphorePermit),
        room: mpsc::Permit<'_, Delivery>,
    ) {
        let has_credit = self.credit_bytes(0, 0) > 0;
        let position = self.progress.positions.get_mut(index);
        // What was read ahead of a piece that came out larger, or ended early, is not what is due now.
        let Some(position) = position.filter(|at| at.next == piece.from && has_credit) else {
            self.start_over(under_way);
            return;
        };
        let head = head(Kind::Deliver, self.number, &position.view, chunk.bytes);
        position.next = chunk.next;
        if under_way.pieces.is_empty() {
            position.ahead = chunk.next;
        }
        self.progress.sent.add(chunk.bytes, chunk.records);
        let server = &self.outbox.metrics().server;
        server.records_delivered.add(chunk.records);
        self.outbox.delivering();
        room.send(Delivery {
            kind: Kind::Deliver,
            head,
            batches: chunk.batches,
            permit: Some(permit),
            request: None,
        });
        let is_as_planned = piece.ahead.is_some_and(|ahead| ahead.end == chunk.next);
        if !is_as_planned && !under_way.pieces.is_empty() {
            self.start_over(under_way);
        }
    }

    /// Forgets what is under way: the next piece begins behind what was sent.
    fn start_over(&mut self, under_way: &mut UnderWay) {
        *under_way = UnderWay::default();
        self.progress.start_over();
    }
}

fn ended(number: u32, refusal: &Refusal) -> Bytes {
    let mut frame = Frame::refusal(Kind::PartitionEnded, number, refusal.code, refusal.encode());
    frame.header.is_response = false;
    frame.to_bytes()
}
