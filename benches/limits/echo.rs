//! The shortest program that answers when what it was sent is durable.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use falcon::clock::Instant;

use super::Fallible;
use super::aligned::Aligned;
use super::loopback::{ROUND_TRIP_BYTES, pair};
use super::samples::{Samples, Summary};
use super::write::{Shape, prepare, write_and_sync};

/// One record after the other over blocking sockets, each written and synced before it is answered. More
/// than the sum of both, because the cores sleep in between.
pub(crate) fn measure(folder: &Path, shape: Shape, length: Duration) -> Fallible<Summary> {
    let path = folder.join("raw.echo");
    let file = prepare(&path, shape)?;
    let (near, mut far) = pair()?;
    let echo = thread::Builder::new().spawn(move || -> io::Result<()> {
        let (mut buffer, block) = ([0; ROUND_TRIP_BYTES], Aligned::new(shape.bytes));
        let mut position = 0;
        loop {
            match far.read_exact(&mut buffer) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            position = write_and_sync(&file, &block, position)?;
            far.write_all(&buffer)?;
        }
    })?;
    let samples = ask(near, length)?;
    echo.join().map_err(|_| "the echo panicked")??;
    std::fs::remove_file(&path)?;
    Ok(samples.summary())
}

/// Sends one record after the other, each when the answer to the one before is here.
pub(crate) fn ask(mut near: TcpStream, length: Duration) -> io::Result<Samples> {
    let (mut samples, mut buffer) = (Samples::default(), [7; ROUND_TRIP_BYTES]);
    let until = Instant::now().after(length);
    while Instant::now() < until {
        let begun = Instant::now();
        near.write_all(&buffer)?;
        near.read_exact(&mut buffer)?;
        samples.note(begun.elapsed(), ROUND_TRIP_BYTES);
    }
    Ok(samples)
}
