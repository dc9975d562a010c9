//! One commit group and its entries.

use falcon_fuzz::{Decoder, Hints, Refusal, Rng, refused};

use super::super::*;
use super::any::{group, narrow, wide};
use super::{CHECKSUM, seals};
use crate::store::Extent;
use crate::store::local::journal::group::{
    Encoder, Entry, ExtentCopy, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, Placement,
};
use crate::store::local::journal::state::StoreState;

const HEADER: Refusal = refused("header", "");
const SHORT: Refusal = refused("short", "");

/// A group, as a scan takes it in and a replay takes it apart.
pub(super) struct Group;

pub(super) static GROUP: Group = Group;

impl Decoder for Group {
    fn name(&self) -> &'static str {
        "commit-group"
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        let placement = Placement {
            segment: wide(random),
            nonce: narrow(random),
            seq: wide(random),
            position: 0,
        };
        let synced_seq = wide(random);
        to.extend_from_slice(&group(random, &placement, synced_seq));
    }

    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        if random.bool() {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let group_bytes = bytes.len() as u64;
            falcon_fuzz::set_number(bytes, 8, 4, group_bytes);
        }
        seals::groups(bytes, random);
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let header = GroupHeader::decode(bytes).ok_or(HEADER)?;
        let group_bytes = usize::try_from(header.group_bytes).unwrap();
        assert!((GROUP_HEADER_BYTES..=GROUP_BYTES_MAX).contains(&group_bytes));
        let bytes = Bytes::copy_from_slice(bytes.get(..group_bytes).ok_or(SHORT)?);
        if crc32fast::hash(&bytes[8..]) != header.crc {
            return Err(CHECKSUM);
        }
        let entries = entries(&bytes)?;
        let expected = again(&entries);
        assert_eq!(self::entries(&expected), Ok(sorted(entries)));
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints {
            fields: &[
                (0, 4),
                (8, 4),
                (32, 4),
                (36, 1),
                (48, 1),
                (50, 2),
                (52, 4),
                (60, 4),
                (64, 4),
            ],
            values: &[GROUP_BYTES_MAX as u64],
        }
    }

    fn expected(&self) -> &[Refusal] {
        const {
            &[
                HEADER,
                SHORT,
                CHECKSUM,
                refused("entry", "extent"),
                refused("entry", "row"),
                refused("entry", "state"),
                refused("entry", "trim"),
                refused("entry", "kind"),
                refused("table", ""),
                refused("state", ""),
            ]
        }
    }
}

/// All entries; what a replay passes over is a refusal here.
fn entries(bytes: &Bytes) -> Result<Vec<Entry>, Refusal> {
    let mut entries = Vec::new();
    let mut at = GROUP_HEADER_BYTES;
    while at < bytes.len() {
        let field = match bytes[at] {
            1 => "extent",
            2 | 3 => "row",
            4 => "state",
            5 => "trim",
            _ => "kind",
        };
        let (entry, next) = Entry::read(bytes, at).ok_or(refused("entry", field))?;
        assert!(next > at && next.is_multiple_of(8) && next < bytes.len() + 8);
        match &entry {
            Entry::Row { table, .. } if Table::from_number(*table).is_none() => {
                return Err(refused("table", ""));
            }
            Entry::State(state) if StoreState::decode(state).is_none() => {
                return Err(refused("state", ""));
            }
            Entry::Extent { at, batches, .. } => {
                assert_eq!(bytes.slice(*at..at + batches.len()), batches);
            }
            Entry::Row { .. } | Entry::State(_) | Entry::Trim { .. } => {}
        }
        entries.push(entry);
        at = next;
    }
    Ok(entries)
}

/// As [`again`] writes them: extents, all of them copies, then rows, trims, one state.
fn sorted(entries: Vec<Entry>) -> Vec<Entry> {
    let rank = |entry: &Entry| match entry {
        Entry::Extent { .. } => 0,
        Entry::Row { .. } => 1,
        Entry::Trim { .. } => 2,
        Entry::State(_) => 3,
    };
    let mut entries = entries;
    entries.sort_by_key(rank);
    let mut next = GROUP_HEADER_BYTES;
    for entry in &mut entries {
        if let Entry::Extent {
            is_copy,
            at,
            batches,
            ..
        } = entry
        {
            (*is_copy, *at) = (true, next + 24);
            next = (*at + batches.len()).next_multiple_of(8);
        }
        if let Entry::State(bytes) = entry {
            // A field that is ignored when read is written as zero.
            *bytes = StoreState::decode(bytes).unwrap().encode().into();
        }
    }
    // A group has room for one state.
    let states = entries.iter().filter(|e| matches!(e, Entry::State(_)));
    let more = states.count().saturating_sub(1);
    entries.truncate(entries.len() - more);
    entries
}

/// The same entries in a group of their own.
fn again(entries: &[Entry]) -> Bytes {
    let (mut copies, mut rows, mut trims, mut state) = (Vec::new(), Vec::new(), Vec::new(), None);
    for entry in entries {
        match entry {
            Entry::Extent {
                partition, batches, ..
            } => copies.push(ExtentCopy {
                partition: *partition,
                extent: Extent {
                    base_offset: Offset(0),
                    record_count: 0,
                    bytes: u32::try_from(batches.len()).unwrap(),
                    max_timestamp_ms: 0,
                    append_time_ms: 0,
                },
                batches: vec![batches.clone()],
            }),
            Entry::Row { table, key, value } => rows.push(Row {
                table: Table::from_number(*table).unwrap(),
                key: key.clone(),
                value: value.clone(),
            }),
            Entry::Trim {
                partition,
                log_start,
            } => trims.push((*partition, *log_start)),
            Entry::State(bytes) => state = state.or_else(|| StoreState::decode(bytes)),
        }
    }
    let encoder = Encoder {
        kind: crate::store::local::journal::group::GroupKind::Commit,
        batches: &[],
        copies: &copies,
        rows: &rows,
        trims: &trims,
        state: state.as_ref(),
        extent_bytes: 2 << 10,
    };
    let placement = Placement {
        segment: 1,
        nonce: 2,
        seq: 3,
        position: 0,
    };
    encoder.encode(&placement).unwrap().seal(3).0
}
