//! Abuse by requests that are valid one by one: answers nobody reads, credit, subscriptions, long polls.

use std::io::{ErrorKind, Result, Write};
use std::time::Duration;

use bytes::Bytes;
use falcon_protocol::message::{
    CommitOffsets, Credit, DescribeTopic, Fetch, FetchOffsets, ListGroups, ListOffsets, ListTopics,
    MetadataRequest, OffsetCommit, OffsetQuery, PartitionStart, StartPosition, Subscribe,
};
use falcon_protocol::{Codec, Frame, Kind, Offset, Partition, PartitionId, Producer, TopicId};

use super::peer::{Peer, batch, body};
use super::settings::{
    ANSWER_BYTES, IDLE_BYTES, READ_BYTES, REQUEST_BYTES, SUBSCRIPTION_BYTES, Settings, WATCH_BYTES,
};
use super::{Plan, Siege};
use crate::history::now_ns;

const WIDE: u32 = 4_096;
/// Requests whose answers are large, and those that cost the most to keep.
const KINDS: u64 = 8;

pub(super) fn deaf_plan(is_long: bool) -> Plan {
    let settings = Settings {
        stall_ms: 2_000,
        idle_ms: 20_000,
        topics_max: 1_000,
        ..Settings::small()
    };
    let each = if is_long { 24 } else { 3 };
    let held = IDLE_BYTES + READ_BYTES + ANSWER_BYTES + settings.delivery_bytes_max();
    // Small fetches and pings wait as requests, too.
    let waiting = settings.requests * REQUEST_BYTES;
    Plan::new(settings, KINDS * each * (held + waiting))
}

/// Requests without end from peers that read no answer, for each kind with large answers.
pub(super) fn deaf(siege: &mut Siege) -> Result<()> {
    let mut peer = Peer::greeted(siege.address)?;
    let wide = peer.create_topic("wide", WIDE)?;
    for number in 0..200 {
        peer.create_topic(&format!("{number:03}-{}", "x".repeat(190)), 1)?;
    }
    let log = peer.create_topic("log", 1)?;
    let large = batch(
        siege.settings.batch_bytes() - 2_000,
        Codec::None,
        Producer::default(),
    )?;
    for _ in 0..40 {
        peer.publish(log, &large)?;
    }
    let offsets = (0..WIDE).map(|partition| OffsetCommit {
        topic_id: wide,
        partition: Partition(partition),
        offset: Offset(0),
        note: "n".repeat(256),
    });
    let commit = CommitOffsets {
        group: "g".repeat(200),
        offsets: offsets.collect(),
    };
    peer.ask(Kind::CommitOffsets, &commit)?;
    drop(peer);
    let mut floods = Vec::new();
    for frame in large_requests(wide, log)? {
        let burst = frame.repeat(1 + 100_000 / frame.len());
        for _ in 0..siege.count(3, 24) {
            floods.push((Peer::greeted(siege.address)?, Bytes::from(burst.clone())));
        }
    }
    flood(siege, floods)
}

/// One request of each kind, as a frame.
fn large_requests(wide: TopicId, log: TopicId) -> Result<Vec<Bytes>> {
    let queries = (0..WIDE).map(|partition| OffsetQuery {
        partition: Partition(partition),
        at: StartPosition::Latest,
    });
    // Less than one batch is asked for, so that what comes is more than was expected.
    let fetch = Fetch {
        partition: PartitionId::new(log.0, 0),
        offset: Offset(0),
        bytes_max: 1,
        wait_ms: 0,
    };
    let page = (None::<String>, 1_000_u32);
    let requests = [
        (
            Kind::Metadata,
            body(&MetadataRequest {
                topics: Some(vec!["wide".into()]),
            })?,
        ),
        (
            Kind::DescribeTopic,
            body(&DescribeTopic {
                name: "wide".into(),
            })?,
        ),
        (
            Kind::ListTopics,
            body(&ListTopics {
                after: page.0.clone(),
                rows_max: page.1,
            })?,
        ),
        (
            Kind::ListGroups,
            body(&ListGroups {
                after: page.0,
                rows_max: page.1,
            })?,
        ),
        (
            Kind::FetchOffsets,
            body(&FetchOffsets {
                group: "g".repeat(200),
                topic: None,
            })?,
        ),
        (
            Kind::ListOffsets,
            body(&ListOffsets {
                topic_id: wide,
                queries: queries.collect(),
            })?,
        ),
        (Kind::Fetch, fetch.encode()),
        (Kind::Ping, Bytes::new()),
    ];
    let frames = requests.into_iter();
    Ok(frames
        .map(|(kind, body)| Frame::request(kind, 1, body).to_bytes())
        .collect())
}

