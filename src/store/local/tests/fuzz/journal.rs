//! Headers of segments, seals, the store's state, IDENTITY, CLEAN, SYNCED.

use falcon_fuzz::{Decoder, Family, Hints, Rng, RoundTrip, refused};

use super::any::{narrow, state, wide};
use super::groups::GROUP;
use super::regions::{REGION, SCAN};
use super::seals::{self, is_sealed};
use super::*;
use crate::store::local::identity::{CleanMarker, FORMAT, Identity};
use crate::store::local::journal::segment::{HeaderError, SEAL_POSITION, Seal, SegmentHeader};
use crate::store::local::journal::state::StoreState;
use crate::store::local::synced::SyncedMark;

const SLOT: usize = 64;
const NEWER: Refusal = refused("newer", "");

fn seal_slot(bytes: &mut [u8]) {
    if bytes.len() >= SLOT {
        seals::checksum(bytes, 4, 8..SLOT);
    }
}

fn journal_id(random: &mut Rng) -> u128 {
    u128::from(random.u64(..)) << 64 | u128::from(random.u64(..))
}

static SEGMENT_HEADER: RoundTrip<SegmentHeader> = RoundTrip {
    seal: |bytes, _| seal_slot(bytes),
    hints: Hints {
        fields: &[(0, 4), (8, 2)],
        values: &[],
    },
    expected: &[DAMAGED, NEWER],
    memory_bytes: 16 << 10,
    ..RoundTrip::new(
        "segment-header",
        |random| SegmentHeader {
            journal_id: journal_id(random),
            segment: wide(random),
            nonce: narrow(random),
        },
        |header, to| to.extend_from_slice(&header.encode()[..SLOT]),
        |bytes| {
            SegmentHeader::decode(bytes).map_err(|error| match error {
                HeaderError::Damaged => DAMAGED,
                HeaderError::Newer(_) => NEWER,
            })
        },
    )
};

static SEAL: RoundTrip<Seal> = RoundTrip {
    seal: |bytes, _| seal_slot(bytes),
    expected: &[DAMAGED],
    memory_bytes: 16 << 10,
    ..RoundTrip::new(
        "seal-slot",
        |random| Seal {
            segment: wide(random),
            nonce: narrow(random),
            summary_bytes: narrow(random),
            groups_end: wide(random),
            footer_position: wide(random),
            footer_bytes: wide(random),
            first_seq: wide(random),
            end_seq: wide(random),
        },
        |seal, to| to.extend_from_slice(&seal.encode()),
        |bytes| {
            let mut block = vec![0; usize::try_from(SEAL_POSITION).unwrap()];
            block.extend_from_slice(bytes);
            Seal::decode(&block).ok_or(DAMAGED)
        },
    )
};

static STATE: RoundTrip<StoreState> = RoundTrip {
    seal: |bytes, _| seals::behind(bytes, 0),
    hints: Hints {
        fields: &[(4, 4), (8, 4)],
        values: &[],
    },
    expected: &[CHECKSUM, LAYOUT],
    ..RoundTrip::new(
        "store-state",
        state,
        |state, to| to.extend_from_slice(&state.encode()),
        |bytes| StoreState::decode(bytes).ok_or_else(|| why(is_sealed(bytes, 0, 4))),
    )
};

static IDENTITY: RoundTrip<Identity> = RoundTrip {
    seal: |bytes, _| {
        if bytes.len() >= SLOT {
            seals::checksum(bytes, 8, 12..SLOT);
        }
    },
    hints: Hints {
        fields: &[(0, 8), (12, 4)],
        values: &[],
    },
    expected: &[DAMAGED, NEWER],
    ..RoundTrip::new(
        "identity-slot",
        |random| Identity {
            journal_id: journal_id(random),
            epoch: narrow(random),
        },
        |identity, to| to.extend_from_slice(&identity.encode()),
        |bytes| match Identity::decode(bytes) {
            None => Err(DAMAGED),
            Some((format, _)) if format > FORMAT => Err(NEWER),
            Some((_, identity)) => Ok(identity),
        },
    )
};

static CLEAN: RoundTrip<CleanMarker> = RoundTrip {
    // The state inside has a checksum of its own.
    seal: |bytes, random| {
        let state_at = 64 + 8 * falcon_fuzz::number(bytes, 56, 4);
        let state_at = usize::try_from(state_at).unwrap();
        if let Some(state) = bytes.get_mut(state_at..).filter(|_| random.u8(0..4) > 0) {
            seals::behind(state, 0);
        }
        seals::behind(bytes, 4);
    },
    hints: Hints {
        fields: &[(0, 4), (56, 4), (60, 4)],
        values: &[],
    },
    expected: &[CHECKSUM, LAYOUT],
    ..RoundTrip::new(
        "clean-marker",
        |random| CleanMarker {
            journal_id: journal_id(random),
            next_seq: wide(random),
            segment: wide(random),
            end: wide(random),
            index_token: wide(random),
            indexed: any::list(random, wide),
            state: state(random),
        },
        |clean, to| to.extend_from_slice(&clean.encode()),
        |bytes| CleanMarker::decode(bytes).ok_or_else(|| why(is_sealed(bytes, 4, 8))),
    )
};

static SYNCED: RoundTrip<SyncedMark> = RoundTrip {
    seal: |bytes, random| {
        if let Some(state) = bytes.get_mut(56..).filter(|_| random.u8(0..4) > 0) {
            seals::behind(state, 0);
        }
        seals::behind(bytes, 4);
    },
    hints: Hints {
        fields: &[(0, 4), (48, 4)],
        values: &[],
    },
    expected: &[CHECKSUM, LAYOUT],
    ..RoundTrip::new(
        "synced-mark",
        |random| SyncedMark {
            journal_id: journal_id(random),
            next_seq: wide(random),
            segment: wide(random),
            end: wide(random),
            state: state(random),
        },
        |mark, to| to.extend_from_slice(&mark.encode()),
        |bytes| SyncedMark::decode(bytes).ok_or_else(|| why(is_sealed(bytes, 4, 8))),
    )
};

#[test]
fn the_journal_survives_damage() {
    let decoders: [&dyn Decoder; 9] = [
        &SEGMENT_HEADER,
        &SEAL,
        &STATE,
        &IDENTITY,
        &CLEAN,
        &SYNCED,
        &GROUP,
        &SCAN,
        &REGION,
    ];
    let family = Family {
        name: "journal",
        command: "cargo test -p falcon --lib fuzz::journal::",
        decoders: &decoders,
    };
    family.run();
}
