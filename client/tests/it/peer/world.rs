//! What the peer stores, has seen, and was told to do.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use falcon_client::{ErrorCode, Offset, Partition, Record};
use falcon_protocol::ids::PartitionId;
use falcon_protocol::message::{HelloResponse, PublishAck, Subscribe};
use falcon_protocol::{
    Batch, BatchBuilder, Codec, Frame, Producer, ProducerId, Stamp, TopicId, limits,
};

/// The id of the one named publisher.
pub(super) const NAMED: ProducerId = ProducerId(1_000);

/// What a publish meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnPublish {
    /// Stored and acknowledged.
    Ack,
    /// The connection ends before it is stored.
    DropBefore,
    /// It is stored, and the connection ends before the answer.
    DropAfter,
    /// Refused, not stored.
    Refuse(ErrorCode),
    /// Refused although stored.
    RefuseStored(ErrorCode),
    /// Stored, and the answer never comes.
    Swallow,
}

/// What a handshake meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hello {
    Accept,
    Refuse(ErrorCode),
    Garbage,
    Silence,
    Close,
}

#[derive(Default)]
struct ProducerState {
    epoch: u32,
    next_sequence: u64,
    stored: HashMap<u64, PublishAck>,
}

pub(crate) struct World {
    pub(crate) topic_id: TopicId,
    pub(crate) topic_exists: bool,
    /// Batches as stored, by partition.
    pub(crate) logs: Vec<Vec<Batch>>,
    producers: HashMap<(ProducerId, u32), ProducerState>,
    pub(crate) producers_granted: u64,
    pub(crate) named_epoch: u32,
    pub(crate) log_start: u64,

    pub(crate) hello: Hello,
    pub(crate) granted: HelloResponse,
    pub(crate) script: VecDeque<OnPublish>,
    /// Publishes are not answered, nor stored, while this is so.
    pub(crate) is_holding: bool,
    /// Nothing at all is answered while this is so.
    pub(crate) is_silent: bool,
    pub(crate) corrupts_deliveries: bool,
    pub(crate) repeats_deliveries: bool,
    pub(crate) ignores_credit: bool,
    pub(crate) skips_records: u64,
    pub(crate) endings: Vec<(u32, ErrorCode, u64, u64)>,
    pub(crate) refuses_requests: VecDeque<ErrorCode>,
    pub(crate) closes_on_request: bool,
    pub(crate) announces_draining: bool,
    /// Frames that the next turn of any connection sends as they are.
    pub(crate) garbage: Vec<Frame>,

    pub(crate) generation: u64,
    pub(crate) connections: u64,
    /// Every publish that arrived, with its batch.
    pub(crate) publishes: Vec<(Partition, Bytes)>,
    pub(crate) unanswered_bytes: usize,
    pub(crate) unanswered_bytes_max: usize,
    pub(crate) subscribes: Vec<Subscribe>,
    pub(crate) unsubscribes: u64,
    pub(crate) goodbyes: u64,
    pub(crate) pings: u64,
    pub(crate) delivered_bytes: u64,
    pub(crate) credit_bytes: u64,
    pub(crate) last_delivery_bytes: u64,
    pub(crate) commits: Vec<falcon_protocol::message::CommitOffsets>,
    pub(crate) requests: u64,
}

