//! Abuse by frames: false lengths, broken batches, bodies that never arrive, bombs.

use std::io::{Result, Write};

use bytes::Bytes;
use falcon_protocol::message::{ConfigEntry, CreateTopic};
use falcon_protocol::{Codec, Frame, Kind, Producer, TopicId};

use super::peer::{Peer, batch, batch_of, body, publish_frame};
use super::settings::{IDLE_BYTES, READ_BYTES, Settings};
use super::{Plan, Siege};

const MIB: usize = 1 << 20;
/// Peers that send large frames one after the other.
const SENDERS: u64 = 16;
/// What one batch may be when it is plain, and how many are checked at a time.
const PLAIN_BYTES: u64 = 32 << 20;
const CHECKS: u64 = 2;

pub(super) fn kept_buffers_plan(is_long: bool) -> Plan {
    let peers = if is_long { 1_000 } else { 250 };
    let settings = Settings {
        heartbeat_ms: 20_000,
        idle_ms: 60_000,
        stall_ms: 30_000,
        ..Settings::small()
    };
    Plan::new(settings, peers * (IDLE_BYTES + READ_BYTES))
}

/// One large batch each, refused; then nothing, or one byte of the next frame.
pub(super) fn kept_buffers(siege: &mut Siege) -> Result<()> {
    let mut damaged = batch(MIB - 2_000, Codec::None, Producer::default())?.to_vec();
    damaged.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    let damaged = publish_frame(TopicId(1), &damaged);
    let mut peers = Vec::new();
    for number in 0..siege.count(250, 1_000) {
        let mut peer = Peer::greeted(siege.address)?;
        peer.socket.write_all(&damaged)?;
        if number % 2 == 0 {
            peer.socket.write_all(&[0])?;
        }
        siege.act(&mut peer)?;
        peers.push(peer);
    }
    Ok(())
}

pub(super) fn slow_bodies_plan(is_long: bool) -> Plan {
    let peers = if is_long { 120 } else { 12 };
    let settings = Settings {
        stall_ms: 4_000,
        idle_ms: 20_000,
        ..Settings::small()
    };
    Plan {
        ack_ms_max: 3_000,
        ..Plan::new(settings, peers * (IDLE_BYTES + READ_BYTES))
    }
}

/// Large bodies that stop before their end, so that what pays for them is not free for others.
pub(super) fn slow_bodies(siege: &mut Siege) -> Result<()> {
    let whole = batch(MIB - 2_000, Codec::None, Producer::default())?;
    let frame = publish_frame(TopicId(1), &whole);
    let almost = frame.slice(..frame.len() - 10_000);
    let mut peers = Vec::new();
    for _ in 0..siege.count(12, 120) {
        let mut peer = Peer::greeted(siege.address)?;
        // Who has to wait for room is not read either; what fits on the way is enough.
        peer.socket.set_nonblocking(true)?;
        let sent = peer.socket.write(&almost)?;
        peer.socket.set_nonblocking(false)?;
        peers.push((peer, almost.slice(sent..)));
    }
    siege.acts += peers.len() as u64;
    let (peers, mut rests): (Vec<Peer>, Vec<Bytes>) = peers.into_iter().unzip();
    siege.await_ends(peers, |number, peer| {
        let Some(rest) = rests.get_mut(number).filter(|rest| !rest.is_empty()) else {
            return;
        };
        peer.socket.set_nonblocking(true).ok();
        let sent = peer.socket.write(rest).unwrap_or(0);
        peer.socket.set_nonblocking(false).ok();
        drop(rest.split_to(sent));
    });
    Ok(())
}

pub(super) fn bad_frames_plan(_: bool) -> Plan {
    let settings = Settings::small();
    Plan::new(settings, SENDERS * (IDLE_BYTES + READ_BYTES))
}

