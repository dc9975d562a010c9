//! Many groups: the scan of a segment, and what is saved out of damaged bytes.

use std::path::Path;

use falcon_fuzz::{Decoder, Refusal, Rng, refused};

use super::super::*;
use super::any::{group, stored_batch};
use super::seals;
use crate::io::{DiskFile, IoError};
use crate::store::local::journal::group::Placement;
use crate::store::local::journal::salvage::{Piece, find_batches, salvage};
use crate::store::local::journal::scan::{Bound, Found, Scan};

const SEGMENT: u64 = 3;
const NONCE: u32 = 99;

/// Bytes that can be read.
#[derive(Debug)]
struct Memory(Vec<u8>);

fn never(path: &str) -> IoError {
    let source = std::io::ErrorKind::Unsupported.into();
    IoError::new("write", Path::new(path), source)
}

impl DiskFile for Memory {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let from = usize::try_from(position).unwrap().min(self.0.len());
        let bytes = buffer.len().min(self.0.len() - from);
        buffer[..bytes].copy_from_slice(&self.0[from..from + bytes]);
        Ok(bytes)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), IoError> {
        Err(never("memory"))
    }

    fn reserve(&self, _: u64, _: u64) -> Result<(), IoError> {
        Err(never("memory"))
    }

    fn sync_data(&self) -> Result<(), IoError> {
        Err(never("memory"))
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        Ok(self.0.len() as u64)
    }

    fn set_len(&self, _: u64) -> Result<(), IoError> {
        Err(never("memory"))
    }
}

/// Groups of a file that begins at `from` in `to`; half of them older ones, without a place.
fn groups(random: &mut Rng, from: usize, to: &mut Vec<u8>) {
    let first = random.u64(0..100);
    let has_places = random.bool();
    for seq in first..first + random.u64(1..5) {
        let placement = Placement {
            segment: SEGMENT,
            nonce: NONCE,
            seq,
            position: (to.len() - from) as u64,
        };
        let synced_seq = seq - random.u64(0..=1).min(seq);
        let mut group = group(random, &placement, synced_seq).to_vec();
        if !has_places {
            group[38..40].fill(0);
            let end = group.len();
            seals::checksum(&mut group, 4, 8..end);
        }
        to.extend_from_slice(&group);
    }
}

/// A segment's groups; the first byte says what is known of their end.
pub(super) struct Segment;

pub(super) static SCAN: Segment = Segment;

impl Decoder for Segment {
    fn name(&self) -> &'static str {
        "segment-scan"
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        to.push(random.u8(..));
        groups(random, 1, to);
        if random.bool() {
            to.resize(to.len() + random.usize(0..8) * 8, 0);
        }
    }

    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        seals::groups(bytes.get_mut(1..).unwrap_or_default(), random);
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let (how, file) = bytes.split_first().ok_or(refused("short", ""))?;
        let file = Memory(file.to_vec());
        let file_bytes = file.0.len() as u64;
        let knows = |bit: u8| how & bit != 0;
        let closed = Bound::Closed {
            end_seq: knows(2).then_some(u64::from(how >> 3)),
            end: knows(4).then_some(file_bytes / 8 * 8 + u64::from(how >> 5) * 8),
        };
        let durable = (how & 6 == 6).then_some((u64::from(how >> 3), u64::from(*how) * 8));
        let bound = if knows(1) {
            Bound::Open { durable }
        } else {
            closed
        };
        let expected = knows(16).then_some(u64::from(how >> 5));
        let nonce = knows(32).then_some(NONCE);
        let mut scan = Scan::new(&file, SEGMENT, nonce).unwrap();
        let (mut at, mut next_seq, mut rot_bytes) = (0, 0, 0);
        let tail = scan.run(0, expected, bound, &mut |found| match found {
            Found::Group {
                header,
                position,
                bytes,
            } => {
                assert!(position >= at && header.seq >= next_seq);
                assert_eq!(bytes.len(), usize::try_from(header.group_bytes).unwrap());
                assert_eq!(crc32fast::hash(&bytes[8..]), header.crc);
                at = position + bytes.len() as u64;
                next_seq = header.seq.saturating_add(1);
            }
            Found::Rot {
                position, bytes, ..
            } => {
                assert!(position >= at);
                at = position + bytes.len() as u64;
                rot_bytes += bytes.len();
                visit(&bytes);
            }
        });
        assert!(at <= file_bytes && tail.end >= at);
        assert!(!tail.is_end_unknown || rot_bytes > 0);
        assert!(tail.torn_bytes <= file_bytes - tail.end.min(file_bytes));
        match (rot_bytes, tail.torn_bytes) {
            (0, 0) => Ok(()),
            (0, _) => Err(refused("torn", "")),
            (_, _) => Err(refused("rot", "")),
        }
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        16_384 + 128 * bytes.len() as u64
    }

    fn expected(&self) -> &[Refusal] {
        const { &[refused("torn", ""), refused("rot", "")] }
    }
}

/// Everything that is saved lies inside, and proves itself. How many pieces there were.
fn visit(region: &Bytes) -> usize {
    let mut pieces = 0;
    salvage(region, &mut |at, piece| {
        assert!(at < region.len());
        pieces += 1;
        match piece {
            Piece::Batch {
                partition, batch, ..
            } => {
                batch.header.verify_stamp(partition).unwrap();
                if let Some(bytes) = batch.bytes {
                    assert_eq!(region.slice(at..at + bytes.len()), bytes);
                    let batch = Batch::from_bytes(bytes).unwrap();
                    batch.verify_in(partition).unwrap();
                }
            }
            Piece::Unstamped { header, .. } => {
                assert!(at as u64 + u64::from(header.batch_bytes) <= region.len() as u64);
            }
            Piece::Row { key, value, .. } => {
                let value = value.map_or(0, |value| value.len());
                assert!(at + 12 + key.len() + value <= region.len());
            }
            Piece::State(state) => assert!(at + state.encoded_bytes() <= region.len()),
            Piece::Trim(_) => assert!(at + 24 <= region.len()),
        }
    });
    pieces
}

/// Damaged bytes of groups, or of batches alone.
pub(super) struct Region;

pub(super) static REGION: Region = Region;

impl Decoder for Region {
    fn name(&self) -> &'static str {
        "salvaged-region"
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        if random.bool() {
            groups(random, 0, to);
            return;
        }
        for _ in 0..random.u8(1..4) {
            to.extend_from_slice(&stored_batch(random).1);
        }
    }

    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        if bytes.starts_with(b"FGP1") {
            seals::groups(bytes, random);
        } else {
            let mut owner = [0; 8];
            (owner[0], owner[4]) = (random.u8(1..3), random.u8(0..2));
            seals::batches(bytes, owner, random);
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let region = Bytes::copy_from_slice(bytes);
        let mut found = visit(&region);
        for partition in [PartitionId::new(1, 0), PartitionId::new(2, 1)] {
            let mut next = 0;
            for batch in find_batches(partition, &region) {
                assert!(batch.at >= next && batch.at + 80 <= region.len());
                next = batch.at + batch.bytes.as_ref().map_or(80, Bytes::len);
                assert!(next <= region.len());
                batch.header.verify_stamp(partition).unwrap();
                found += 1;
            }
        }
        match found {
            0 => Err(refused("nothing", "")),
            _ => Ok(()),
        }
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        16_384 + 128 * bytes.len() as u64
    }

    fn expected(&self) -> &[Refusal] {
        const { &[refused("nothing", "")] }
    }
}
