//! One connection of the peer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use falcon_client::{ErrorCode, Offset, Partition};
use falcon_protocol::frame::FRAME_HEADER_BYTES;
use falcon_protocol::message::{
    Credit, Delivery, Empty, ErrorBody, PublishHeader, StartPosition, Subscribe, Subscribed,
    SubscribedPartition, Unsubscribe, decode, encode,
};
use falcon_protocol::{Batch, Frame, FrameHeader, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answers::control_answer;
use super::{Hello, OnPublish, Shared, World};

struct Subscription {
    positions: BTreeMap<u32, u64>,
    credit: u64,
    sent: u64,
}

struct Connection {
    shared: Arc<Shared>,
    generation: u64,
    subscriptions: HashMap<u32, Subscription>,
    /// Publishes waiting while the peer is holding.
    held: Vec<(u32, Partition, Batch)>,
    was_told_draining: bool,
    out: Vec<Frame>,
}

/// The connection is to end, after what is in `out`, or at once.
struct Close {
    flushes: bool,
}

type Outcome = Result<(), Close>;

const AT_ONCE: Close = Close { flushes: false };

pub(super) async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    socket.set_nodelay(true).unwrap();
    let mut version = shared.version.subscribe();
    let generation = {
        let mut world = shared.world();
        world.connections += 1;
        world.generation
    };
    shared.changed();
    let mut connection = Connection {
        shared: Arc::clone(&shared),
        generation,
        subscriptions: HashMap::new(),
        held: Vec::new(),
        was_told_draining: false,
        out: Vec::new(),
    };
    let mut buffer = BytesMut::new();
    loop {
        let mut outcome = Ok(());
        while outcome.is_ok() {
            let Some(frame) = take_frame(&mut buffer) else {
                break;
            };
            outcome = connection.handle(frame);
            shared.changed();
        }
        if outcome.is_ok() {
            outcome = connection.tick();
        }
        if !matches!(outcome, Err(Close { flushes: false })) {
            for frame in std::mem::take(&mut connection.out) {
                if socket.write_all(&frame.to_bytes()).await.is_err() {
                    return;
                }
            }
        }
        if outcome.is_err() {
            return;
        }
        // Cancel safe, both: bytes are read into `buffer` or not at all, and waiting holds nothing.
        tokio::select! {
            read = socket.read_buf(&mut buffer) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
            }
            changed = version.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn take_frame(buffer: &mut BytesMut) -> Option<Frame> {
    let head = buffer.first_chunk::<FRAME_HEADER_BYTES>()?;
    let header = FrameHeader::decode(head, u32::MAX).unwrap();
    let bytes = FRAME_HEADER_BYTES + header.body_bytes as usize;
    if buffer.len() < bytes {
        return None;
    }
    let mut body = buffer.split_to(bytes).freeze();
    body.advance(FRAME_HEADER_BYTES);
    Some(Frame { header, body })
}

impl Connection {
    fn handle(&mut self, frame: Frame) -> Outcome {
        let shared = Arc::clone(&self.shared);
        let world = &mut *shared.world();
        if world.is_silent || frame.header.is_response {
            return Ok(());
        }
        let kind = Kind::from_number(frame.header.kind).unwrap();
        let number = frame.header.correlation;
        let control = !matches!(
            kind,
            Kind::Hello | Kind::Ping | Kind::Publish | Kind::Credit | Kind::Goodbye
        );
        if control {
            world.requests += 1;
            if let Some(code) = world.refuses_requests.pop_front() {
                self.refuse(kind, number, code);
                return Ok(());
            }
            if world.closes_on_request {
                return Err(AT_ONCE);
            }
        }
        match kind {
            Kind::Hello => return self.hello(world),
            Kind::Ping => {
                world.pings += 1;
                self.answer(kind, number, Bytes::new());
            }
            Kind::Goodbye => {
                world.goodbyes += 1;
                self.answer(kind, number, Bytes::new());
            }
            Kind::Publish => return self.publish(world, number, frame.body),
            Kind::Subscribe => self.subscribe(world, number, &frame.body),
            Kind::Credit => {
                let credit = Credit::decode(&frame.body).unwrap();
                world.credit_bytes = credit.bytes_total;
                if let Some(subscription) = self.subscriptions.get_mut(&number) {
                    subscription.credit = credit.bytes_total;
                }
            }
            Kind::Unsubscribe => {
                let request: Unsubscribe = decode(&frame.body).unwrap();
                world.unsubscribes += 1;
                self.subscriptions.remove(&request.subscription);
                self.answer(kind, number, encode(&Empty {}).unwrap());
            }
            other => {
                let body = control_answer(world, other, &frame.body);
                self.answer(kind, number, body);
            }
        }
        Ok(())
    }

    fn answer(&mut self, kind: Kind, number: u32, body: Bytes) {
        self.out.push(Frame::response(kind, number, body));
    }

    fn refuse(&mut self, kind: Kind, number: u32, code: ErrorCode) {
        let body = ErrorBody::text("as scripted").encode();
        self.out.push(Frame::refusal(kind, number, code, body));
    }

    fn hello(&mut self, world: &World) -> Outcome {
        match world.hello {
            Hello::Accept => {
                self.answer(Kind::Hello, 0, world.granted.encode());
                Ok(())
            }
            Hello::Refuse(code) => {
                self.refuse(Kind::Hello, 0, code);
                Err(Close { flushes: true })
            }
            Hello::Garbage => {
                self.answer(Kind::Hello, 0, Bytes::from_static(b"no handshake at all"));
                Ok(())
            }
            Hello::Silence => Ok(()),
            Hello::Close => Err(AT_ONCE),
        }
    }

    fn publish(&mut self, world: &mut World, number: u32, mut body: Bytes) -> Outcome {
        let header = PublishHeader::decode(&mut body).unwrap();
        let batch = Batch::from_bytes(body).unwrap();
        batch.verify().unwrap();
        batch.check_records().unwrap();
        let partition = header.partition.partition;
        world.publishes.push((partition, batch.bytes().clone()));
        world.unanswered_bytes += batch.header().uncompressed_bytes as usize;
        world.unanswered_bytes_max = world.unanswered_bytes_max.max(world.unanswered_bytes);
        if world.is_holding {
            self.held.push((number, partition, batch));
            return Ok(());
        }
        if !world.topic_exists || header.partition.topic != world.topic_id {
            self.refuse(Kind::Publish, number, ErrorCode::UnknownTopic);
            return Ok(());
        }
        self.settle_publish(world, number, partition, &batch)
    }

    fn settle_publish(
        &mut self,
        world: &mut World,
        number: u32,
        partition: Partition,
        batch: &Batch,
    ) -> Outcome {
        world.unanswered_bytes -= batch.header().uncompressed_bytes as usize;
        match world.script.pop_front().unwrap_or(OnPublish::Ack) {
            OnPublish::Ack => match world.store(partition.0, batch) {
                Ok(ack) => {
                    let mut body = BytesMut::new();
                    ack.encode(&mut body);
                    self.answer(Kind::Publish, number, body.freeze());
                }
                Err(code) => self.refuse(Kind::Publish, number, code),
            },
            OnPublish::DropBefore => return Err(AT_ONCE),
            OnPublish::DropAfter => {
                world.store(partition.0, batch).unwrap();
                return Err(AT_ONCE);
            }
            OnPublish::Refuse(code) => self.refuse(Kind::Publish, number, code),
            OnPublish::RefuseStored(code) => {
                world.store(partition.0, batch).unwrap();
                self.refuse(Kind::Publish, number, code);
            }
            OnPublish::Swallow => {
                world.store(partition.0, batch).unwrap();
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, world: &mut World, number: u32, body: &[u8]) {
        let request: Subscribe = decode(body).unwrap();
        world.subscribes.push(request.clone());
        if !world.topic_exists || request.topic_id != world.topic_id {
            return self.refuse(Kind::Subscribe, number, ErrorCode::UnknownTopic);
        }
        let mut positions = BTreeMap::new();
        for start in &request.partitions {
            let end = world.end(start.partition.0);
            let offset = match start.start {
                StartPosition::Earliest => world.log_start,
                StartPosition::Latest | StartPosition::Timestamp(_) => end,
                StartPosition::Last(records) => end.saturating_sub(records),
                StartPosition::Offset(offset) => offset.get(),
            };
            if offset < world.log_start || offset > end {
                let refusal = ErrorBody {
                    partition: Some(start.partition),
                    low: world.log_start,
                    high: end,
                    ..ErrorBody::default()
                };
                let code = ErrorCode::OffsetOutOfRange;
                let frame = Frame::refusal(Kind::Subscribe, number, code, refusal.encode());
                return self.out.push(frame);
            }
            positions.insert(start.partition.0, offset);
        }
        let answer = Subscribed {
            partitions: positions
                .iter()
                .map(|(partition, offset)| SubscribedPartition {
                    partition: Partition(*partition),
                    offset: Offset(*offset),
                    log_start: Offset(world.log_start),
                    high_watermark: Offset(world.end(*partition)),
                })
                .collect(),
        };
        world.delivered_bytes = 0;
        world.credit_bytes = request.credit_bytes;
        let subscription = Subscription {
            positions,
            credit: request.credit_bytes,
            sent: 0,
        };
        self.subscriptions.insert(number, subscription);
        self.answer(Kind::Subscribe, number, encode(&answer).unwrap());
    }

    /// Does what is due without a request: releases, deliveries, endings, the end.
    fn tick(&mut self) -> Outcome {
        let shared = Arc::clone(&self.shared);
        let world = &mut *shared.world();
        if self.generation != world.generation {
            return Err(AT_ONCE);
        }
        if world.is_silent {
            self.out.clear();
            return Ok(());
        }
        if world.announces_draining && !self.was_told_draining {
            self.was_told_draining = true;
            self.out
                .push(Frame::request(Kind::Draining, 0, Bytes::new()));
        }
        if !world.is_holding {
            for (number, partition, batch) in std::mem::take(&mut self.held) {
                self.settle_publish(world, number, partition, &batch)?;
            }
        }
        self.deliver(world);
        if !self.subscriptions.is_empty() {
            for (partition, code, low, high) in std::mem::take(&mut world.endings) {
                self.end_partition(partition, code, low, high);
            }
        }
        Ok(())
    }

    fn deliver(&mut self, world: &mut World) {
        for (number, subscription) in &mut self.subscriptions {
            for (partition, position) in &mut subscription.positions {
                for batch in &world.logs[*partition as usize] {
                    let header = batch.header();
                    let has_credit =
                        world.ignores_credit || subscription.sent < subscription.credit;
                    if header.end_offset().get() <= *position || !has_credit {
                        continue;
                    }
                    if world.skips_records > 0 {
                        world.skips_records -= 1;
                        *position = header.end_offset().get();
                        continue;
                    }
                    let batches = if std::mem::take(&mut world.corrupts_deliveries) {
                        World::corrupted(batch.bytes())
                    } else {
                        batch.bytes().clone()
                    };
                    let delivery = Delivery {
                        partition: Partition(*partition),
                        log_start: Offset(world.log_start),
                        high_watermark: Offset(
                            world.logs[*partition as usize]
                                .last()
                                .unwrap()
                                .header()
                                .end_offset()
                                .get(),
                        ),
                        batches,
                    };
                    let mut body = BytesMut::new();
                    delivery.encode_header(&mut body);
                    body.extend_from_slice(&delivery.batches);
                    let frame = Frame::request(Kind::Deliver, *number, body.freeze());
                    let times = if world.repeats_deliveries { 2 } else { 1 };
                    for _ in 0..times {
                        let bytes = delivery.batches.len() as u64;
                        subscription.sent += bytes;
                        world.delivered_bytes += bytes;
                        world.last_delivery_bytes = bytes;
                        self.out.push(frame.clone());
                    }
                    *position = header.end_offset().get();
                }
            }
        }
    }

    fn end_partition(&mut self, partition: u32, code: ErrorCode, low: u64, high: u64) {
        let body = ErrorBody {
            partition: Some(Partition(partition)),
            low,
            high,
            ..ErrorBody::text("as scripted")
        };
        for (number, subscription) in &mut self.subscriptions {
            if subscription.positions.remove(&partition).is_some() {
                let mut frame = Frame::request(Kind::PartitionEnded, *number, body.encode());
                frame.header.status = code.number();
                self.out.push(frame);
            }
        }
    }
}
