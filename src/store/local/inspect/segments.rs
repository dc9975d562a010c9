//! Headers, seal slots, footers, and the chain of segments.

use std::collections::{BTreeMap, BTreeSet};

use falcon_protocol::PartitionId;

use super::{Finding, FindingKind, Inspection};
use crate::io::DiskFile;
use crate::store::local::OpenError;
use crate::store::local::index::Place;
use crate::store::local::journal::segment::{
    HEADER_BYTES, HeaderError, SEAL_POSITION, Seal, SegmentHeader,
};
use crate::store::local::recovery::{FlawKind, Survey, read_footer};
use crate::store::local::segments::{SegmentInfo, Segments};

fn header_block(file: &dyn DiskFile) -> Result<Vec<u8>, OpenError> {
    let mut block = vec![0; usize::try_from(HEADER_BYTES).unwrap_or(4096)];
    let read = file.read_at(0, &mut block)?;
    block.truncate(read);
    Ok(block)
}

/// Takes segments of other journals out of `numbers` and answers which journal this is: the one of
/// IDENTITY, else the one of the first whole header.
pub(super) fn check_headers(
    segments: &Segments,
    numbers: &mut Vec<u64>,
    mut journal_id: Option<u128>,
    findings: &mut Vec<Finding>,
) -> Result<Option<u128>, OpenError> {
    let root = segments.dir().parent().unwrap_or(segments.dir());
    let is_identity_missing = journal_id.is_none() && findings.is_empty() && !numbers.is_empty();
    let mut ours = Vec::with_capacity(numbers.len());
    for number in numbers.iter().copied() {
        let path = segments.path(number);
        let file = segments.handle(number)?;
        match SegmentHeader::decode(&header_block(file.as_ref())?) {
            Ok(header) => {
                let id = *journal_id.get_or_insert(header.journal_id);
                if id != header.journal_id || header.segment != number {
                    findings.push(Finding::new(root, &path, FindingKind::SegmentForeign));
                    continue;
                }
            }
            Err(HeaderError::Newer(format)) => {
                let format = u32::from(format);
                return Err(OpenError::NewerFormat { path, format });
            }
            Err(HeaderError::Damaged) => {
                findings.push(Finding::new(root, &path, FindingKind::SegmentHeader).at(0));
            }
        }
        ours.push(number);
    }
    if is_identity_missing {
        let path = root.join(super::IDENTITY);
        findings.push(Finding::new(root, &path, FindingKind::IdentityMissing));
    }
    *numbers = ours;
    Ok(journal_id)
}

/// In a damaged segment a whole footer knows better where batches are than a search: it finds those
/// whose entry is damaged and not they themselves. A broker reads by it too.
pub(super) fn prefer_footers(segments: &Segments, found: &mut Survey) -> Result<(), OpenError> {
    let damaged: BTreeSet<u64> = found.flaws.iter().map(|flaw| flaw.segment).collect();
    for number in damaged {
        let Some(info) = found.infos.get(&number) else {
            continue;
        };
        let file = segments.handle(number)?;
        let seal = Seal::decode(&header_block(file.as_ref())?);
        let Some(seal) = seal.filter(|seal| is_of(seal, number, info)) else {
            continue;
        };
        if let Some((_, extents)) = read_footer(file.as_ref(), &seal)? {
            found.memory.remove(number);
            for (partition, place) in extents {
                found.memory.insert(partition, place);
            }
        }
    }
    Ok(())
}

fn is_of(seal: &Seal, number: u64, info: &SegmentInfo) -> bool {
    seal.segment == number && (info.is_header_damaged || seal.nonce == info.nonce)
}

impl Inspection {
    /// Seal slots and footers against what the segments hold, and segments against each other.
    pub(super) fn check_segments(&self, found: &mut Vec<Finding>) -> Result<(), OpenError> {
        let mut before: Option<(u64, u64)> = None;
        for (number, info) in &self.infos {
            let path = self.segments.path(*number);
            if let Some((previous, expected)) = before
                && previous + 1 == *number
                && info.first_seq != expected
            {
                let (expected, found_seq) = (expected, info.first_seq);
                let kind = FindingKind::Sequence {
                    expected,
                    found: found_seq,
                };
                found.push(self.finding(&path, kind).at(HEADER_BYTES));
            }
            before = Some((*number, info.end_seq));
            let file = self.segments.handle(*number)?;
            let block = header_block(file.as_ref())?;
            let slot = usize::try_from(SEAL_POSITION).unwrap_or(512);
            let slot = block.get(slot..).unwrap_or_default();
            let is_empty = slot.iter().all(|byte| *byte == 0);
            if is_empty {
                continue;
            }
            let seal = Seal::decode(&block).filter(|seal| is_of(seal, *number, info));
            let Some(seal) = seal else {
                found.push(self.finding(&path, FindingKind::Seal).at(SEAL_POSITION));
                continue;
            };
            let kind = match read_footer(file.as_ref(), &seal)? {
                None => FindingKind::Footer,
                Some((stored, extents)) => {
                    let is_end = seal.groups_end == info.groups_end && seal.end_seq == info.end_seq;
                    let mut shares = stored.summary.shares;
                    shares.sort_unstable_by_key(|(partition, _)| *partition);
                    let mut held = info.shares.clone();
                    held.sort_unstable_by_key(|(partition, _)| *partition);
                    let is_same = is_end && shares == held && self.holds(*number, &extents);
                    // Where bytes are damaged the segment holds less than it did.
                    if is_same || self.is_damaged(*number) {
                        continue;
                    }
                    FindingKind::FooterContent
                }
            };
            found.push(self.finding(&path, kind).at(seal.footer_position));
        }
        Ok(())
    }

    fn is_damaged(&self, segment: u64) -> bool {
        let is_here = |flaw: &crate::store::local::recovery::Flaw| {
            flaw.segment == segment && !matches!(flaw.kind, FlawKind::Batch(_))
        };
        self.flaws.iter().any(is_here)
    }

    /// Whether a segment holds exactly these extents.
    fn holds(&self, segment: u64, extents: &[(PartitionId, Place)]) -> bool {
        let held = self.memory.of_segment(segment);
        let by_place = |list: &[(PartitionId, Place)]| -> BTreeMap<_, _> {
            let entry = |(id, place): &(PartitionId, Place)| ((*id, place.position), plain(*place));
            list.iter().map(entry).collect()
        };
        held.len() == extents.len() && by_place(&held) == by_place(extents)
    }
}

/// A place as footers and the index hold it: they do not say what is a copy, which only replay
/// has to know.
pub(super) const fn plain(place: Place) -> Place {
    Place {
        is_copy: false,
        ..place
    }
}
