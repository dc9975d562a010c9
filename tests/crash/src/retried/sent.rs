//! What was sent to the broker, how often; and batches without identity, for the control.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use falcon_protocol::batch::BatchHeader;
use falcon_protocol::message::{PUBLISH_HEADER_BYTES, PublishHeader};
use falcon_protocol::{FRAME_HEADER_BYTES, Kind, PartitionId, ProducerId};

/// Position of a frame's kind.
const KIND_AT: usize = 4;
/// In a publish: where its batch begins.
const BATCH_AT: usize = FRAME_HEADER_BYTES + PUBLISH_HEADER_BYTES;
/// In a batch: its checksum, and what that covers.
const CRC: std::ops::Range<usize> = 24..28;
/// In a batch: the producer's id and epoch.
const PRODUCER: std::ops::Range<usize> = 40..52;
/// In a batch: the first sequence.
const SEQUENCE: std::ops::Range<usize> = 56..64;

/// Whether batches arrive as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    Kept,
    /// The broker cannot know that a batch came before.
    Removed,
}

/// What a batch keeps when it is sent again: partition, producer, epoch, first sequence.
type Name = (PartitionId, ProducerId, u32, u64);

/// A batch under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publish {
    name: Name,
    records: u32,
}

/// Batches that went to the broker as a whole, by partition and identity.
#[derive(Debug, Default)]
pub(super) struct Sent {
    times: Mutex<HashMap<Name, u32>>,
    retried_batches: AtomicU64,
    retried_records: AtomicU64,
}

impl Sent {
    /// Notes that a batch went to the broker.
    pub(super) fn note(&self, batch: Publish) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let times = times.entry(batch.name).or_default();
        *times += 1;
        if *times == 2 {
            self.retried_batches.fetch_add(1, Ordering::Relaxed);
            let records = u64::from(batch.records);
            self.retried_records.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Batches sent more than once.
    pub(super) fn retried_batches(&self) -> u64 {
        self.retried_batches.load(Ordering::Relaxed)
    }

    /// Records in them.
    pub(super) fn retried_records(&self) -> u64 {
        self.retried_records.load(Ordering::Relaxed)
    }
}

/// The batch that a frame carries to the broker.
pub(super) fn publish_in(frame: &[u8]) -> Option<Publish> {
    if frame.get(KIND_AT) != Some(&Kind::Publish.number()) {
        return None;
    }
    let head = PublishHeader::decode(&mut frame.get(FRAME_HEADER_BYTES..)?).ok()?;
    let batch = BatchHeader::decode(frame.get(BATCH_AT..)?).ok()?;
    let producer = batch.producer;
    Some(Publish {
        name: (
            head.partition,
            producer.id,
            producer.epoch,
            producer.base_sequence,
        ),
        records: batch.record_count,
    })
}

/// Takes the identity out of the batch of a publish.
pub(super) fn remove_identity(frame: &mut [u8]) {
    let Some(batch) = frame.get_mut(BATCH_AT..) else {
        return;
    };
    for field in [PRODUCER, SEQUENCE] {
        if let Some(field) = batch.get_mut(field) {
            field.fill(0);
        }
    }
    let crc = batch.get(CRC.end..).map(crc32fast::hash);
    if let (Some(to), Some(crc)) = (batch.get_mut(CRC), crc) {
        to.copy_from_slice(&crc.to_le_bytes());
    }
}
