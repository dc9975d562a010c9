//! What the machine itself can do, to compare the rows with.
//!
//! Owns three short measurements. Promises: plain calls on plain threads, no runtime. Must not know: servers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::loads::{Times, note, times};

const LENGTH: Duration = Duration::from_secs(1);
const BLOCK: usize = 4096;
/// Blocks written before they are written again.
const BLOCKS: u64 = 4096;
const PING_BYTES: usize = 128;
const CHUNK_BYTES: usize = 256 << 10;

/// Seconds, and bytes per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Limits {
    /// 4 KiB write and fdatasync, into blocks written before.
    pub(crate) sync_p50: f64,
    /// The same.
    pub(crate) sync_p99: f64,
    /// 128 B there and back over TCP on loopback.
    pub(crate) round_trip_p50: f64,
    /// The same.
    pub(crate) round_trip_p99: f64,
    /// One TCP connection on loopback.
    pub(crate) loopback: f64,
}

/// Measures them; the file is in that folder.
pub(crate) fn measure(folder: &Path) -> Result<Limits> {
    let syncs = syncs(folder)?;
    let trips = round_trips()?;
    let at = |times: &Times, quantile| times.value_at_quantile(quantile) as f64 / 1e9;
    Ok(Limits {
        sync_p50: at(&syncs, 0.5),
        sync_p99: at(&syncs, 0.99),
        round_trip_p50: at(&trips, 0.5),
        round_trip_p99: at(&trips, 0.99),
        loopback: loopback()?,
    })
}

fn syncs(folder: &Path) -> Result<Times> {
    let path = folder.join("limits");
    let mut file = File::create(&path)?;
    file.write_all(&vec![1; BLOCK * BLOCKS as usize])?;
    file.sync_all()?;
    let file = OpenOptions::new().write(true).open(&path)?;
    let (mut times, begun, block) = (times()?, Instant::now(), [2; BLOCK]);
    for number in (0..BLOCKS).cycle() {
        let at = Instant::now();
        if at - begun > LENGTH {
            break;
        }
        file.write_all_at(&block, number * BLOCK as u64)?;
        file.sync_data()?;
        note(&mut times, at.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

/// Two ends of a connection.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn round_trips() -> Result<Times> {
    let (mut near, mut far) = connection()?;
    let echo = thread::spawn(move || {
        let mut ping = [0; PING_BYTES];
        while far.read_exact(&mut ping).is_ok() && far.write_all(&ping).is_ok() {}
    });
    let (mut times, begun, mut ping) = (times()?, Instant::now(), [3; PING_BYTES]);
    while begun.elapsed() < LENGTH {
        let at = Instant::now();
        near.write_all(&ping)?;
        near.read_exact(&mut ping)?;
        note(&mut times, at.elapsed());
    }
    drop(near);
    echo.join().map_err(|_| anyhow!("the echo broke"))?;
    Ok(times)
}

fn loopback() -> Result<f64> {
    let (mut near, mut far) = connection()?;
    let reader = thread::spawn(move || {
        let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0_u64);
        while let Ok(read @ 1..) = far.read(&mut chunk) {
            bytes += read as u64;
        }
        bytes
    });
    let (begun, chunk) = (Instant::now(), vec![4; CHUNK_BYTES]);
    while begun.elapsed() < LENGTH {
        near.write_all(&chunk)?;
    }
    drop(near);
    let bytes = reader.join().map_err(|_| anyhow!("the reader broke"))?;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}
