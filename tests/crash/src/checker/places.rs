//! Where each value is stored: 6 bytes for each, nothing else grows with the history.

use std::collections::HashMap;
use std::fmt;

use crate::error::CrashError;
use crate::history::{Entry, ValueId};

const NOWHERE: u32 = u32::MAX;

/// A partition and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    partition: u16,
    offset: u32,
}

impl Place {
    /// `None` beyond the limit of offsets.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let offset = u32::try_from(entry.offset).ok();
        let offset = offset.filter(|offset| *offset != NOWHERE)?;
        Some(Self {
            partition: entry.partition,
            offset,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of partition {}", self.offset, self.partition)
    }
}

#[derive(Debug, Default)]
struct Publisher {
    values: u64,
    sequence_end: u64,
    offsets: Vec<u32>,
    partitions: Vec<u16>,
}

/// The place of every value of every publisher.
#[derive(Debug, Default)]
pub(super) struct Places {
    publishers: HashMap<u32, Publisher>,
}

impl Places {
    /// A value was sent.
    pub(super) fn announce(&mut self, value: ValueId) {
        let publisher = self.publishers.entry(value.publisher).or_default();
        publisher.values += 1;
        publisher.sequence_end = publisher.sequence_end.max(u64::from(value.sequence) + 1);
    }

    /// All values were announced: makes room for their places.
    pub(super) fn settle(&mut self) -> Result<(), CrashError> {
        for (number, publisher) in &mut self.publishers {
            // ORDER: checked before the allocation, which so is bounded by the history's length.
            if publisher.values != publisher.sequence_end {
                return Err(CrashError::Malformed(format!(
                    "publisher {number} has {} entries for sequences up to {}",
                    publisher.values, publisher.sequence_end
                )));
            }
            let values = usize::try_from(publisher.values).unwrap_or(usize::MAX);
            publisher.offsets = vec![NOWHERE; values];
            publisher.partitions = vec![0; values];
        }
        Ok(())
    }

    /// Whether somebody sent it.
    pub(super) fn is_known(&self, value: ValueId) -> bool {
        let publisher = self.publishers.get(&value.publisher);
        publisher.is_some_and(|known| u64::from(value.sequence) < known.sequence_end)
    }

    /// Where it is.
    pub(super) fn find(&self, value: ValueId) -> Option<Place> {
        let publisher = self.publishers.get(&value.publisher)?;
        let at = value.sequence as usize;
        let offset = *publisher.offsets.get(at)?;
        let partition = *publisher.partitions.get(at)?;
        (offset != NOWHERE).then_some(Place { partition, offset })
    }

    /// Notes where a value is, or answers where it was found before.
    pub(super) fn put(&mut self, value: ValueId, place: Place) -> Option<Place> {
        let first = self.find(value);
        if first.is_some() {
            return first;
        }
        let at = value.sequence as usize;
        if let Some(publisher) = self.publishers.get_mut(&value.publisher)
            && let (Some(offset), Some(partition)) = (
                publisher.offsets.get_mut(at),
                publisher.partitions.get_mut(at),
            )
        {
            *offset = place.offset;
            *partition = place.partition;
        }
        None
    }
}
