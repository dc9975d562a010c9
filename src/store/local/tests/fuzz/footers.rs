//! Footers of sealed segments.

use falcon_fuzz::{Decoder, Family, Hints, Rng, RoundTrip, number, refused};

use super::super::*;
use super::any::{damage, list, narrow, partition, place, wide};
use super::seals::{self, is_sealed};
use super::*;
use crate::store::local::index::Place;
use crate::store::local::journal::footer::{StoredSummary, Summary, encode};
use crate::store::local::segments::Share;

type Footer = (Summary, Vec<(PartitionId, Place)>);

const FIXED: usize = 48;
const EXTENTS: Refusal = refused("extents", "");

/// Where the summary says that it ends.
fn summary_bytes(bytes: &[u8]) -> usize {
    let (shares, damages) = (number(bytes, 24, 4), number(bytes, 28, 4));
    FIXED + usize::try_from(shares * 40 + damages * 24).unwrap()
}

fn any_footer(random: &mut Rng) -> Footer {
    let share = |random: &mut Rng| Share {
        base: Offset(wide(random)),
        end: Offset(wide(random)),
        original_end: Offset(wide(random)),
        bytes: wide(random),
    };
    let summary = Summary {
        segment: wide(random),
        nonce: narrow(random),
        shares: list(random, |random| (partition(random), share(random))),
        damage: list(random, damage),
    };
    let extent = |random: &mut Rng| {
        let segment = summary.segment;
        let place = place(random);
        (partition(random), Place { segment, ..place })
    };
    let extents = list(random, extent);
    (summary, extents)
}

/// Fits the checksum of the extents, then that of the summary in which it is.
fn seal(bytes: &mut [u8], random: &mut Rng) {
    let end = summary_bytes(bytes);
    if end > bytes.len() {
        seals::behind(bytes, 4);
        return;
    }
    if random.u8(0..4) > 0 {
        let all = bytes.len();
        seals::checksum(bytes, 32, end..all);
    }
    seals::checksum(bytes, 4, 8..end);
}

static FOOTER: RoundTrip<Footer> = RoundTrip {
    seal: |bytes, random| seal(bytes, random),
    hints: Hints {
        fields: &[(0, 4), (24, 4), (28, 4), (40, 8)],
        values: &[],
    },
    expected: &[CHECKSUM, EXTENTS],
    ..RoundTrip::new(
        "footer",
        any_footer,
        |(summary, extents), to| to.extend_from_slice(&encode(summary, extents).0),
        |bytes| {
            let end = summary_bytes(bytes).min(bytes.len());
            let (summary, extents) = bytes.split_at(end);
            let stored = StoredSummary::decode(summary);
            let stored = stored.ok_or_else(|| why(is_sealed(summary, 4, 8)))?;
            let extents = stored.decode_extents(extents).ok_or(EXTENTS)?;
            Ok((stored.summary, extents))
        },
    )
};

/// Alone, cut at a place that the seal slot says and not the counts.
static SUMMARY: RoundTrip<Summary> = RoundTrip {
    seal: |bytes, _| seals::behind(bytes, 4),
    hints: Hints {
        fields: &[(0, 4), (24, 4), (28, 4)],
        values: &[],
    },
    expected: &[CHECKSUM, LAYOUT],
    ..RoundTrip::new(
        "footer-summary",
        |random| any_footer(random).0,
        |summary, to| to.extend_from_slice(&encode(summary, &[]).0),
        |bytes| {
            let stored = StoredSummary::decode(bytes);
            let stored = stored.ok_or_else(|| why(is_sealed(bytes, 4, 8)))?;
            Ok(stored.summary)
        },
    )
};

#[test]
fn footers_survive_damage() {
    let decoders: [&dyn Decoder; 2] = [&FOOTER, &SUMMARY];
    let family = Family {
        name: "footers",
        command: "cargo test -p falcon --lib fuzz::footers::",
        decoders: &decoders,
    };
    family.run();
}