/// Sends without reading until nobody takes anything any more; each peer must be ended.
fn flood(siege: &mut Siege, floods: Vec<(Peer, Bytes)>) -> Result<()> {
    struct Flood {
        peer: Peer,
        burst: Bytes,
        sent: usize,
    }
    siege.acts += floods.len() as u64;
    let mut left = Vec::new();
    for (peer, burst) in floods {
        peer.socket.set_nonblocking(true)?;
        left.push(Flood {
            peer,
            burst,
            sent: 0,
        });
    }
    let deadline = now_ns() + siege.count(60, 240) * 1_000_000_000;
    while !left.is_empty() && now_ns() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        left.retain_mut(|flood| {
            let from = flood.sent % flood.burst.len();
            match flood
                .peer
                .socket
                .write(flood.burst.get(from..).unwrap_or_default())
            {
                Ok(bytes) => flood.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Ended by the broker.
                Err(_) => {
                    siege.rejected += 1;
                    return false;
                }
            }
            true
        });
    }
    if !left.is_empty() {
        let text = format!("{} deaf peers were never ended", left.len());
        siege.broken.push(text);
    }
    Ok(())
}

pub(super) fn credit_plan(_: bool) -> Plan {
    let settings = Settings::small();
    let held = IDLE_BYTES + READ_BYTES + ANSWER_BYTES + settings.delivery_bytes_max();
    Plan::new(settings, 32 * (held + SUBSCRIPTION_BYTES))
}

/// Credit without measure, without effect, without subscription, without end.
pub(super) fn credit(siege: &mut Siege) -> Result<()> {
    let mut peer = Peer::greeted(siege.address)?;
    let topic = peer.create_topic("credit", 1)?;
    let large = batch(
        siege.settings.batch_bytes() / 2,
        Codec::None,
        Producer::default(),
    )?;
    for _ in 0..40 {
        peer.publish(topic, &large)?;
    }
    // What never reads is ended; it was told, but does not hear it.
    let mut deaf = Vec::new();
    for grant in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32] {
        let mut peer = Peer::greeted(siege.address)?;
        peer.request(Kind::Subscribe, 9, subscribe(topic, grant)?)?;
        deaf.push((
            peer,
            Frame::request(Kind::Credit, 9, total(u64::MAX)).to_bytes(),
        ));
    }
    let mut unfed = Peer::greeted(siege.address)?;
    for number in 0..8 {
        unfed.request(Kind::Subscribe, number, subscribe(topic, 0)?)?;
        if let Some(code) = unfed.refusal()? {
            siege
                .broken
                .push(format!("a subscription was refused: {}", code.name()));
        }
    }
    for step in 0..siege.count(2_000_u64, 200_000) {
        // Totals that fall, that are of no subscription, that would overflow a sum.
        unfed.request(Kind::Credit, 7, total(0))?;
        unfed.request(Kind::Credit, u32::MAX, total(u64::MAX))?;
        if step % 100 == 0 {
            unfed.request(Kind::Credit, 7, Bytes::from_static(&[0xff; 7]))?;
            siege.act(&mut unfed)?;
        }
    }
    unfed.request(Kind::Credit, 7, total(1))?;
    let fed = unfed.receive()?.map(|frame| frame.header.kind);
    if fed != Some(Kind::Deliver.number()) {
        siege
            .broken
            .push("one byte of credit brought no delivery".into());
    }
    drop(unfed);
    flood(siege, deaf)
}

fn total(bytes: u64) -> Bytes {
    let credit = Credit {
        bytes_total: bytes,
        records_total: bytes,
    };
    credit.encode()
}

fn subscribe(topic: TopicId, grant: u64) -> Result<Bytes> {
    subscribe_to(topic, 0..1, grant)
}

