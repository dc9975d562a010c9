//! What a step writes, by partition: one batch each.

use std::collections::{BTreeMap, HashMap};

use falcon_protocol::limits::STEP_BATCHES_MAX;
use falcon_protocol::partitioner::partition_for_key;
use falcon_protocol::{Offset, Partition, PartitionId, Record};

use crate::error::{Error, StepError};
use crate::topics::TopicMeta;

/// Which partition a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// That of its key.
    ByKey,
    /// This one.
    Partition(Partition),
}

/// A record of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) topic: String,
    target: Target,
    record: Record,
    pub(super) expected: Option<Offset>,
}

impl Part {
    pub(super) const fn new(topic: String, target: Target, record: Record) -> Self {
        Self {
            topic,
            target,
            record,
            expected: None,
        }
    }
}

/// A batch of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) topic: String,
    pub(super) partition: PartitionId,
    pub(super) expected: Option<Offset>,
    pub(super) records: Vec<Record>,
}

/// The batches of a step, and where each record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) batches: Vec<Planned>,
    /// For each record as added: its batch, and its place in it.
    pub(super) places: Vec<(usize, u32)>,
}

/// Sorts records by partition. `random` chooses the partition of those without a key.
pub(super) fn arrange(
    parts: &[Part],
    topics: &HashMap<String, TopicMeta>,
    random: u32,
) -> Result<Plan, StepError> {
    let mut batches: Vec<Planned> = Vec::new();
    let mut places = Vec::with_capacity(parts.len());
    let mut known: BTreeMap<PartitionId, usize> = BTreeMap::new();
    for part in parts {
        let meta = topics.get(&part.topic).ok_or_else(|| Error::UnknownTopic {
            topic: part.topic.clone(),
        })?;
        let partition = PartitionId {
            topic: meta.id,
            partition: choose(part, *meta, random)?,
        };
        let index = *known.entry(partition).or_insert(batches.len());
        if index == batches.len() {
            batches.push(Planned {
                topic: part.topic.clone(),
                partition,
                expected: None,
                records: Vec::new(),
            });
        }
        let Some(batch) = batches.get_mut(index) else {
            continue;
        };
        expect(batch, part.expected)?;
        let place = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        places.push((index, place));
        batch.records.push(part.record.clone());
    }
    if batches.len() > STEP_BATCHES_MAX {
        return Err(StepError::TooManyPartitions {
            partitions: batches.len(),
            max: STEP_BATCHES_MAX,
        });
    }
    Ok(Plan { batches, places })
}

fn choose(part: &Part, meta: TopicMeta, random: u32) -> Result<Partition, Error> {
    match (part.target, &part.record.key) {
        (Target::Partition(partition), _) if partition.0 < meta.partitions => Ok(partition),
        (Target::Partition(partition), _) => Err(Error::UnknownPartition {
            topic: part.topic.clone(),
            partition: partition.0,
            partitions: meta.partitions,
        }),
        (Target::ByKey, Some(key)) => Ok(partition_for_key(key, meta.partitions)),
        (Target::ByKey, None) => Ok(Partition(random % meta.partitions.max(1))),
    }
}

/// A partition has one next offset: that before the step's first record for it.
fn expect(batch: &mut Planned, expected: Option<Offset>) -> Result<(), Error> {
    match (batch.expected, expected) {
        (_, None) => Ok(()),
        (Some(earlier), Some(now)) if earlier != now => Err(Error::InvalidOption {
            option: "expect_offset",
            reason: "two records of one partition expect different offsets; it is the offset of the first",
        }),
        (_, Some(now)) => {
            batch.expected = Some(now);
            Ok(())
        }
    }
}
