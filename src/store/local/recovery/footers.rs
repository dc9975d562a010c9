//! Reading footers, trusting none of their lengths.

use falcon_protocol::PartitionId;

use crate::io::{DiskFile, IoError};
use crate::store::local::index::Place;
use crate::store::local::journal::footer::StoredSummary;
use crate::store::local::journal::segment::Seal;

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
pub(super) fn read_summary(
    file: &dyn DiskFile,
    seal: &Seal,
) -> Result<Option<StoredSummary>, IoError> {
    let bytes = read_bytes(file, seal.footer_position, u64::from(seal.summary_bytes))?;
    let stored = bytes.as_deref().and_then(StoredSummary::decode);
    Ok(stored.filter(|stored| {
        stored.summary.segment == seal.segment && stored.summary.nonce == seal.nonce
    }))
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
