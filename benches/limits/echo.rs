//! The shortest program that answers when what it was sent is durable.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use falcon::clock::Instant;

use super::Fallible;
use super::aligned::Aligned;
use super::loopback::{ROUND_TRIP_BYTES, pair};
use super::samples::{Samples, Summary};
use super::write::{Shape, prepare, write_and_sync};

/// Between two records at a pace.
const PACE: Duration = Duration::from_millis(1);
/// A sleeping thread wakes up to so much late; the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(150);

/// One record after the other over blocking sockets, each written and synced before it is answered. More
/// than the sum of both, because the cores sleep in between.
pub(crate) fn measure(folder: &Path, shape: Shape, length: Duration) -> Fallible<Summary> {
    let (near, far) = pair()?;
    let answers = far.try_clone()?;
    let echo = serve(folder, shape, (far, answers))?;
    let samples = ask(near, length)?;
    echo.join().map_err(|_| "the echo panicked")??;
    Ok(samples.summary())
}

/// The same at a pace, a thousand a second, until somebody else on another socket has it: from the moment it was
/// due. All threads have slept before they are needed.
pub(crate) fn deliver(folder: &Path, shape: Shape, length: Duration) -> Fallible<Summary> {
    let ((mut near, far), (to, mut from)) = (pair()?, pair()?);
    let echo = serve(folder, shape, (far, to))?;
    let start = Instant::now();
    let due = move |number: u64| start.after(PACE * u32::try_from(number).unwrap_or(u32::MAX));
    let subscriber = thread::Builder::new().spawn(move || -> io::Result<Samples> {
        let (mut samples, mut buffer) = (Samples::default(), [0; ROUND_TRIP_BYTES]);
        for number in 0.. {
            match from.read_exact(&mut buffer) {
                Ok(()) => samples.note(due(number).elapsed(), ROUND_TRIP_BYTES),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(samples)
    })?;
    for number in 0..(length.as_nanos() / PACE.as_nanos()) as u64 {
        let left = due(number).since(Instant::now());
        thread::sleep(left.saturating_sub(AWAKE));
        while due(number) > Instant::now() {
            std::hint::spin_loop();
        }
        near.write_all(&[7; ROUND_TRIP_BYTES])?;
    }
    drop(near);
    echo.join().map_err(|_| "the echo panicked")??;
    let samples = subscriber.join();
    Ok(samples.map_err(|_| "the subscriber panicked")??.summary())
}

/// Answers each record on the second socket, once it is written and synced.
fn serve(
    folder: &Path,
    shape: Shape,
    (mut records, mut answers): (TcpStream, TcpStream),
) -> Fallible<JoinHandle<io::Result<()>>> {
    let path = folder.join("raw.echo");
    let file = prepare(&path, shape)?;
    Ok(thread::Builder::new().spawn(move || {
        let (mut buffer, block) = ([0; ROUND_TRIP_BYTES], Aligned::new(shape.bytes));
        let mut position = 0;
        loop {
            match records.read_exact(&mut buffer) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return std::fs::remove_file(&path);
                }
                Err(error) => return Err(error),
            }
            position = write_and_sync(&file, &block, position)?;
            answers.write_all(&buffer)?;
        }
    })?)
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