/// Claims of 4 GiB, huge and tiny batches, rubbish of every kind.
pub(super) fn bad_frames(siege: &mut Siege) -> Result<()> {
    let topic = Peer::greeted(siege.address)?.create_topic("frames", 1)?;
    let good = batch(100, Codec::None, Producer::default())?;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for number in 1..=50 {
        let mut claims = Frame::request(Kind::Ping, 1, Bytes::new())
            .to_bytes()
            .to_vec();
        claims
            .get_mut(..4)
            .into_iter()
            .for_each(|bytes| bytes.fill(0xff));
        claims
            .get_mut(4..5)
            .into_iter()
            .for_each(|kind| kind.fill(number));
        frames.push(claims);
        let rubbish = Bytes::from_static(&[0xff; 9]);
        let is_asked = |kind: &Kind| !matches!(kind, Kind::Ping | Kind::Goodbye);
        if let Some(kind) = Kind::from_number(number).filter(is_asked) {
            frames.push(Frame::request(kind, 1, rubbish).to_bytes().to_vec());
        }
    }
    for bytes in (0..good.len()).step_by(7) {
        frames.push(publish_frame(topic, good.get(..bytes).unwrap_or_default()).to_vec());
    }
    let huge = vec![0; siege.settings.batch_bytes() + 1];
    frames.push(publish_frame(topic, &huge).to_vec());
    frames.push(publish_frame(TopicId(u32::MAX), &good).to_vec());
    for _ in 0..siege.count(3, 100) {
        for frame in &frames {
            let mut peer = Peer::greeted(siege.address)?;
            peer.socket.write_all(frame)?;
            siege.act(&mut peer)?;
        }
    }
    many_entries(siege)
}

/// Small on the wire, large when decoded: as many as may be on their way at once.
fn many_entries(siege: &mut Siege) -> Result<()> {
    let entry = ConfigEntry {
        key: String::new(),
        value: None,
    };
    let request = CreateTopic {
        name: "entries".into(),
        partitions: 1,
        config: vec![entry; 400_000],
    };
    let frame = Frame::request(Kind::CreateTopic, 1, body(&request)?).to_bytes();
    let mut peers = Vec::new();
    for _ in 0..SENDERS {
        let mut peer = Peer::greeted(siege.address)?;
        peer.socket.write_all(&frame)?;
        peers.push(peer);
    }
    peers.iter_mut().try_for_each(|peer| siege.act(peer))
}

pub(super) fn bombs_plan(_: bool) -> Plan {
    let settings = Settings::small();
    let held = CHECKS * PLAIN_BYTES + SENDERS * (IDLE_BYTES + READ_BYTES);
    Plan::new(settings, held)
}

/// Small batches that are large when plain, with false claims about it, from many peers at once.
pub(super) fn bombs(siege: &mut Siege) -> Result<()> {
    let mut peer = Peer::greeted(siege.address)?;
    let topic = peer.create_topic("bombs", 1)?;
    let zeros = vec![0; 30 * MIB];
    let zstd = batch_of(zeros.clone(), Codec::Zstd, Producer::default())?;
    let lz4 = batch_of(zeros, Codec::Lz4, Producer::default())?;
    // A bomb in a bomb: its bytes are records' bytes, which nobody unpacks, but no records.
    let nested = batch_of(zstd.to_vec(), Codec::Zstd, Producer::default())?;
    let uncompressed = 52..56;
    let count = 36..40;
    let bombs = [
        forged(&zstd, uncompressed.clone(), 1_000),
        forged(&zstd, uncompressed.clone(), u32::MAX),
        forged(&zstd, count.clone(), 2),
        forged(&lz4, uncompressed.clone(), 1_000),
        forged(&lz4, uncompressed.clone(), u32::MAX),
        forged(&nested, count, 131_072),
    ];
    let bombs: Vec<Bytes> = bombs
        .iter()
        .map(|bomb| publish_frame(topic, bomb))
        .collect();
    let mut peers = Vec::new();
    for _ in 0..SENDERS {
        peers.push(Peer::greeted(siege.address)?);
    }
    for _ in 0..siege.count(1, 20) {
        for bomb in &bombs {
            for peer in &mut peers {
                peer.socket.write_all(bomb)?;
            }
            peers.iter_mut().try_for_each(|peer| siege.act(peer))?;
        }
    }
    Ok(())
}

/// The batch with another number in its header, under a checksum that holds.
fn forged(batch: &[u8], field: core::ops::Range<usize>, number: u32) -> Vec<u8> {
    let mut forged = batch.to_vec();
    if let Some(bytes) = forged.get_mut(field) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32fast::hash(forged.get(28..).unwrap_or_default());
    if let Some(bytes) = forged.get_mut(24..28) {
        bytes.copy_from_slice(&crc.to_le_bytes());
    }
    forged
}
