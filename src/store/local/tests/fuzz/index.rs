//! Rows of the index in sled, which has checksums of its own but is not trusted.

use falcon_fuzz::{Decoder, Family, Refusal, RoundTrip, refused};

use super::super::*;
use super::any::{narrow, wide};
use crate::store::local::index::{Page, decode_base, decode_page, key};

const NOT_A_ROW: Refusal = refused("not a row", "");
const KEY: usize = 16;

/// Key and value back to back.
static PAGE: RoundTrip<Page> = RoundTrip {
    expected: &[NOT_A_ROW],
    ..RoundTrip::new(
        "index-page",
        |random| Page {
            segment: wide(random),
            base: Offset(wide(random)),
            end: Offset(wide(random)),
            row: wide(random),
            rows: narrow(random),
            rows_crc: narrow(random),
            max_timestamp_ms: wide(random).cast_signed(),
        },
        |page, to| {
            to.extend_from_slice(&key(P, page.base.0));
            to.extend_from_slice(&page.encode());
        },
        |bytes| {
            let (key, value) = bytes.split_at(KEY.min(bytes.len()));
            decode_page(P, key, value).ok_or(NOT_A_ROW)
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
    let decoders: [&dyn Decoder; 2] = [&PAGE, &TIME];
    let family = Family {
        name: "index",
        command: "cargo test -p falcon --lib fuzz::index::",
        decoders: &decoders,
    };
    family.run();
}
