//! Damaging valid bytes.

use fastrand::Rng;

/// No input is longer.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// Longest part that is repeated, removed or appended.
const PART_BYTES_MAX: usize = 96;
/// Numbers at which decoders go wrong.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    9,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff8,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Where damage is likely to be interesting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    /// Position and width of little-endian numbers, lengths above all.
    pub fields: &'static [(usize, usize)],
    /// Limits: these numbers and their neighbours are tried.
    pub values: &'static [u64],
}

/// The little-endian number of `width` bytes at `at`; 0 where the bytes end.
pub fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(from) = bytes.get(at..at + width)
        && let Some(to) = number.get_mut(..width)
    {
        to.copy_from_slice(from);
    }
    u64::from_le_bytes(number)
}

/// Overwrites the little-endian number of `width` bytes at `at`, where it is there.
pub fn set_number(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    if let Some(to) = bytes.get_mut(at..at + width)
        && let Some(from) = value.to_le_bytes().get(..width)
    {
        to.copy_from_slice(from);
    }
}

/// Damages `bytes` at one to four places; parts come from `other` too, which is valid.
pub(crate) fn damage(bytes: &mut Vec<u8>, other: &[u8], hints: &Hints, random: &mut Rng) {
    let places = 1 + random.u8(..).trailing_zeros().min(3);
    for _ in 0..places {
        once(bytes, other, hints, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn once(bytes: &mut Vec<u8>, other: &[u8], hints: &Hints, random: &mut Rng) {
    match random.u8(0..16) {
        0..=2 => flip(bytes, random),
        3 => {
            if let Some(byte) = random.choice(bytes.iter_mut()) {
                *byte = random.u8(..);
            }
        }
        4..=8 => put_edge(bytes, hints, random),
        9 => {
            let (at, width) = place(bytes, hints, random);
            let step = u64::from(random.u8(1..=16));
            let value = number(bytes, at, width);
            let is_more = random.bool();
            let value = if is_more {
                value.wrapping_add(step)
            } else {
                value.wrapping_sub(step)
            };
            set_number(bytes, at, width, value);
        }
        10 => splice(bytes, other, random),
        11 => bytes.truncate(random.usize(0..=bytes.len())),
        12 => extend(bytes, random),
        13 => repeat(bytes, random),
        14 => {
            let part = part(bytes.len(), random);
            bytes.drain(part);
        }
        _ => {
            let part = part(bytes.len(), random);
            let byte = random.choice([0, 0xff, b'a']).unwrap_or_default();
            if let Some(part) = bytes.get_mut(part) {
                part.fill(byte);
            }
        }
    }
}

fn flip(bytes: &mut [u8], random: &mut Rng) {
    if let Some(byte) = random.choice(bytes.iter_mut()) {
        *byte ^= 1 << random.u8(0..8);
    }
}

/// A part of `length` bytes, rarely all of it.
fn part(length: usize, random: &mut Rng) -> std::ops::Range<usize> {
    let from = random.usize(0..=length);
    let bytes = random.usize(0..=PART_BYTES_MAX.min(length - from));
    from..from + bytes
}

/// Position and width of a number: one of the named fields or anywhere.
fn place(bytes: &[u8], hints: &Hints, random: &mut Rng) -> (usize, usize) {
    let named = random.choice(hints.fields).filter(|_| random.bool());
    named.copied().unwrap_or_else(|| {
        let width = 1 << random.u8(0..4);
        (random.usize(0..=bytes.len()), width)
    })
}

/// Writes a number at which decoders go wrong, about what is left behind it among them.
fn put_edge(bytes: &mut [u8], hints: &Hints, random: &mut Rng) {
    let (at, width) = place(bytes, hints, random);
    let near = |value: u64, random: &mut Rng| {
        let off = random.u64(0..3);
        value.wrapping_add(off).wrapping_sub(1)
    };
    let value = match random.u8(0..8) {
        0..=3 => random.choice(EDGES).unwrap_or_default(),
        4 => near(bytes.len() as u64, random),
        5 => near(bytes.len().saturating_sub(at + width) as u64, random),
        _ => match random.choice(hints.values) {
            Some(value) => near(*value, random),
            None => random.u64(..),
        },
    };
    if random.u8(0..8) == 0 {
        let value = value << (64 - 8 * width);
        set_number(bytes, at, width, value.swap_bytes());
    } else {
        set_number(bytes, at, width, value);
    }
}

/// Puts a part of `other` over a part of as many or other bytes.
fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let from = part(other.len(), random);
    let from = other.get(from).unwrap_or_default();
    if random.bool() {
        let at = random.usize(0..=bytes.len().saturating_sub(from.len()));
        if let Some(to) = bytes.get_mut(at..at + from.len()) {
            to.copy_from_slice(from);
        }
        return;
    }
    let to = part(bytes.len(), random);
    bytes.splice(to, from.iter().copied());
}

fn extend(bytes: &mut Vec<u8>, random: &mut Rng) {
    let more = random.usize(1..=PART_BYTES_MAX);
    match random.u8(0..3) {
        0 => bytes.resize(bytes.len() + more, 0),
        1 => bytes.resize(bytes.len() + more, 0xff),
        _ => bytes.extend((0..more).map(|_| random.u8(..))),
    }
}

/// Appends a part once more right behind itself, up to eight times.
fn repeat(bytes: &mut Vec<u8>, random: &mut Rng) {
    let part = part(bytes.len(), random);
    let behind = bytes.split_off(part.end);
    for _ in 0..random.u8(1..=8) {
        bytes.extend_from_within(part.clone());
    }
    bytes.extend_from_slice(&behind);
}
