//! Random values of what a data folder holds.

use falcon_fuzz::Rng;

use super::super::*;
use crate::store::local::index::Place;
use crate::store::local::journal::group::{Encoder, ExtentCopy, GroupKind, Placement};
use crate::store::local::journal::state::{Bounds, StoreState};
use crate::store::{Damage, Extent};

pub(super) fn wide(random: &mut Rng) -> u64 {
    random.u64(..) >> random.u32(0..64)
}

pub(super) fn narrow(random: &mut Rng) -> u32 {
    random.u32(..) >> random.u32(0..32)
}

pub(super) fn time(random: &mut Rng) -> i64 {
    random.i64(..) >> random.u32(0..64)
}

pub(super) fn list<T>(random: &mut Rng, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    let count = random.u8(0..4);
    (0..count).map(|_| make(random)).collect()
}

pub(super) fn bytes(random: &mut Rng, max: usize) -> Bytes {
    let count = random.usize(0..=max);
    (0..count).map(|_| random.u8(..)).collect()
}

/// One of few, so that parts of one input fit into another.
pub(super) fn partition(random: &mut Rng) -> PartitionId {
    PartitionId::new(random.u32(1..3), random.u32(0..2))
}

pub(super) fn state(random: &mut Rng) -> StoreState {
    let bounds = |random: &mut Rng| Bounds {
        start: Offset(wide(random)),
        end: Offset(wide(random)),
    };
    StoreState {
        segments: list(random, wide),
        partitions: list(random, |random| (partition(random), bounds(random))),
    }
}

pub(super) fn damage(random: &mut Rng) -> Damage {
    Damage {
        partition: partition(random),
        range: Offset(wide(random))..Offset(wide(random)),
    }
}

pub(super) fn place(random: &mut Rng) -> Place {
    let extent = Extent {
        base_offset: Offset(wide(random)),
        record_count: narrow(random),
        bytes: narrow(random),
        max_timestamp_ms: time(random),
        append_time_ms: time(random),
    };
    Place {
        segment: wide(random),
        position: wide(random),
        extent,
        is_copy: false,
    }
}

fn any_batch(random: &mut Rng) -> StampedBatch {
    let values: Vec<Bytes> = (0..random.u8(1..4)).map(|_| bytes(random, 24)).collect();
    let values: Vec<&[u8]> = values.iter().map(AsRef::as_ref).collect();
    let base = random.u64(0..1000);
    stamped(partition(random), base, batch(&values, time(random)))
}

/// A batch as it lies in the journal.
pub(super) fn stored_batch(random: &mut Rng) -> (PartitionId, Bytes) {
    let stamped = any_batch(random);
    let batch = stamped.batch.stamped(&stamped.stamp).unwrap();
    (stamped.stamp.partition, batch.bytes().clone())
}

fn row(random: &mut Rng) -> Row {
    Row {
        table: random.choice(Table::ALL).unwrap(),
        key: bytes(random, 16),
        value: random.bool().then(|| bytes(random, 32)),
    }
}

/// A whole commit group.
pub(super) fn group(random: &mut Rng, placement: &Placement, synced_seq: u64) -> Bytes {
    let copy = |random: &mut Rng| {
        let (partition, bytes) = stored_batch(random);
        let extent = Extent {
            bytes: u32::try_from(bytes.len()).unwrap(),
            ..place(random).extent
        };
        ExtentCopy {
            partition,
            extent,
            batches: vec![bytes],
        }
    };
    let trim = |random: &mut Rng| {
        let start = random.bool().then(|| Offset(wide(random)));
        (partition(random), start)
    };
    let is_snapshot = random.u8(0..4) == 0;
    let (batches, copies) = if is_snapshot {
        (Vec::new(), Vec::new())
    } else {
        let count = random.u8(0..3);
        let copies = (0..random.u8(0..2)).map(|_| copy(random)).collect();
        ((0..count).map(|_| any_batch(random)).collect(), copies)
    };
    let state = (is_snapshot || random.u8(0..4) == 0).then(|| state(random));
    let encoder = Encoder {
        kind: if is_snapshot {
            GroupKind::Snapshot
        } else {
            GroupKind::Commit
        },
        batches: &batches,
        copies: &copies,
        rows: &list(random, row),
        trims: &list(random, trim),
        state: state.as_ref(),
        extent_bytes: 2 << 10,
    };
    encoder.encode(placement).unwrap().seal(synced_seq).0
}
