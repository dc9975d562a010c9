//! What published records carry: their own name, and bytes that follow from it.

use crate::history::ValueId;

const HEADER_BYTES: usize = 8;

/// The bytes of a value; its size follows from its name too, mostly small, now and then large.
pub(crate) fn encode(value: ValueId) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed(value));
    let filler = match random.u8(..) {
        0..=199 => random.usize(0..200),
        200..=253 => random.usize(0..12_000),
        254.. => random.usize(0..60_000),
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + filler);
    bytes.extend_from_slice(&value.publisher.to_le_bytes());
    bytes.extend_from_slice(&value.sequence.to_le_bytes());
    // Half of it compresses.
    let pattern = random.u64(..).to_le_bytes();
    let is_plain = random.bool();
    if is_plain {
        bytes.extend(pattern.iter().cycle().take(filler));
    } else {
        bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(filler));
    }
    bytes
}

/// The name of a value, when these are exactly its bytes.
pub(crate) fn decode(bytes: &[u8]) -> Option<ValueId> {
    let (publisher, rest) = bytes.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    let value = ValueId {
        publisher: u32::from_le_bytes(*publisher),
        sequence: u32::from_le_bytes(*sequence),
    };
    (encode(value) == bytes).then_some(value)
}

/// Few bytes that name a value, where size does not matter.
pub(crate) fn encode_small(value: ValueId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * HEADER_BYTES);
    for word in [value.publisher, value.sequence] {
        bytes.extend_from_slice(&word.to_le_bytes());
        bytes.extend_from_slice(&(!word).to_le_bytes());
    }
    bytes
}

/// The name of a value, when these are exactly its few bytes.
pub(crate) fn decode_small(bytes: &[u8]) -> Option<ValueId> {
    let words = bytes.as_chunks::<4>().0;
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let publisher = words.next()?;
    let value = ValueId {
        publisher,
        sequence: words.nth(1)?,
    };
    (encode_small(value) == bytes).then_some(value)
}

fn seed(value: ValueId) -> u64 {
    u64::from(value.publisher) << 32 | u64::from(value.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_names_its_value_and_any_change_of_it_does_not() {
        for sequence in 0..300 {
            let value = ValueId {
                publisher: 3,
                sequence,
            };
            let mut bytes = encode(value);
            assert_eq!(decode(&bytes), Some(value));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_eq!(decode(&bytes), None);
            assert_eq!(decode(&bytes[..last.min(7)]), None);
            let mut small = encode_small(value);
            assert_eq!(decode_small(&small), Some(value));
            small[9] ^= 1;
            assert_eq!(decode_small(&small), None);
            assert_eq!(decode_small(&small[..12]), None);
        }
    }
}
