//! One partition's records between the broker and the application.

use std::collections::VecDeque;

use falcon_protocol::batch::{RecordView, Records};
use falcon_protocol::message::{Delivery, StartPosition};
use falcon_protocol::{Batch, BatchError, Offset, PartitionId};

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Place {
    /// The broker will say which offset this is.
    Start(StartPosition),
    /// The next record to hand out.
    At(Offset),
}

/// What to ask the broker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Want {
    /// Which offset this is.
    Place(StartPosition),
    /// Records from this offset on, about so many bytes.
    Records { offset: Offset, bytes_max: u32 },
}

/// A batch that is checked and being handed out.
pub(in crate::consumer) struct Open {
    records: Records,
    end: Offset,
    pub(super) append_time_ms: i64,
}

/// What comes next.
pub(super) enum Next {
    /// This record, appended at this time.
    Record(RecordView, i64),
    /// A batch has been handed out; there are more, or not.
    BatchEnd,
    /// Check this batch, and say what is in it.
    Check(Batch),
    /// The records cannot be read.
    Damaged(BatchError),
    /// Nothing is there.
    Nothing,
}

pub(super) struct Queue {
    place: Place,
    /// The next offset to fetch.
    fetched: Offset,
    /// Records before this one may be missing.
    skip: Option<Offset>,
    /// Grows with each jump; answers to what was asked before are not taken.
    pub(super) version: u64,
    batches: VecDeque<Batch>,
    /// Of `batches` and of the one that is open.
    bytes: u64,
    open_bytes: u64,
    open: Option<Open>,
    /// Whether a request is under way, or a wait.
    pub(super) is_asking: bool,
    pub(super) high_watermark: Option<Offset>,
}

impl Queue {
    pub(super) fn new(place: Place) -> Self {
        let mut queue = Self {
            place,
            fetched: Offset::ZERO,
            skip: None,
            version: 0,
            batches: VecDeque::new(),
            bytes: 0,
            open_bytes: 0,
            open: None,
            is_asking: false,
            high_watermark: None,
        };
        queue.jump(place);
        queue
    }

    /// Goes on from another place; what is buffered is dropped.
    pub(super) fn jump(&mut self, place: Place) {
        self.place = place;
        if let Place::At(offset) = place {
            self.fetched = offset;
        }
        self.version += 1;
        self.drop_buffer();
        self.is_asking = false;
    }

    fn drop_buffer(&mut self) {
        self.batches.clear();
        (self.open, self.skip) = (None, None);
        (self.bytes, self.open_bytes) = (0, 0);
    }

    /// The next offset to hand out, once known.
    pub(super) const fn position(&self) -> Option<Offset> {
        match self.place {
            Place::At(offset) => Some(offset),
            Place::Start(_) => None,
        }
    }

    /// Whether there may be something to hand out.
    pub(super) fn has_records(&self) -> bool {
        self.open.is_some() || !self.batches.is_empty()
    }

    /// Records behind the position, as last heard.
    pub(super) fn lag(&self) -> u64 {
        match (self.position(), self.high_watermark) {
            (Some(position), Some(end)) => end.get().saturating_sub(position.get()),
            (Some(_) | None, _) => 0,
        }
    }

    pub(super) fn is_caught_up(&self) -> bool {
        let known = self.position().zip(self.high_watermark);
        known.is_some_and(|(position, end)| position >= end)
    }

    /// What to ask for, when at most `share` bytes shall be buffered; then it is being asked.
    pub(super) fn ask(&mut self, share: u64) -> Option<Want> {
        if self.is_asking || self.bytes > share / 2 {
            return None;
        }
        self.is_asking = true;
        Some(match self.place {
            Place::Start(start) => Want::Place(start),
            Place::At(_) => Want::Records {
                offset: self.fetched,
                bytes_max: u32::try_from(share - self.bytes).unwrap_or(u32::MAX),
            },
        })
    }

    /// Takes in what the broker sent for what was asked last. `Err`: the bytes make no sense.
    pub(super) fn accept(&mut self, delivery: Delivery) -> Result<(), BatchError> {
        self.is_asking = false;
        self.high_watermark = Some(delivery.high_watermark);
        let mut rest = delivery.batches;
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest)?;
            self.fetched = self.fetched.max(batch.header().end_offset());
            self.bytes += batch.bytes().len() as u64;
            self.batches.push_back(batch);
        }
        Ok(())
    }

    /// There is nothing to fetch before this offset; what is buffered is handed out first.
    pub(super) fn skip_to(&mut self, offset: Offset) {
        self.fetched = self.fetched.max(offset);
        self.skip = Some(self.fetched);
    }

    /// The start is this offset.
    pub(super) fn placed(&mut self, offset: Offset) {
        self.is_asking = false;
        if let Place::Start(_) = self.place {
            self.place = Place::At(offset);
            self.fetched = offset;
        }
    }

    /// The next record, or what keeps it from being known.
    pub(super) fn next(&mut self) -> Next {
        let Place::At(position) = self.place else {
            return Next::Nothing;
        };
        let Some(open) = &mut self.open else {
            return if let Some(batch) = self.batches.pop_front() {
                self.open_bytes = batch.bytes().len() as u64;
                Next::Check(batch)
            } else {
                if let Some(skip) = self.skip.take() {
                    self.place = Place::At(position.max(skip));
                }
                Next::Nothing
            };
        };
        for record in open.records.by_ref() {
            match record {
                Ok(view) if view.offset < position => {}
                Ok(view) => {
                    self.place = Place::At(view.offset.advance(1));
                    return Next::Record(view, open.append_time_ms);
                }
                Err(damage) => return Next::Damaged(damage),
            }
        }
        self.place = Place::At(position.max(open.end));
        self.close_batch();
        Next::BatchEnd
    }

    fn close_batch(&mut self) {
        self.open = None;
        self.bytes = self
            .bytes
            .saturating_sub(std::mem::take(&mut self.open_bytes));
    }

    /// A batch was checked. `Some`: records are missing before it.
    pub(super) fn opened(&mut self, open: Open, base: Offset) -> Option<core::ops::Range<Offset>> {
        let position = self.position()?;
        if base > position && self.skip.is_none_or(|skip| base > skip) {
            self.close_batch();
            return Some(position..base);
        }
        self.open = Some(open);
        None
    }
}

/// Checks a batch: body, stamp, place.
pub(super) fn open(batch: &Batch, partition: PartitionId) -> Result<Open, BatchError> {
    batch.verify_in(partition)?;
    Ok(Open {
        records: batch.records()?,
        end: batch.header().end_offset(),
        append_time_ms: batch.header().append_time_ms,
    })
}