fn subscribe_to(topic: TopicId, partitions: core::ops::Range<u32>, grant: u64) -> Result<Bytes> {
    let partitions = partitions.map(|partition| PartitionStart {
        partition: Partition(partition),
        start: StartPosition::Earliest,
    });
    body(&Subscribe {
        topic_id: topic,
        partitions: partitions.collect(),
        credit_bytes: grant,
        credit_records: grant,
    })
}

pub(super) fn subscriptions_plan(is_long: bool) -> Plan {
    let settings = Settings {
        subscriptions: if is_long { 1_024 } else { 256 },
        idle_ms: 60_000,
        ..Settings::small()
    };
    let peers = if is_long { 40 } else { 8 };
    let watches = 16_384 * WATCH_BYTES;
    let held = IDLE_BYTES + READ_BYTES + settings.subscriptions * SUBSCRIPTION_BYTES + watches;
    Plan::new(settings, peers * held)
}

/// As many subscriptions as there may be on each of some connections, and more; then as many
/// partitions.
pub(super) fn subscriptions(siege: &mut Siege) -> Result<()> {
    let mut peer = Peer::greeted(siege.address)?;
    let one = peer.create_topic("one", 1)?;
    let wide = peer.create_topic("wide", WIDE)?;
    let max = u32::try_from(siege.settings.subscriptions).unwrap_or(u32::MAX);
    let mut peers = Vec::new();
    for number in 0..siege.count(8, 40) {
        let mut peer = Peer::greeted(siege.address)?;
        if number % 2 == 0 {
            for number in 0..max {
                expect_open(siege, &mut peer, number, subscribe(one, u64::MAX)?)?;
            }
            for number in max..max + 50 {
                peer.request(Kind::Subscribe, number, subscribe(one, 1)?)?;
                siege.act(&mut peer)?;
            }
        } else {
            for number in 0..4 {
                expect_open(siege, &mut peer, number, subscribe_to(wide, 0..WIDE, 1)?)?;
            }
            for number in 4..24 {
                peer.request(Kind::Subscribe, number, subscribe_to(wide, 0..1, 1)?)?;
                siege.act(&mut peer)?;
            }
        }
        peers.push(peer);
    }
    Ok(())
}

fn expect_open(siege: &mut Siege, peer: &mut Peer, number: u32, request: Bytes) -> Result<()> {
    peer.request(Kind::Subscribe, number, request)?;
    if let Some(code) = peer.refusal()? {
        siege
            .broken
            .push(format!("a subscription was refused: {}", code.name()));
    }
    Ok(())
}

pub(super) fn long_polls_plan(is_long: bool) -> Plan {
    let settings = Settings {
        requests: if is_long { 4_096 } else { 1_024 },
        idle_ms: 60_000,
        ..Settings::small()
    };
    let peers = if is_long { 40 } else { 8 };
    let held = IDLE_BYTES + READ_BYTES + ANSWER_BYTES + settings.requests * REQUEST_BYTES;
    Plan::new(settings, peers * held)
}

/// Fetches that wait for records which never come: as many as may be in flight, and more. What comes
/// behind them is not read; counted is who gets no answer to a ping.
pub(super) fn long_polls(siege: &mut Siege) -> Result<()> {
    let topic = Peer::greeted(siege.address)?.create_topic("silent", 1)?;
    let fetch = Fetch {
        partition: PartitionId::new(topic.0, 0),
        offset: Offset(0),
        bytes_max: 1 << 20,
        wait_ms: 30_000,
    };
    let waits = Frame::request(Kind::Fetch, 1, fetch.encode()).to_bytes();
    let ping = Frame::request(Kind::Ping, 77, Bytes::new()).to_bytes();
    let mut peers = Vec::new();
    for _ in 0..siege.count(8, 40) {
        let mut peer = Peer::greeted(siege.address)?;
        peer.socket
            .write_all(&waits.repeat(siege.settings.requests_in_flight() + 1))?;
        peer.socket.write_all(&ping)?;
        peers.push(peer);
    }
    for peer in &mut peers {
        siege.acts += 1;
        peer.socket
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        match peer.receive() {
            Ok(_) => siege
                .broken
                .push("more requests were read than granted".into()),
            Err(_) => siege.rejected += 1,
        }
    }
    // All hang up at once.
    Ok(())
}
