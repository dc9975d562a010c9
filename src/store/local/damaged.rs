//! The file DAMAGED: what was found damaged, so that a start looks at it again.
//!
//! ```text
//!  0  u32 magic "FDMG"     24  u32 ranges, u32 zero
//!  4  u32 crc of 8..       32  ranges: u32 topic, u32 partition, u64 from, u64 to each
//!  8  u128 journal id
//! ```
//! Rot in a sealed segment shows only when it is read, and a lost segment only until the next clean stop. Nothing
//! in the file is believed: a range that can be read again is damaged no more. Without it, damage
//! shows later.

use std::path::Path;

use bytes::{Buf, BufMut};
use falcon_protocol::{BatchHeader, Offset, PartitionId};

use super::read;
use super::{Shared, locked};
use crate::io::{Disk, read_small, replace_small};
use crate::store::{Damage, ReadError};

const MAGIC: u32 = u32::from_le_bytes(*b"FDMG");
const FIXED: usize = 32;
const RANGE: usize = 24;
/// LIMIT: ranges remembered; the first in order of partition and offset.
const RANGES_MAX: usize = 4096;
/// LIMIT: reads of a start to look at what was damaged.
const READS_MAX: usize = 16_384;
const READ_BYTES: usize = 1 << 20;

pub(super) fn encode(journal_id: u128, damage: &[Damage]) -> Vec<u8> {
    let damage = damage.get(..RANGES_MAX).unwrap_or(damage);
    let mut bytes = Vec::with_capacity(FIXED + damage.len() * RANGE);
    bytes.put_u32_le(MAGIC);
    bytes.put_u32_le(0);
    bytes.put_u128_le(journal_id);
    bytes.put_u32_le(u32::try_from(damage.len()).unwrap_or(0));
    bytes.put_u32_le(0);
    for Damage { partition, range } in damage {
        bytes.put_u32_le(partition.topic.0);
        bytes.put_u32_le(partition.partition.0);
        bytes.put_u64_le(range.start.0);
        bytes.put_u64_le(range.end.0);
    }
    let crc = crc32fast::hash(bytes.get(8..).unwrap_or_default());
    if let Some(mut field) = bytes.get_mut(4..8) {
        field.put_u32_le(crc);
    }
    bytes
}

pub(super) fn decode(journal_id: u128, bytes: &[u8]) -> Option<Vec<Damage>> {
    let (mut head, mut rest) = bytes.split_at_checked(FIXED)?;
    let is_whole =
        head.get_u32_le() == MAGIC && head.get_u32_le() == crc32fast::hash(bytes.get(8..)?);
    if !is_whole || head.get_u128_le() != journal_id {
        return None;
    }
    let count = usize::try_from(head.get_u32_le()).ok()?;
    if rest.len() != count.checked_mul(RANGE)? {
        return None;
    }
    let mut range = || Damage {
        partition: PartitionId::new(rest.get_u32_le(), rest.get_u32_le()),
        range: Offset(rest.get_u64_le())..Offset(rest.get_u64_le()),
    };
    Some((0..count).map(|_| range()).collect())
}

/// What was written down last; nothing where that cannot be read.
pub(super) fn read_file(disk: &dyn Disk, path: &Path, journal_id: u128) -> Vec<Damage> {
    let bytes_max = FIXED + RANGES_MAX * RANGE;
    let bytes = read_small(disk, path, bytes_max).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the list of damage cannot be read, what it named is found when it is read"
        );
        None
    });
    bytes
        .and_then(|bytes| decode(journal_id, &bytes))
        .unwrap_or_default()
}

/// Writes down what is known to be damaged.
pub(super) fn write(shared: &Shared) {
    let mut damage = locked(&shared.damage).clone();
    damage.sort_unstable_by_key(|damage| (damage.partition, damage.range.start));
    let path = super::open::damaged_path(&shared.config);
    let bytes = encode(shared.identity.journal_id, &damage);
    if let Err(error) = replace_small(shared.disk.as_ref(), &path, &bytes) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the list of damage cannot be written, after a restart it is found when it is read"
        );
    }
}

/// Reads what was damaged once, and notes what still is.
pub(super) fn look_again(shared: &Shared, damage: &[Damage]) {
    let mut reads = 0;
    for Damage { partition, range } in damage {
        let Some(bounds) = shared.bounds_of(*partition) else {
            continue;
        };
        let mut at = range.start.max(bounds.start);
        let end = range.end.min(bounds.end);
        while at < end {
            reads += 1;
            if reads > READS_MAX {
                return;
            }
            at = match read::read(shared, *partition, (at..end, READ_BYTES), &mut |_| {}) {
                Ok(runs) => match end_of(&runs) {
                    Some(next) if next > at => next,
                    Some(_) | None => break,
                },
                Err(ReadError::Damaged(damage)) => {
                    shared.note_damage(&damage);
                    damage.range.end
                }
                Err(_) => {
                    let (partition, range) = (*partition, at..end);
                    shared.note_damage(&Damage { partition, range });
                    break;
                }
            };
        }
    }
}

/// After the last batch in what was read.
fn end_of(runs: &[bytes::Bytes]) -> Option<Offset> {
    let mut rest = runs.last()?.as_ref();
    let mut end = None;
    while let Ok(header) = BatchHeader::decode(rest) {
        end = Some(header.end_offset());
        rest = rest.get(super::journal::length(header.batch_bytes)..)?;
    }
    end
}
