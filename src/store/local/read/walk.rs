//! Walking the batches of an extent and taking those that are wanted.

use std::ops::Range;

use bytes::Bytes;
use falcon_protocol::batch::BATCH_HEADER_BYTES;
use falcon_protocol::{Batch, BatchHeader, Offset, PartitionId};

use super::recent::Claim;
use crate::io::DiskFile;
use crate::store::local::cache::{Part, is_most_of};
use crate::store::local::index::Place;

/// Least and most bytes fetched at once, unless one batch needs more.
const FETCH_BYTES: Range<usize> = 4 << 10..512 << 10;
/// Fetched where extents are small and lie scattered.
const FETCH_SMALL_BYTES: usize = 64 << 10;
/// The bytes are not the batches that the index promises, or the device refuses them or those
/// fetched along with them.
#[derive(Debug)]
pub(super) struct Anomaly;

/// Collects whole batches until there are enough.
#[derive(Debug)]
pub(super) struct Taker {
    partition: PartitionId,
    wanted: Range<Offset>,
    bytes_left: usize,
    runs: Vec<Bytes>,
    /// Which runs are parts of what was fetched last.
    fetched: Vec<usize>,
    is_full: bool,
    /// What is fetched at once.
    ahead: usize,
}

/// What to do with a batch.
enum Verdict {
    Skip,
    Take,
    Enough,
}

impl Taker {
    pub(super) fn new(partition: PartitionId, wanted: Range<Offset>, bytes_max: usize) -> Self {
        Self {
            partition,
            wanted,
            bytes_left: bytes_max,
            runs: Vec::new(),
            fetched: Vec::new(),
            is_full: false,
            ahead: bytes_max.clamp(FETCH_BYTES.start, FETCH_SMALL_BYTES),
        }
    }

    /// First offset not yet taken.
    pub(super) fn next(&self) -> Offset {
        self.wanted.start
    }

    pub(super) fn end(&self) -> Offset {
        self.wanted.end
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Up to which size another extent is worth beginning: all of it fits, or to read its start once more
    /// costs little.
    pub(super) fn room(&self) -> usize {
        self.bytes_left.max(FETCH_SMALL_BYTES)
    }

    /// Whether nothing was taken yet.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Notes that what is wanted reaches from an extent to `end`; answers how much is fetched at once.
    pub(super) fn plan_fetch(&mut self, first: &Place, end: u64) -> usize {
        let bytes = usize::try_from(end.saturating_sub(first.position)).unwrap_or(usize::MAX);
        let small = self.bytes_left.min(FETCH_SMALL_BYTES);
        // One batch may be larger than what is fetched otherwise; it is wanted whole.
        let most = FETCH_BYTES.end.max(first.extent.bytes as usize);
        self.ahead = bytes.max(small).clamp(FETCH_BYTES.start, most);
        self.ahead
    }

    pub(super) fn wants_more(&self) -> bool {
        !self.is_full && self.wanted.start < self.wanted.end
    }

    pub(super) fn into_batches(self) -> Vec<Bytes> {
        self.runs
    }

    /// Takes one batch, which was checked, out of what was fetched last.
    fn take_fetched(&mut self, header: &BatchHeader, bytes: Bytes) {
        self.fetched.push(self.runs.len());
        self.take(header, bytes);
    }

    /// The last that is taken out of `window`. Who pays for what was taken keeps no more: if that is not most of it, it
    /// gets memory of its own.
    pub(super) fn settle(&mut self, window: &Window<'_>) {
        let fetched = std::mem::take(&mut self.fetched);
        let run_bytes = |run: &usize| self.runs.get(*run).map_or(0, Bytes::len);
        if is_most_of(fetched.iter().map(run_bytes).sum(), window.bytes.len()) {
            return;
        }
        for run in fetched {
            if let Some(run) = self.runs.get_mut(run) {
                *run = Bytes::copy_from_slice(run);
            }
        }
    }

    fn judge(&mut self, header: &BatchHeader) -> Verdict {
        if header.end_offset() <= self.wanted.start {
            return Verdict::Skip;
        }
        let bytes = header.batch_bytes as usize;
        let is_over = bytes > self.bytes_left && !self.runs.is_empty();
        if is_over || header.end_offset() > self.wanted.end {
            self.is_full = true;
            return Verdict::Enough;
        }
        Verdict::Take
    }

    /// Takes one batch, which was checked.
    fn take(&mut self, header: &BatchHeader, bytes: Bytes) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len());
        self.is_full = self.bytes_left == 0;
        self.wanted.start = header.end_offset();
        self.runs.push(bytes);
    }

    /// Takes a batch if it is wanted; answers whether to go on.
    pub(super) fn offer(&mut self, header: &BatchHeader, bytes: &[u8]) -> bool {
        match self.judge(header) {
            Verdict::Skip => true,
            Verdict::Take => {
                // The rest of what it came with is not to be kept for it.
                self.take(header, Bytes::copy_from_slice(bytes));
                self.wants_more()
            }
            Verdict::Enough => false,
        }
    }

    /// Takes from an extent in memory, as one run of batches.
    pub(super) fn take_cached(&mut self, place: &Place, part: &Part) -> Result<(), Anomaly> {
        let extent = part.bytes();
        let mut run = 0..0;
        let mut at = 0;
        let mut expected = place.extent.base_offset;
        let before = self.runs.len();
        while let Some(rest) = extent.get(at..).filter(|rest| !rest.is_empty()) {
            let header = BatchHeader::decode(rest).map_err(|_| Anomaly)?;
            let end = at + header.batch_bytes as usize;
            if header.base_offset != expected || end > extent.len() {
                return Err(Anomaly);
            }
            expected = header.end_offset();
            match self.judge(&header) {
                Verdict::Skip => run = end..end,
                Verdict::Take => {
                    // One empty run stands for the whole; it is filled in below.
                    if self.runs.len() == before {
                        self.runs.push(Bytes::new());
                    }
                    self.bytes_left = self.bytes_left.saturating_sub(end - at);
                    self.is_full = self.bytes_left == 0;
                    self.wanted.start = expected;
                    run.end = end;
                }
                Verdict::Enough => break,
            }
            if !self.wants_more() {
                break;
            }
            at = end;
        }
        if let Some(filled) = self.runs.get_mut(before) {
            *filled = part.keep(run);
        }
        Ok(())
    }
}

