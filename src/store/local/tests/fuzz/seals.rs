//! Making the checksums of the journal fit again.

use falcon_fuzz::{Rng, number, set_number};

use crate::store::local::journal::{length, padded};

fn at(bytes: &[u8], at: usize) -> usize {
    length(u32::try_from(number(bytes, at, 4)).unwrap())
}

/// Writes the checksum of `covered` to `to`.
pub(super) fn checksum(bytes: &mut [u8], to: usize, covered: std::ops::Range<usize>) {
    if let Some(covered) = bytes.get(covered) {
        let crc = crc32fast::hash(covered);
        set_number(bytes, to, 4, crc.into());
    }
}

/// Whether the checksum at `to` is that of what is behind `from`.
pub(super) fn is_sealed(bytes: &[u8], to: usize, from: usize) -> bool {
    let covered = bytes.get(from..).unwrap_or_default();
    number(bytes, to, 4) == u64::from(crc32fast::hash(covered))
}

/// The checksum of everything behind it, which starts the bytes but for `magic` of them.
pub(super) fn behind(bytes: &mut [u8], magic: usize) {
    checksum(bytes, magic, magic + 4..bytes.len());
}

/// Body and stamp of a batch of `topic` and `partition`, as numbers on the device.
fn batch(bytes: &mut [u8], owner: [u8; 8], random: &mut Rng) {
    let end = at(bytes, 28);
    checksum(bytes, 24, 28..end);
    if random.u8(0..8) == 0 || bytes.len() < 80 {
        return;
    }
    let mut covered = [0; 32];
    covered[..8].copy_from_slice(&owner);
    covered[8..28].copy_from_slice(&bytes[..20]);
    covered[28..].copy_from_slice(&bytes[24..28]);
    let crc = crc32fast::hash(&covered);
    set_number(bytes, 20, 4, crc.into());
}

/// Batches back to back.
pub(super) fn batches(bytes: &mut [u8], owner: [u8; 8], random: &mut Rng) {
    let mut from = 0;
    while let Some(rest) = bytes.get_mut(from..)
        && rest.len() >= 80
    {
        batch(rest, owner, random);
        from += at(rest, 28).max(80);
    }
}

/// Entries of a group, each with a checksum of its own.
pub(super) fn entries(bytes: &mut [u8], random: &mut Rng) {
    let mut from = 0;
    while let Some(rest) = bytes.get_mut(from..)
        && rest.len() >= 8
    {
        let step = match rest[0] {
            1 if rest.len() >= 24 => {
                let to = (24 + at(rest, 16)).min(rest.len());
                let owner = rest[4..12].try_into().unwrap();
                batches(&mut rest[24..to], owner, random);
                24 + at(rest, 16)
            }
            2 | 3 if rest.len() >= 12 => {
                let to = 12 + usize::try_from(number(rest, 2, 2)).unwrap() + at(rest, 4);
                if let Some(row) = rest.get(12..to) {
                    let mut hasher = crc32fast::Hasher::new();
                    hasher.update(&rest[..8]);
                    hasher.update(row);
                    let crc = hasher.finalize();
                    set_number(rest, 8, 4, crc.into());
                }
                to
            }
            4 => {
                let to = 8 + at(rest, 4);
                checksum(rest, 8, 12..to);
                to
            }
            5 => {
                checksum(rest, 20, 0..20);
                24
            }
            _ => 8,
        };
        from += padded(step);
    }
}

/// Groups back to back.
pub(super) fn groups(bytes: &mut [u8], random: &mut Rng) {
    let mut from = 0;
    while let Some(rest) = bytes.get_mut(from..)
        && rest.len() >= 48
    {
        let end = at(rest, 8);
        let is_inside = (48..=rest.len()).contains(&end);
        if is_inside && random.u8(0..8) > 0 {
            entries(&mut rest[48..end], random);
            checksum(rest, 4, 8..end);
        }
        from += if is_inside { padded(end) } else { 8 };
    }
}
