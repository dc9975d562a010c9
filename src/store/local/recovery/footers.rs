//! Reading footers, trusting none of their lengths.

use falcon_protocol::PartitionId;

use crate::io::{DiskFile, IoError};
use crate::store::local::index::Place;
use crate::store::local::journal::footer::{EXTENT_BYTES, StoredSummary, decode_rows};
use crate::store::local::journal::segment::Seal;

/// How much of a footer is read at once: whole extents.
const PIECE: u64 = 5_000 * EXTENT_BYTES;

type Footer = (StoredSummary, Vec<(PartitionId, Place)>);

/// `bytes` bytes at `position`; `None` when the file does not have them.
fn read_bytes(file: &dyn DiskFile, position: u64, bytes: u64) -> Result<Option<Vec<u8>>, IoError> {
    let end = position.checked_add(bytes);
    if end.is_none_or(|end| end > file.len_bytes().unwrap_or(0)) {
        return Ok(None);
    }
    let Ok(bytes) = usize::try_from(bytes) else {
        return Ok(None);
    };
    let mut buffer = vec![0; bytes];
    let read = file.read_at(position, &mut buffer)?;
    Ok((read == bytes).then_some(buffer))
}

/// The summary of a sealed segment; `None` when damaged.
fn read_summary(file: &dyn DiskFile, seal: &Seal) -> Result<Option<StoredSummary>, IoError> {
    let bytes = read_bytes(file, seal.footer_position, u64::from(seal.summary_bytes))?;
    let stored = bytes.as_deref().and_then(StoredSummary::decode);
    Ok(stored.filter(|stored| {
        stored.summary.segment == seal.segment && stored.summary.nonce == seal.nonce
    }))
}

/// Checks the whole footer of a sealed segment and answers its summary, with sorted shares; `None` when damaged.
/// Holds a piece of the extents at a time.
pub(in crate::store::local) fn check_footer(
    file: &dyn DiskFile,
    seal: &Seal,
) -> Result<Option<StoredSummary>, IoError> {
    visit_pieces(file, seal, &mut |_| {})
}

/// Visits the extents of a sealed segment, sorted; `false` when the footer is damaged, which shows only after
/// they were visited.
pub(in crate::store::local) fn visit_extents(
    file: &dyn DiskFile,
    seal: &Seal,
    visit: &mut dyn FnMut(PartitionId, Place),
) -> Result<bool, IoError> {
    let stored = visit_pieces(file, seal, &mut |piece| {
        for (partition, place) in decode_rows(seal.segment, piece) {
            visit(partition, place);
        }
    });
    Ok(stored?.is_some())
}

fn visit_pieces(
    file: &dyn DiskFile,
    seal: &Seal,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<Option<StoredSummary>, IoError> {
    let Some(mut stored) = read_summary(file, seal)? else {
        return Ok(None);
    };
    let summary_bytes = u64::from(seal.summary_bytes);
    let Some(extents_bytes) = seal.footer_bytes.checked_sub(summary_bytes) else {
        return Ok(None);
    };
    let (mut at, mut left) = (seal.footer_position + summary_bytes, extents_bytes);
    let mut crc = crc32fast::Hasher::new();
    while left > 0 {
        let Some(piece) = read_bytes(file, at, left.min(PIECE))? else {
            return Ok(None);
        };
        crc.update(&piece);
        visit(&piece);
        at += piece.len() as u64;
        left -= piece.len() as u64;
    }
    if !stored.is_of(extents_bytes, crc.finalize()) {
        return Ok(None);
    }
    let shares = &mut stored.summary.shares;
    shares.sort_unstable_by_key(|(partition, _)| *partition);
    Ok(Some(stored))
}

/// The whole footer of a sealed segment; `None` when damaged.
pub(in crate::store::local) fn read_footer(
    file: &dyn DiskFile,
    seal: &Seal,
) -> Result<Option<Footer>, IoError> {
    let Some(stored) = read_summary(file, seal)? else {
        return Ok(None);
    };
    let summary_bytes = u64::from(seal.summary_bytes);
    let Some(extents_bytes) = seal.footer_bytes.checked_sub(summary_bytes) else {
        return Ok(None);
    };
    let position = seal.footer_position.saturating_add(summary_bytes);
    let bytes = read_bytes(file, position, extents_bytes)?;
    let extents = bytes.and_then(|bytes| stored.decode_extents(&bytes));
    Ok(extents.map(|extents| (stored, extents)))
}