/// The last bytes fetched, for small extents that lie near each other.
pub(super) struct Window<'a> {
    segment: u64,
    position: u64,
    bytes: Bytes,
    /// Extents of it that were checked, to their ends.
    checked: Vec<(u64, u32)>,
    /// Others wait for what is read under it.
    claim: Option<Claim<'a>>,
    /// Told when what follows may be read too.
    tell: &'a mut dyn FnMut(),
}

impl<'a> Window<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut()) -> Self {
        Self {
            segment: 0,
            position: 0,
            bytes: Bytes::new(),
            checked: Vec::new(),
            claim: None,
            tell,
        }
    }

    /// Forgets what was fetched; who waits for it gets what was checked. Answers whether somebody keeps that.
    pub(super) fn give_up(&mut self) -> bool {
        let is_kept = self.share();
        self.claim = None;
        self.bytes = Bytes::new();
        is_kept
    }

    /// What is fetched from now on is read for others too.
    pub(super) fn read_under(&mut self, claim: Claim<'a>) {
        self.claim = Some(claim);
    }

    /// Whether an extent was fetched already.
    pub(super) fn has(&self, place: &Place) -> bool {
        let bytes = place.extent.bytes as usize;
        place.segment == self.segment && self.range_of(place.position, bytes).is_some()
    }

    fn share(&mut self) -> bool {
        let checked = std::mem::take(&mut self.checked);
        let at = (self.segment, self.position);
        let claim = self.claim.as_ref();
        claim.is_some_and(|claim| claim.share(at, &self.bytes, checked))
    }

    fn range_of(&self, position: u64, bytes: usize) -> Option<Range<usize>> {
        let skip = usize::try_from(position.checked_sub(self.position)?).ok()?;
        let end = skip.checked_add(bytes)?;
        (end <= self.bytes.len()).then_some(skip..end)
    }

    /// `bytes` bytes at a position, or fewer at the end of the file; fetches what the taker foresees where it must.
    fn fetch(
        &mut self,
        file: &dyn DiskFile,
        (segment, position): (u64, u64),
        bytes: usize,
        taker: &mut Taker,
    ) -> Result<Bytes, Anomaly> {
        if segment == self.segment
            && let Some(range) = self.range_of(position, bytes)
        {
            return Ok(self.bytes.slice(range));
        }
        taker.settle(self);
        self.share();
        (self.tell)();
        let fetched = file.fetch(position, bytes.max(taker.ahead));
        self.bytes = fetched.map_err(|_| Anomaly)?;
        (self.segment, self.position) = (segment, position);
        Ok(self.bytes.slice(..bytes.min(self.bytes.len())))
    }
}

/// Takes what is wanted from an extent on the device. Every batch taken is checked; those skipped
/// must at least follow each other densely.
pub(super) fn read_extent(
    file: &dyn DiskFile,
    place: &Place,
    taker: &mut Taker,
    window: &mut Window<'_>,
) -> Result<(), Anomaly> {
    let end = place.position + u64::from(place.extent.bytes);
    let mut position = place.position;
    let mut expected = place.extent.base_offset;
    let mut is_checked = true;
    while position < end && taker.wants_more() {
        let at = (place.segment, position);
        let head = window.fetch(file, at, BATCH_HEADER_BYTES, taker)?;
        let header = BatchHeader::decode(&head).map_err(|_| Anomaly)?;
        let next = position + u64::from(header.batch_bytes);
        let is_outside = next > end || header.end_offset() > place.extent.end_offset();
        if header.base_offset != expected || is_outside {
            return Err(Anomaly);
        }
        let verdict = taker.judge(&header);
        // A damaged record count must not pass for a batch that ends after what is wanted: before
        // an empty answer, the batch is checked.
        let is_answer = match verdict {
            Verdict::Take => true,
            Verdict::Enough => taker.runs.is_empty(),
            Verdict::Skip => false,
        };
        if is_answer {
            let bytes = window.fetch(file, at, header.batch_bytes as usize, taker)?;
            let batch = Batch::from_bytes(bytes).map_err(|_| Anomaly);
            let checked = batch.and_then(|batch| {
                let checked = batch.verify_in(taker.partition);
                checked.map_err(|_| Anomaly)?;
                Ok(batch)
            });
            let batch = checked.inspect_err(|_| taker.is_full = false)?;
            if matches!(verdict, Verdict::Take) {
                taker.take_fetched(&header, batch.bytes().clone());
            }
        }
        is_checked &= matches!(verdict, Verdict::Take);
        if matches!(verdict, Verdict::Enough) {
            break;
        }
        expected = header.end_offset();
        position = next;
    }
    // An extent that ends early would be looked up again for ever.
    let is_short = position >= end && expected != place.extent.end_offset();
    if is_short {
        return Err(Anomaly);
    }
    if is_checked && position >= end && window.has(place) {
        window.checked.push((place.position, place.extent.bytes));
    }
    Ok(())
}
