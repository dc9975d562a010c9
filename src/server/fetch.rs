//! Reading once, and looking offsets up.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falcon_protocol::limits::{FETCH_WAIT_MS_MAX, OFFSETS_ENTRIES_MAX};
use falcon_protocol::message::{
    self, DELIVER_HEADER_BYTES, Delivery as DeliveryBody, Fetch, ListOffsets, ListedOffset,
    OffsetQuery,
};
use falcon_protocol::{ErrorCode, FRAME_HEADER_BYTES, Frame, FrameHeader, Kind, PartitionId};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::connection::Connection;
use super::outbox::Delivery;
use super::refusal::Refusal;
use crate::writer::PartitionView;

/// Charged for each offset that is looked up: the question, what answers it, the answer.
const LOOKUP_BYTES: usize =
    size_of::<OffsetQuery>() + size_of::<Arc<PartitionView>>() + 2 * size_of::<ListedOffset>();

impl Connection {
    pub(super) fn partition(&self, id: PartitionId) -> Result<Arc<PartitionView>, Refusal> {
        self.shared.views.partition(id).ok_or_else(|| {
            if self.shared.views.has_topic(id.topic) {
                let text = format!("the topic has no partition {}", id.partition);
                Refusal::new(ErrorCode::UnknownPartition, text).partition(id.partition)
            } else {
                let text = format!("no topic has the number {}; was it deleted?", id.topic);
                Refusal::new(ErrorCode::UnknownTopic, text)
            }
        })
    }

    pub(super) async fn fetch(&self, correlation: u32, body: &[u8]) -> Result<(), Refusal> {
        let fetch = Fetch::decode(body)?;
        let view = self.partition(fetch.partition)?;
        let request = self.request_permit().await;
        let frame_room = self.frame_bytes_max as usize - DELIVER_HEADER_BYTES;
        let bytes_max = (fetch.bytes_max as usize)
            .min(frame_room)
            .min(self.budget.bytes());
        let (reader, outbox) = (self.shared.reader.clone(), Arc::clone(&self.outbox));
        let (deliveries, budget) = (self.deliveries.clone(), self.budget.clone());
        let (token, ending) = (self.token.clone(), self.ending.clone());
        let begun = self.begun;
        let work = async move {
            // ORDER: wait first: the budget is for bytes that are there.
            let _ended = ending
                .run_until_cancelled(wait_for_data(&view, &fetch))
                .await;
            let refusal = match budget.read(&reader, &view, fetch.offset, bytes_max).await {
                Ok(None) => {
                    let head = head(Kind::Fetch, correlation, &view, 0);
                    let empty = Delivery {
                        kind: Kind::Fetch,
                        head,
                        batches: Vec::new(),
                        permit: None,
                        request,
                    };
                    outbox.answered(Kind::Fetch, begun);
                    let _closed = deliveries.send(empty).await;
                    return;
                }
                Ok(Some((chunk, permit))) if chunk.bytes <= frame_room => {
                    let head = head(Kind::Fetch, correlation, &view, chunk.bytes);
                    let (batches, permit) = (chunk.batches, Some(permit));
                    outbox.answered(Kind::Fetch, begun);
                    outbox.metrics().server.records_delivered.add(chunk.records);
                    let _closed = deliveries
                        .send(Delivery {
                            kind: Kind::Fetch,
                            head,
                            batches,
                            permit,
                            request,
                        })
                        .await;
                    return;
                }
                Ok(Some((chunk, _))) => too_large(chunk.bytes, frame_room),
                Err(failure) => Refusal::from(failure).partition(view.id.partition),
            };
            outbox.refuse(Kind::Fetch, correlation, &refusal);
            outbox.answered(Kind::Fetch, begun);
        };
        self.tasks.spawn(async move {
            let _cancelled = token.run_until_cancelled(work).await;
        });
        Ok(())
    }

