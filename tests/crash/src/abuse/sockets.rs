//! Abuse by connections: slow, silent, idle, too many, malformed.

use std::io::{Result, Write};

use falcon_protocol::{Codec, Producer, TopicId};

use super::peer::{Peer, batch, hello, publish_frame};
use super::settings::{IDLE_BYTES, READ_BYTES, Settings};
use super::{Plan, Siege};

pub(super) fn slow_loris_plan(is_long: bool) -> Plan {
    let settings = Settings::small();
    let peers = if is_long { 900 } else { 90 };
    Plan::new(settings, peers * (IDLE_BYTES + READ_BYTES))
}

/// Bytes of a frame one at a time: of its header, of a handshake, of a body.
pub(super) fn slow_loris(siege: &mut Siege) -> Result<()> {
    let body = publish_frame(
        TopicId(1),
        &batch(300_000, Codec::None, Producer::default())?,
    );
    let mut peers = Vec::new();
    let mut left = Vec::new();
    for number in 0..siege.count(90, 900) {
        let (peer, rest) = match number % 3 {
            0 => (Peer::silent(siege.address)?, hello()),
            1 => {
                let mut peer = Peer::silent(siege.address)?;
                let mut bytes = hello();
                peer.socket.write_all(&bytes.split_to(14))?;
                (peer, bytes)
            }
            _ => {
                let mut peer = Peer::greeted(siege.address)?;
                let mut bytes = body.clone();
                peer.socket.write_all(&bytes.split_to(1_000))?;
                (peer, bytes)
            }
        };
        peers.push(peer);
        left.push(rest);
    }
    siege.acts += peers.len() as u64;
    siege.await_ends(peers, |number, peer| {
        let next = left.get_mut(number).filter(|rest| !rest.is_empty());
        if let Some(byte) = next.map(|rest| rest.split_to(1)) {
            // The broker may be closing just now.
            peer.socket.write_all(&byte).ok();
        }
    });
    Ok(())
}

pub(super) fn half_open_plan(is_long: bool) -> Plan {
    let peers = if is_long { 900 } else { 90 };
    Plan::new(Settings::small(), peers * (IDLE_BYTES + READ_BYTES))
}

/// Connected and never a word; greeted and gone without one; gone with answers unread.
pub(super) fn half_open(siege: &mut Siege) -> Result<()> {
    let mut peers = Vec::new();
    for number in 0..siege.count(90, 900) {
        match number % 3 {
            0 => peers.push(Peer::silent(siege.address)?),
            1 => peers.push(Peer::greeted(siege.address)?),
            // Closing with something unread resets the connection.
            _ => drop(Peer::calling(siege.address)?),
        }
    }
    siege.acts += peers.len() as u64;
    siege.await_ends(peers, |_, _| {});
    Ok(())
}

pub(super) fn idle_plan(is_long: bool) -> Plan {
    let connections_max = if is_long { 8_000 } else { 400 };
    let settings = Settings {
        connections_max,
        heartbeat_ms: 20_000,
        idle_ms: 60_000,
        ..Settings::small()
    };
    Plan::new(settings, connections_max * IDLE_BYTES)
}

/// Connections up to the limit that do nothing, and more of them.
pub(super) fn idle(siege: &mut Siege) -> Result<()> {
    let max = siege.settings.connections_max;
    let mut idle = Vec::new();
    loop {
        let mut peer = Peer::calling(siege.address)?;
        // One too many may find its connection reset before it has read why.
        if !peer.is_welcome() {
            break;
        }
        idle.push(peer);
        if idle.len() as u64 > max {
            siege.broken.push("more were let in than the limit".into());
            return Ok(());
        }
    }
    // The good client has a place too.
    if (idle.len() as u64) < max - 4 {
        let text = format!("only {} of {max} were let in", idle.len());
        siege.broken.push(text);
    }
    for _ in 0..siege.count(200, 2_000) {
        siege.acts += 1;
        if !Peer::calling(siege.address)?.is_welcome() {
            siege.rejected += 1;
        }
    }
    Ok(())
}

pub(super) fn bad_handshakes_plan(_: bool) -> Plan {
    let settings = Settings::small();
    Plan::new(settings, settings.connections_max * IDLE_BYTES)
}

/// What is no handshake, as fast as one thread can.
pub(super) fn bad_handshakes(siege: &mut Siege) -> Result<()> {
    let good = hello();
    let mut old = good.to_vec();
    old.get_mut(16..20)
        .into_iter()
        .for_each(|bytes| bytes.fill(0));
    let mut wrong = good.to_vec();
    wrong
        .get_mut(12..16)
        .into_iter()
        .for_each(|bytes| bytes.fill(7));
    let mut long = good.to_vec();
    long.get_mut(0..4)
        .into_iter()
        .for_each(|bytes| bytes.fill(0xff));
    let mut early = good.to_vec();
    early
        .get_mut(4..5)
        .into_iter()
        .for_each(|bytes| bytes.fill(20));
    let tls = [
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01][..],
        &[0xfc; 504],
    ]
    .concat();
    let kinds = [old, wrong, long, early, tls, vec![0; 64]];
    for kind in kinds.iter().cycle().take(siege.count(600, 30_000)) {
        let mut peer = Peer::silent(siege.address)?;
        peer.socket.write_all(kind)?;
        siege.act(&mut peer)?;
    }
    Ok(())
}
