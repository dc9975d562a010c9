//! The peer's answers to control requests.

use bytes::Bytes;
use falcon_client::{Offset, Partition};
use falcon_protocol::message::{
    AlterTopic, CommitOffsets, CommittedOffset, CreateTopic, Empty, FetchOffsets, GroupPage,
    InitProducer, ListGroups, ListOffsets, ListTopics, ListedOffset, MetadataResponse,
    PartitionMetadata, ProducerGranted, TopicCreated, TopicMetadata, TopicPage, TopicSummary,
    decode, encode,
};
use falcon_protocol::{Kind, ProducerId};

use super::world::NAMED;
use super::{TOPIC, World};

/// Answers a control request, and does what it asks for.
pub(super) fn control_answer(world: &mut World, kind: Kind, body: &[u8]) -> Bytes {
    match kind {
        Kind::Metadata => {
            let partitions = 0..world.logs.len() as u32;
            let topic = TopicMetadata {
                name: TOPIC.into(),
                topic_id: world.topic_id,
                partitions: partitions
                    .map(|partition| PartitionMetadata {
                        partition: Partition(partition),
                        owner: 0,
                        epoch: 1,
                    })
                    .collect(),
            };
            encode(&MetadataResponse {
                brokers: Vec::new(),
                topics: if world.topic_exists {
                    vec![topic]
                } else {
                    Vec::new()
                },
            })
        }
        Kind::InitProducer => {
            let request: InitProducer = decode(body).unwrap();
            if request.name.is_some() {
                world.named_epoch += 1;
                return encode(&ProducerGranted {
                    producer_id: NAMED,
                    epoch: world.named_epoch,
                })
                .unwrap();
            }
            world.producers_granted += 1;
            encode(&ProducerGranted {
                producer_id: ProducerId(world.producers_granted),
                epoch: 0,
            })
        }
        Kind::CreateTopic => {
            let _: CreateTopic = decode(body).unwrap();
            encode(&TopicCreated {
                topic_id: world.topic_id,
            })
        }
        Kind::AlterTopic => {
            let request: AlterTopic = decode(body).unwrap();
            let partitions = request.partitions.unwrap_or(1) as usize;
            world.logs.resize(partitions, Vec::new());
            encode(&Empty {})
        }
        Kind::ListTopics => {
            let request: ListTopics = decode(body).unwrap();
            let names = ["a", "b", "c"].into_iter().map(str::to_owned);
            let mut rest = names.filter(|name| Some(name) > request.after.as_ref());
            let topics = rest.next().into_iter().map(|name| TopicSummary {
                name,
                topic_id: world.topic_id,
                partitions: 1,
                config: Vec::new(),
            });
            encode(&TopicPage {
                topics: topics.collect(),
                has_more: rest.next().is_some(),
            })
        }
        Kind::ListGroups => {
            let request: ListGroups = decode(body).unwrap();
            let names = ["x", "y"].into_iter().map(str::to_owned);
            let mut rest = names.filter(|name| Some(name) > request.after.as_ref());
            encode(&GroupPage {
                groups: rest.next().into_iter().collect(),
                has_more: rest.next().is_some(),
            })
        }
        other => return offsets_answer(world, other, body),
    }
    .unwrap()
}

fn offsets_answer(world: &mut World, kind: Kind, body: &[u8]) -> Bytes {
    match kind {
        Kind::ListOffsets => {
            let request: ListOffsets = decode(body).unwrap();
            let answers: Vec<ListedOffset> = request
                .queries
                .iter()
                .map(|query| ListedOffset {
                    partition: query.partition,
                    offset: Offset(world.end(query.partition.0)),
                    log_start: Offset(world.log_start),
                    high_watermark: Offset(world.end(query.partition.0)),
                })
                .collect();
            encode(&answers)
        }
        Kind::CommitOffsets => {
            let request: CommitOffsets = decode(body).unwrap();
            world.commits.push(request);
            encode(&Empty {})
        }
        Kind::FetchOffsets => {
            let request: FetchOffsets = decode(body).unwrap();
            let commits = world.commits.iter().filter(|c| c.group == request.group);
            let offsets: Vec<CommittedOffset> = commits
                .flat_map(|commit| &commit.offsets)
                .map(|commit| CommittedOffset {
                    topic: TOPIC.into(),
                    topic_id: commit.topic_id,
                    partition: commit.partition,
                    offset: commit.offset,
                    high_watermark: Offset(100),
                    note: commit.note.clone(),
                    commit_time_ms: 0,
                })
                .collect();
            encode(&offsets)
        }
        _ => encode(&Empty {}),
    }
    .unwrap()
}
