//! Rows of the index in sled, which has checksums of its own but is not trusted.

use falcon_fuzz::{Decoder, Family, Refusal, RoundTrip, refused};

use super::super::*;
use super::any::{place, wide};
use crate::store::local::index::{Place, decode_base, decode_place, encode_place, key};

const NOT_A_ROW: Refusal = refused("not a row", "");
const KEY: usize = 16;

/// Key and value back to back.
static EXTENT: RoundTrip<Place> = RoundTrip {
    expected: &[NOT_A_ROW],
    ..RoundTrip::new(
        "index-extent",
        place,
        |place, to| {
            to.extend_from_slice(&key(P, place.extent.base_offset.0));
            to.extend_from_slice(&encode_place(place));
        },
        |bytes| {
            let (key, value) = bytes.split_at(KEY.min(bytes.len()));
            decode_place(P, key, value).ok_or(NOT_A_ROW)
        },
    )
};

static TIME: RoundTrip<Offset> = RoundTrip {
    expected: &[NOT_A_ROW],
    ..RoundTrip::new(
        "index-time",
        |random| Offset(wide(random)),
        |base, to| to.extend_from_slice(&base.0.to_le_bytes()),
        |bytes| decode_base(bytes).ok_or(NOT_A_ROW),
    )
};

#[test]
fn rows_of_the_index_survive_damage() {
    let decoders: [&dyn Decoder; 2] = [&EXTENT, &TIME];
    let family = Family {
        name: "index",
        command: "cargo test -p falcon --lib fuzz::index::",
        decoders: &decoders,
    };
    family.run();
}
