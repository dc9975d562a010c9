//! Header blocks: whose a segment is, in which format, and where its footer is.

use super::survey::{Given, warn_unreadable};
use crate::io::DiskFile;
use crate::store::local::OpenError;
use crate::store::local::journal::scan::Scan;
use crate::store::local::journal::segment::{HEADER_BYTES, HeaderError, Seal, SegmentHeader};
use crate::store::local::segments::Segments;

/// One segment's header block.
pub(super) struct Head {
    pub(super) header: Option<SegmentHeader>,
    pub(super) seal: Option<Seal>,
}

/// Refuses a folder with segments of another journal or of a newer format, before anything in it
/// is changed.
pub(in crate::store::local) fn check_heads(
    segments: &Segments,
    journal_id: u128,
    numbers: &[u64],
) -> Result<(), OpenError> {
    for number in numbers {
        let file = segments.handle(*number)?;
        our_header(segments, journal_id, *number, file.as_ref())?;
    }
    Ok(())
}

/// A block that the device refuses counts as damaged.
fn read_block(number: u64, file: &dyn DiskFile) -> Vec<u8> {
    let mut block = vec![0; usize::try_from(HEADER_BYTES).unwrap_or(4096)];
    if let Err(error) = file.read_at(0, &mut block) {
        warn_unreadable(number, &error);
        block.fill(0);
    }
    block
}

/// The header block and the header in it; `None`: the header is damaged.
fn our_header(
    segments: &Segments,
    journal_id: u128,
    number: u64,
    file: &dyn DiskFile,
) -> Result<(Vec<u8>, Option<SegmentHeader>), OpenError> {
    let path = segments.path(number);
    let block = read_block(number, file);
    match SegmentHeader::decode(&block) {
        Ok(header) if header.journal_id != journal_id => Err(OpenError::ForeignSegment { path }),
        Ok(header) if header.segment != number => {
            // The header of another segment, which the device wrote here, or the file of another. That one
            // is elsewhere then; it may have overwritten all groups of a small segment.
            let is_overwritten = Scan::new(file, number, None)?.has_group()
                || segments.handle(header.segment).is_ok();
            let found = is_overwritten.then_some((block, None));
            found.ok_or(OpenError::ForeignSegment { path })
        }
        Ok(header) => Ok((block, Some(header))),
        Err(HeaderError::Newer(format)) => {
            let format = u32::from(format);
            Err(OpenError::NewerFormat { path, format })
        }
        Err(HeaderError::Damaged) => Ok((block, None)),
    }
}

pub(super) fn read_head(
    given: Given<'_>,
    number: u64,
    file: &dyn DiskFile,
) -> Result<Head, OpenError> {
    let (block, header) = our_header(given.segments, given.journal_id, number, file)?;
    if header.is_none() {
        tracing::warn!(segment = number, "the segment's header is damaged");
    }
    let is_ours = |seal: &Seal| {
        seal.segment == number && header.is_none_or(|header| header.nonce == seal.nonce)
    };
    let seal = Seal::decode(&block).filter(is_ours);
    Ok(Head { header, seal })
}