    pub(super) async fn list_offsets(&self, correlation: u32, body: &[u8]) -> Result<(), Refusal> {
        let request: ListOffsets = message::decode(body)?;
        if request.queries.is_empty() || request.queries.len() > OFFSETS_ENTRIES_MAX {
            let text = format!("1 to {OFFSETS_ENTRIES_MAX} offsets can be looked up at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let topic = request.topic_id;
        let views = request.queries.iter().map(|query| {
            self.partition(PartitionId {
                topic,
                partition: query.partition,
            })
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let request_permit = self.request_permit().await;
        // ORDER: pay before the work is queued, for what it keeps and for its answer; who does not
        // read answers is not read any more.
        let permit = self.budget.pay(views.len() * LOOKUP_BYTES).await;
        let (deliveries, budget) = (self.deliveries.clone(), self.budget.clone());
        let (reader, outbox) = (self.shared.reader.clone(), Arc::clone(&self.outbox));
        let (token, begun) = (self.token.clone(), self.begun);
        let work = async move {
            let Some(turn) = budget.turn().await else {
                return;
            };
            let mut rows = Vec::with_capacity(views.len());
            for (view, query) in views.iter().zip(&request.queries) {
                match reader.resolve(view, query.at).await {
                    Ok(offset) => rows.push(listed(view, offset)),
                    Err(failure) => {
                        let refusal = Refusal::from(failure).partition(query.partition);
                        outbox.refuse(Kind::ListOffsets, correlation, &refusal);
                        return;
                    }
                }
            }
            drop(turn);
            let body = match message::encode(&rows) {
                Ok(body) => body,
                Err(error) => {
                    outbox.refuse(Kind::ListOffsets, correlation, &Refusal::from(error));
                    return;
                }
            };
            let head = Frame::response(Kind::ListOffsets, correlation, body).to_bytes();
            let request = request_permit;
            outbox.answered(Kind::ListOffsets, begun);
            let answer = Delivery {
                kind: Kind::ListOffsets,
                head,
                batches: Vec::new(),
                permit,
                request,
            };
            let _closed = deliveries.send(answer).await;
        };
        self.tasks.spawn(async move {
            let _cancelled = token.run_until_cancelled(work).await;
        });
        Ok(())
    }
}

fn listed(view: &PartitionView, offset: falcon_protocol::Offset) -> ListedOffset {
    ListedOffset {
        partition: view.id.partition,
        offset,
        log_start: view.log_start(),
        high_watermark: view.high_watermark(),
    }
}

/// Waits until there is something to read at the offset, as long as the request allows.
async fn wait_for_data(view: &Arc<PartitionView>, fetch: &Fetch) {
    let changed = Arc::new(Notify::new());
    // ORDER: watch, then look: nothing that is appended in between is missed.
    let _watch = view.watch(Arc::<Notify>::clone(&changed));
    let wait = Duration::from_millis(u64::from(fetch.wait_ms.min(FETCH_WAIT_MS_MAX)));
    let arrival = async {
        while view.high_watermark() == fetch.offset && !view.is_deleted() {
            changed.notified().await;
        }
    };
    let _late = timeout(wait, arrival).await;
}

pub(super) fn too_large(bytes: usize, room: usize) -> Refusal {
    let text = format!(
        "a stored batch of {bytes} bytes does not fit into the client's frames of {room} bytes"
    );
    Refusal::new(ErrorCode::FrameTooLarge, text).range(room as u64, 0)
}

/// Frame header and delivery header in front of `bytes` bytes of batches.
pub(super) fn head(kind: Kind, correlation: u32, view: &PartitionView, bytes: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES + DELIVER_HEADER_BYTES);
    let header = FrameHeader {
        body_bytes: u32::try_from(DELIVER_HEADER_BYTES + bytes).unwrap_or(u32::MAX),
        kind: kind.number(),
        is_response: kind == Kind::Fetch,
        status: 0,
        correlation,
    };
    header.encode(&mut head);
    let body = DeliveryBody {
        partition: view.id.partition,
        log_start: view.log_start(),
        high_watermark: view.high_watermark(),
        batches: Bytes::new(),
    };
    body.encode_header(&mut head);
    head.freeze()
}