impl World {
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            topic_id: TopicId(7),
            topic_exists: true,
            logs: vec![Vec::new(); partitions as usize],
            producers: HashMap::new(),
            producers_granted: 0,
            named_epoch: 0,
            log_start: 0,
            hello: Hello::Accept,
            granted: HelloResponse {
                version: limits::VERSION,
                frame_bytes_max: limits::FRAME_BYTES_DEFAULT,
                batch_bytes_max: limits::BATCH_BYTES_DEFAULT,
                publish_window_bytes: 16 << 20,
                requests_in_flight_max: 64,
                subscriptions_max: 16,
                heartbeat_ms: 5_000,
                idle_timeout_ms: 30_000,
                codecs: 7,
                features: 0,
                connection_id: 1,
                broker: "peer/1".into(),
                cluster: "test".into(),
            },
            script: VecDeque::new(),
            is_holding: false,
            is_silent: false,
            corrupts_deliveries: false,
            repeats_deliveries: false,
            ignores_credit: false,
            skips_records: 0,
            endings: Vec::new(),
            refuses_requests: VecDeque::new(),
            closes_on_request: false,
            announces_draining: false,
            garbage: Vec::new(),
            generation: 0,
            connections: 0,
            publishes: Vec::new(),
            unanswered_bytes: 0,
            unanswered_bytes_max: 0,
            subscribes: Vec::new(),
            unsubscribes: 0,
            goodbyes: 0,
            pings: 0,
            delivered_bytes: 0,
            credit_bytes: 0,
            last_delivery_bytes: 0,
            commits: Vec::new(),
            requests: 0,
        }
    }

    /// First offset not yet stored.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        let last = self.logs[partition as usize].last();
        last.map_or(0, |batch| batch.header().end_offset().get())
    }

    /// Values stored in a partition, in order.
    pub(crate) fn values(&self, partition: u32) -> Vec<String> {
        let batches = self.logs[partition as usize].iter();
        let records = batches.flat_map(|batch| batch.records().unwrap());
        records
            .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap())
            .collect()
    }

    /// Stores a batch, or says why not: what a broker does about sequences.
    pub(crate) fn store(&mut self, partition: u32, batch: &Batch) -> Result<PublishAck, ErrorCode> {
        let producer = batch.header().producer;
        let count = batch.header().record_count;
        if producer.id.is_idempotent() {
            if producer.id == NAMED && producer.epoch < self.named_epoch {
                return Err(ErrorCode::ProducerFenced);
            }
            let state = self.producers.entry((producer.id, partition)).or_default();
            if producer.epoch > state.epoch {
                *state = ProducerState {
                    epoch: producer.epoch,
                    ..ProducerState::default()
                };
            }
            if let Some(ack) = state.stored.get(&producer.base_sequence) {
                return Ok(PublishAck {
                    is_duplicate: true,
                    ..*ack
                });
            }
            if producer.base_sequence != state.next_sequence {
                return Err(ErrorCode::OutOfSequence);
            }
        }
        let base_offset = Offset(self.end(partition));
        let ack = PublishAck {
            base_offset,
            append_time_ms: 1_700_000_000_000,
            record_count: count,
            is_duplicate: false,
        };
        if let Some(state) = self.producers.get_mut(&(producer.id, partition)) {
            state.next_sequence += u64::from(count);
            state.stored.insert(producer.base_sequence, ack);
        }
        let stamped = batch
            .stamped(&Stamp {
                partition: self.id(partition),
                base_offset,
                append_time_ms: ack.append_time_ms,
                epoch: 1,
            })
            .unwrap();
        self.logs[partition as usize].push(stamped);
        Ok(ack)
    }

    /// Puts records into a partition, as one batch.
    pub(crate) fn fill(&mut self, partition: u32, values: impl IntoIterator<Item = String>) {
        self.put(partition, Codec::Lz4, values.into_iter().map(Record::new));
    }

    /// The same with records, and compressed or not.
    pub(crate) fn put(
        &mut self,
        partition: u32,
        codec: Codec,
        records: impl IntoIterator<Item = Record>,
    ) {
        let mut builder = BatchBuilder::new(codec, 4 << 20);
        for record in records {
            builder.push(&record, 1_600_000_000_000).unwrap();
        }
        let batch = builder.build(Producer::default());
        let batch = Batch::from_bytes(batch.unwrap()).unwrap();
        self.store(partition, &batch).unwrap();
    }

    pub(crate) fn id(&self, partition: u32) -> PartitionId {
        PartitionId::new(self.topic_id.0, partition)
    }

    pub(crate) fn corrupted(batches: &Bytes) -> Bytes {
        let mut bytes = BytesMut::from(batches.as_ref());
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes.freeze()
    }
}
