//! Abuse of what is kept for good: names, topics, committed offsets, publishers.

use std::io::{Error, Result, Write};

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::{
    CommitOffsets, CreateTopic, InitProducer, OffsetCommit, ProducerGranted, decode,
};
use falcon_protocol::{Codec, Frame, Kind, Offset, Partition, Producer, ProducerId, TopicId};

use super::peer::{Peer, batch, body, publish_frame};
use super::settings::{OFFSET_ROW_BYTES, PRODUCER_ROW_BYTES, Settings, TOPIC_ROW_BYTES};
use super::{Plan, Siege};

/// Requests sent before their answers are read.
const BURST: u64 = 500;
const WIDE: u32 = 4_096;
/// Acts beyond each limit.
const BEYOND: u64 = 100;

pub(super) fn names_plan(_: bool) -> Plan {
    Plan::new(Settings::small(), 0)
}

/// Names that are paths, or look like other names.
pub(super) fn names(siege: &mut Siege) -> Result<()> {
    let long = "x".repeat(201);
    let longer = "x".repeat(1 << 20);
    let names = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a\0b",
        "\0",
        "a b",
        "a\nb",
        "\u{1b}[2J",
        "a\u{7f}",
        "\u{202e}drowssap",
        "fl\u{456}ghts",
        "\u{ff0e}\u{ff0e}",
        "caf\u{e9}",
        "a\u{200b}",
        "a..b",
        ".a",
        "a.",
        "%2e%2e",
        "~root",
        "*",
        "$HOME",
        "con:",
        &long,
        &longer,
    ];
    let mut peer = Peer::greeted(siege.address)?;
    let topic = peer.create_topic("named", 1)?;
    for _ in 0..siege.count(5, 200) {
        for name in names {
            let create = CreateTopic {
                name: name.to_owned(),
                partitions: 1,
                config: Vec::new(),
            };
            let commit = commit(name, topic, 0..1);
            let init = InitProducer {
                name: Some(name.to_owned()),
            };
            let requests = [
                (Kind::CreateTopic, body(&create)?),
                (Kind::CommitOffsets, body(&commit)?),
                (Kind::InitProducer, body(&init)?),
            ];
            for (kind, request) in requests {
                peer.request(kind, 1, request)?;
                siege.act(&mut peer)?;
            }
        }
    }
    Ok(())
}

fn commit(group: &str, topic: TopicId, partitions: core::ops::Range<u32>) -> CommitOffsets {
    let offsets = partitions.map(|partition| OffsetCommit {
        topic_id: topic,
        partition: Partition(partition),
        offset: Offset(0),
        note: "n".repeat(256),
    });
    CommitOffsets {
        group: group.to_owned(),
        offsets: offsets.collect(),
    }
}

pub(super) fn topics_plan(is_long: bool) -> Plan {
    let topics_max = if is_long { 5_000 } else { 500 };
    let settings = Settings {
        topics_max,
        ..Settings::small()
    };
    Plan::new(settings, topics_max * TOPIC_ROW_BYTES)
}

/// Topics with long names up to the limit, and more.
pub(super) fn topics(siege: &mut Siege) -> Result<()> {
    let max = siege.settings.topics_max;
    let mut requests = Requests::new(siege)?;
    for number in 0..max + BEYOND {
        let create = CreateTopic {
            name: format!("{number:06}-{}", "x".repeat(193)),
            partitions: 1,
            config: Vec::new(),
        };
        requests.send(Kind::CreateTopic, body(&create)?)?;
    }
    let refused = requests.finish()?;
    // The good client's topic has a place, too.
    siege.acts += BEYOND + 1;
    siege.rejected += refused;
    Ok(())
}

pub(super) fn offsets_plan(is_long: bool) -> Plan {
    let offsets_max = if is_long { 200_000 } else { 20_000 };
    let settings = Settings {
        offsets_max,
        ..Settings::small()
    };
    Plan::new(settings, offsets_max * OFFSET_ROW_BYTES)
}

