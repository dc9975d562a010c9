use std::collections::HashMap;

use falcon_protocol::{Batch, Offset, Partition, PartitionId, ProducerId, Record, TopicId};

use super::lane::Lane;
use super::plan::{Part, Plan, Target, arrange};
use crate::error::{Error, StepError};
use crate::identity::Identity;
use crate::topics::TopicMeta;

fn topics() -> HashMap<String, TopicMeta> {
    let meta = |id, partitions| TopicMeta {
        id: TopicId(id),
        partitions,
    };
    HashMap::from([
        ("charges".to_owned(), meta(1, 4)),
        ("ledger".to_owned(), meta(2, 1)),
    ])
}

fn part(topic: &str, target: Target, value: &'static str) -> Part {
    Part::new(topic.to_owned(), target, Record::new(value))
}

fn to(partition: u32) -> Target {
    Target::Partition(Partition(partition))
}

fn plan(parts: &[Part]) -> Result<Plan, StepError> {
    arrange(parts, &topics(), 6)
}

#[test]
fn records_of_a_partition_make_one_batch_in_their_order() {
    let plan = plan(&[
        part("charges", to(3), "a"),
        part("ledger", to(0), "b"),
        part("charges", to(3), "c"),
        part("charges", Target::ByKey, "d"),
    ])
    .unwrap();
    let partitions: Vec<PartitionId> = plan.batches.iter().map(|b| b.partition).collect();
    let expected = [(1, 3), (2, 0), (1, 2)].map(|(topic, number)| PartitionId::new(topic, number));
    assert_eq!(partitions, expected);
    assert_eq!(plan.places, [(0, 0), (1, 0), (0, 1), (2, 0)]);
}

#[test]
fn a_partition_that_is_not_there_and_two_expectations_are_refused_here() {
    let missing = plan(&[part("ledger", to(1), "a")]);
    assert!(matches!(
        missing,
        Err(StepError::Client(Error::UnknownPartition { .. }))
    ));
    let mut first = part("ledger", to(0), "a");
    let mut second = first.clone();
    first.expected = Some(Offset(3));
    assert_eq!(
        plan(&[first.clone(), second.clone()]).unwrap().batches[0].expected,
        Some(Offset(3))
    );
    second.expected = Some(Offset(4));
    assert!(matches!(
        plan(&[first, second]),
        Err(StepError::Client(Error::InvalidOption { .. }))
    ));
}

/// First sequence of each batch.
fn sequences(lane: &Lane, plan: &Plan) -> Vec<u64> {
    let batches = lane.lay_out(plan, 1 << 20, 0).unwrap();
    let headers = batches
        .into_iter()
        .map(|batch| *Batch::from_bytes(batch).unwrap().header());
    headers
        .map(|header| header.producer.base_sequence)
        .collect()
}

#[test]
fn only_a_step_that_happened_uses_sequences_up() {
    let mut lane = Lane::new(0);
    let identity = Identity {
        id: ProducerId(7),
        epoch: 1,
    };
    lane.adopt(identity);
    let both = plan(&[
        part("charges", to(3), "a"),
        part("charges", to(3), "b"),
        part("ledger", to(0), "c"),
    ])
    .unwrap();
    assert_eq!(sequences(&lane, &both), [0, 0]);
    assert_eq!(sequences(&lane, &both), [0, 0], "it was refused");
    lane.happened(&both);
    assert_eq!(sequences(&lane, &both), [2, 1]);
    lane.retire();
    assert_eq!(lane.identity, None);
    lane.adopt(identity);
    assert_eq!(sequences(&lane, &both), [0, 0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let lane = Lane::new(0);
    let plan = plan(&[
        part("ledger", to(0), "0123456789"),
        part("ledger", to(0), "0123456789"),
    ])
    .unwrap();
    let all = lane.lay_out(&plan, 1 << 20, 0).unwrap();
    let bytes_max = all[0].len() - 1;
    let refused = lane.lay_out(&plan, bytes_max, 0);
    assert!(matches!(refused, Err(StepError::TooLarge { max, .. }) if max == bytes_max));
}
