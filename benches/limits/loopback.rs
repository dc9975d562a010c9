//! TCP over loopback: streams, and round trips.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use falcon::clock::Instant;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::Fallible;
use super::aligned::Aligned;
use super::echo;
use super::samples::{Samples, Summary};

/// Bytes of a request and of its answer.
pub(crate) const ROUND_TRIP_BYTES: usize = 100;
/// Bytes that a reader takes at a time at most.
const READ_BYTES: usize = 256 << 10;
/// Bytes of each write and read with many receivers.
const FAN_OUT_BYTES: [usize; 4] = [8 << 10, 16 << 10, 64 << 10, 256 << 10];

/// 100 bytes there and back.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct RoundTrips {
    /// Blocking sockets, a thread on each side.
    pub(crate) blocking: Summary,
    /// Tasks of two runtimes, as client and broker are.
    pub(crate) tokio: Summary,
}

pub(crate) fn pair() -> Fallible<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// MB a second of one stream, written `bytes` at a time.
pub(crate) fn stream(bytes: usize, length: Duration) -> Fallible<f64> {
    let (mut near, mut far) = pair()?;
    let reader = thread::Builder::new().spawn(move || -> io::Result<u64> {
        let (mut all, mut buffer) = (0, Aligned::new(READ_BYTES));
        loop {
            match far.read(buffer.bytes_mut())? {
                0 => return Ok(all),
                read => all += read as u64,
            }
        }
    })?;
    let buffer = Aligned::new(bytes);
    let begun = Instant::now();
    while begun.elapsed() < length {
        near.write_all(buffer.bytes())?;
    }
    near.shutdown(Shutdown::Write)?;
    let read = reader.join().map_err(|_| "the reader panicked")??;
    Ok(read as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

/// MB a second in all, of one sender that writes the same bytes to each of so many receivers, each on a
/// socket of its own, in the best of some sizes: what fits the processor's caches is faster.
pub(crate) fn fan_out(receivers: usize, length: Duration) -> Fallible<f64> {
    let mut best = 0.0_f64;
    for bytes in FAN_OUT_BYTES {
        best = best.max(fan_out_of(receivers, bytes, length)?);
    }
    Ok(best)
}

fn fan_out_of(receivers: usize, bytes: usize, length: Duration) -> Fallible<f64> {
    let mut near = Vec::new();
    let (receiving, mut readers) = (runtime()?, JoinSet::new());
    for _ in 0..receivers {
        let (sender, receiver) = pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        near.push(sender);
        readers.spawn_on(drain(receiver, bytes), receiving.handle());
    }
    let (sending, mut writers) = (runtime()?, JoinSet::new());
    let begun = Instant::now();
    let until = begun.after(length);
    for sender in near {
        writers.spawn_on(fill(sender, bytes, until), sending.handle());
    }
    let wrote = sending.block_on(writers.join_all());
    wrote.into_iter().collect::<io::Result<Vec<()>>>()?;
    let read = receiving.block_on(readers.join_all());
    let seconds = begun.elapsed().as_secs_f64();
    let read: u64 = read.into_iter().sum::<io::Result<u64>>()?;
    Ok(read as f64 / 1e6 / seconds)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_io().build()
}

async fn drain(receiver: TcpStream, bytes: usize) -> io::Result<u64> {
    let mut receiver = tokio::net::TcpStream::from_std(receiver)?;
    let (mut all, mut buffer) = (0, vec![0; bytes]);
    loop {
        match receiver.read(&mut buffer).await? {
            0 => return Ok(all),
            read => all += read as u64,
        }
    }
}

async fn fill(sender: TcpStream, bytes: usize, until: Instant) -> io::Result<()> {
    let mut sender = tokio::net::TcpStream::from_std(sender)?;
    let buffer = vec![0x5A; bytes];
    while Instant::now() < until {
        sender.write_all(&buffer).await?;
    }
    sender.shutdown().await
}

/// Round trips for so long, each way for half of it.
pub(crate) fn round_trips(length: Duration) -> Fallible<RoundTrips> {
    Ok(RoundTrips {
        blocking: blocking(length / 2)?,
        tokio: with_tokio(length / 2)?,
    })
}

fn blocking(length: Duration) -> Fallible<Summary> {
    let (near, mut far) = pair()?;
    let answering = thread::Builder::new().spawn(move || -> io::Result<()> {
        let mut buffer = [0; ROUND_TRIP_BYTES];
        loop {
            match far.read_exact(&mut buffer) {
                Ok(()) => far.write_all(&buffer)?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    })?;
    let samples = echo::ask(near, length)?;
    answering.join().map_err(|_| "the echo panicked")??;
    Ok(samples.summary())
}

fn with_tokio(length: Duration) -> Fallible<Summary> {
    let (near, far) = pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let (asking, answering) = (runtime()?, runtime()?);
    let mut echoes = JoinSet::new();
    echoes.spawn_on(answer(far), answering.handle());
    let mut askers = JoinSet::new();
    askers.spawn_on(ask_async(near, length), asking.handle());
    let asked = asking.block_on(askers.join_all());
    answering.block_on(echoes.join_all());
    let samples = asked.into_iter().next().ok_or("nobody asked")??;
    Ok(samples.summary())
}

async fn answer(far: TcpStream) -> io::Result<()> {
    let mut far = tokio::net::TcpStream::from_std(far)?;
    let mut buffer = [0; ROUND_TRIP_BYTES];
    // Ends with the stream.
    while far.read_exact(&mut buffer).await.is_ok() {
        far.write_all(&buffer).await?;
    }
    Ok(())
}

async fn ask_async(near: TcpStream, length: Duration) -> io::Result<Samples> {
    let mut near = tokio::net::TcpStream::from_std(near)?;
    let (mut samples, mut buffer) = (Samples::default(), [7; ROUND_TRIP_BYTES]);
    let until = Instant::now().after(length);
    while Instant::now() < until {
        let begun = Instant::now();
        near.write_all(&buffer).await?;
        near.read_exact(&mut buffer).await?;
        samples.note(begun.elapsed(), ROUND_TRIP_BYTES);
    }
    Ok(samples)
}