/// Groups with one offset each up to the limit, and more; then one group with many.
pub(super) fn offsets(siege: &mut Siege) -> Result<()> {
    let max = siege.settings.offsets_max;
    let wide = Peer::greeted(siege.address)?.create_topic("wide", WIDE)?;
    let mut requests = Requests::new(siege)?;
    let groups = max - u64::from(WIDE);
    for number in 0..groups {
        let group = format!("{number:06}-{}", "g".repeat(193));
        requests.send(Kind::CommitOffsets, body(&commit(&group, wide, 0..1))?)?;
    }
    requests.send(Kind::CommitOffsets, body(&commit("many", wide, 0..WIDE))?)?;
    for number in 0..BEYOND {
        let group = format!("beyond-{number}");
        requests.send(Kind::CommitOffsets, body(&commit(&group, wide, 0..1))?)?;
    }
    siege.acts += BEYOND;
    siege.rejected += requests.finish()?;
    Ok(())
}

pub(super) fn producers_plan(is_long: bool) -> Plan {
    let producers_max = if is_long { 100_000 } else { 5_000 };
    let settings = Settings {
        producers_max,
        ..Settings::small()
    };
    // Named ones and those that partitions remember have the limit each.
    Plan::new(settings, 2 * producers_max * PRODUCER_ROW_BYTES)
}

/// Names of publishers up to the limit, and more; ids without end; as many that publish as may be
/// remembered, and more.
pub(super) fn producers(siege: &mut Siege) -> Result<()> {
    let max = siege.settings.producers_max;
    let mut peer = Peer::greeted(siege.address)?;
    let topic = peer.create_topic("published", 1)?;
    let granted = peer.ask(Kind::InitProducer, &InitProducer { name: None })?;
    let granted: ProducerGranted = decode(&granted.body).map_err(Error::other)?;
    let mut requests = Requests::new(siege)?;
    for _ in 0..2 * max {
        requests.send(Kind::InitProducer, body(&InitProducer { name: None })?)?;
    }
    let unnamed = requests.finish()?;
    if unnamed > 0 {
        siege.broken.push(format!("{unnamed} ids were refused"));
    }
    let mut requests = Requests::new(siege)?;
    for number in 0..max + BEYOND {
        let name = Some(format!("{number:06}-{}", "p".repeat(193)));
        requests.send(Kind::InitProducer, body(&InitProducer { name })?)?;
    }
    siege.acts += BEYOND;
    siege.rejected += requests.finish()?;
    let mut requests = Requests::new(siege)?;
    for number in 1..=max + BEYOND {
        let producer = Producer {
            id: ProducerId(granted.producer_id.0 + number),
            epoch: 0,
            base_sequence: 0,
        };
        let batch = batch(8, Codec::None, producer)?;
        requests.send_frame(&publish_frame(topic, &batch))?;
    }
    // The good client has a place already.
    siege.acts += BEYOND + 1;
    siege.rejected += requests.finish()?;
    Ok(())
}

/// Requests sent ahead of their answers.
struct Requests {
    peer: Peer,
    waiting: BytesMut,
    count: u64,
    refused: u64,
}

impl Requests {
    fn new(siege: &Siege) -> Result<Self> {
        let mut peer = Peer::greeted(siege.address)?;
        peer.answers_pings = true;
        Ok(Self {
            peer,
            waiting: BytesMut::new(),
            count: 0,
            refused: 0,
        })
    }

    fn send(&mut self, kind: Kind, body: Bytes) -> Result<()> {
        self.send_frame(&Frame::request(kind, 1, body).to_bytes())
    }

    fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(frame);
        self.count += 1;
        if self.count == BURST {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.peer.socket.write_all(&self.waiting.split())?;
        for _ in 0..core::mem::take(&mut self.count) {
            let answer = self.peer.receive()?;
            let answer = answer.filter(|frame| frame.header.kind != Kind::Goodbye.number());
            let answer = answer.ok_or_else(|| Error::other("it was ended"))?;
            if answer.error().is_some() {
                self.refused += 1;
            }
        }
        Ok(())
    }

    /// How many were refused.
    fn finish(mut self) -> Result<u64> {
        self.flush()?;
        Ok(self.refused)
    }
}
