//! Frames: headers, the handshake, error bodies, and whole frames back to back.

use falcon_fuzz::{Decoder, Family, Hints, Refusal, Rng, RoundTrip, refused, set_number};
use falcon_protocol::limits::{FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX};
use falcon_protocol::*;

use super::messages::{ERROR_BODY, HELLO_REQUEST, HELLO_RESPONSE, reader};
use super::values::Any;

const TOO_LARGE: Refusal = refused("too large", "");
const HTTP: Refusal = refused("http", "");
const FLAGS: Refusal = refused("flags", "");
const SHORT: Refusal = refused("short", "");

fn frame(error: FrameError) -> Refusal {
    match error {
        FrameError::TooLarge { bytes, max } => {
            assert!(bytes > max);
            TOO_LARGE
        }
        FrameError::Http => HTTP,
        FrameError::Flags { .. } => FLAGS,
    }
}

fn header_of(bytes: &[u8], max: u32) -> Result<FrameHeader, Refusal> {
    let head = bytes.first_chunk::<FRAME_HEADER_BYTES>().ok_or(SHORT)?;
    let header = FrameHeader::decode(head, max).map_err(frame)?;
    assert!(header.body_bytes <= max, "{header:?} is above {max}");
    Ok(header)
}

/// Some of the damage that checksums do not hide, for there are none: a method of HTTP in front.
fn speak_http(bytes: &mut [u8], random: &mut Rng) {
    if random.u8(..) < 4
        && let Some(front) = bytes.get_mut(..4)
    {
        front.copy_from_slice(random.choice([b"GET ", b"POST", b"PRI "]).unwrap());
    }
}

static HEADER: RoundTrip<FrameHeader> = RoundTrip {
    seal: |bytes, random| speak_http(bytes, random),
    hints: Hints {
        fields: &[(0, 4), (4, 1), (5, 1)],
        values: &[FRAME_BYTES_DEFAULT as u64],
    },
    expected: &[TOO_LARGE, HTTP, FLAGS, SHORT],
    ..RoundTrip::new(
        "frame-header",
        |random| FrameHeader {
            body_bytes: u32::any(random).min(FRAME_BYTES_DEFAULT),
            kind: random.u8(..),
            is_response: random.bool(),
            status: Any::any(random),
            correlation: Any::any(random),
        },
        FrameHeader::encode,
        |bytes| header_of(bytes, FRAME_BYTES_DEFAULT),
    )
};

const WHOLE_HINTS: Hints = Hints {
    fields: &[(0, 4), (4, 1), (5, 1), (6, 2)],
    values: &[
        HANDSHAKE_FRAME_BYTES_MAX as u64,
        FRAME_BYTES_DEFAULT as u64,
        FRAME_BYTES_MAX as u64,
    ],
};

/// Frames back to back, each read as broker or client would.
struct Whole;

impl Decoder for Whole {
    fn name(&self) -> &'static str {
        "whole-frames"
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        for _ in 0..random.u8(1..4) {
            let kind = *random.choice(Kind::ALL).unwrap();
            let header_at = to.len();
            let (is_response, is_refused) = (random.bool(), random.u8(0..8) == 0);
            let header = FrameHeader {
                body_bytes: 0,
                kind: kind.number(),
                is_response,
                status: u16::from(is_refused),
                correlation: Any::any(random),
            };
            header.encode(to);
            let body_at = to.len();
            let error_body: &dyn Decoder = &ERROR_BODY;
            let wanted = if is_refused {
                Some(error_body)
            } else {
                reader(kind, is_response)
            };
            if let Some(reader) = wanted {
                reader.valid(random, to);
            }
            let body_bytes = (to.len() - body_at) as u64;
            set_number(to, header_at, 4, body_bytes);
        }
    }

    /// Lets the first frame reach to the end, or the damage would mostly be in its length.
    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        if random.bool() {
            let body_bytes = bytes.len().saturating_sub(FRAME_HEADER_BYTES);
            set_number(bytes, 0, 4, body_bytes as u64);
        }
        speak_http(bytes, random);
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let header = header_of(rest, HANDSHAKE_FRAME_BYTES_MAX)?;
            let (_, behind) = rest.split_at(FRAME_HEADER_BYTES);
            let body_bytes = header.body_bytes as usize;
            let (body, behind) = behind.split_at_checked(body_bytes).ok_or(SHORT)?;
            rest = behind;
            let kind = Kind::from_number(header.kind).ok_or(refused("kind", ""))?;
            assert_eq!(kind.number(), header.kind);
            if let Some(code) = ErrorCode::from_number(header.status) {
                assert_eq!(code.number(), header.status);
                ERROR_BODY.decode(body)?;
            } else if let Some(reader) = reader(kind, header.is_response) {
                reader.decode(body)?;
            }
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        WHOLE_HINTS
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        (2 << 20) + 8192 + 64 * bytes.len() as u64
    }

    fn expected(&self) -> &[Refusal] {
        const {
            &[
                TOO_LARGE,
                HTTP,
                FLAGS,
                SHORT,
                refused("kind", ""),
                refused("invalid", "magic"),
                refused("truncated", "text"),
                refused("unexpected end", ""),
                refused("trailing", ""),
                refused("tag", ""),
            ]
        }
    }
}

#[test]
fn frames_survive_damage() {
    let family = Family {
        name: "frames",
        command: "cargo test -p falcon-protocol --test it fuzz::frames::",
        decoders: &[
            &HEADER,
            &Whole,
            &HELLO_REQUEST,
            &HELLO_RESPONSE,
            &ERROR_BODY,
        ],
    };
    family.run();
}
