//! A write and a sync, one after the other, as a journal does them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use falcon::clock::Instant;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use serde::Serialize;

use super::Fallible;
use super::aligned::Aligned;
use super::samples::{Samples, Summary};

/// What is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// A file that grows with every write.
    Growing,
    /// A file whose blocks were set aside, and are unwritten.
    Reserved,
    /// A file that was written and synced before.
    Written,
}

/// How it is written.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Shape {
    /// Bytes of each write.
    pub(crate) bytes: usize,
    /// Past the page cache.
    pub(crate) is_direct: bool,
    /// What is written into.
    pub(crate) target: Target,
}

/// One measured shape.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Written {
    /// How.
    #[serde(flatten)]
    pub(crate) shape: Shape,
    /// How fast.
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// Every size, both ways, into each kind of file.
pub(crate) fn shapes(sizes: &[usize]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for &bytes in sizes {
        for target in [Target::Growing, Target::Reserved, Target::Written] {
            for is_direct in [false, true] {
                shapes.push(Shape {
                    bytes,
                    is_direct,
                    target,
                });
            }
        }
    }
    shapes
}

/// Bytes of the file that is written before it is begun again, as a journal rolls.
const FILE_BYTES: u64 = 128 << 20;

/// Writes one after the other for so long.
pub(crate) fn measure(folder: &Path, shape: Shape, length: Duration) -> Fallible<Written> {
    let buffer = Aligned::new(shape.bytes);
    let path = folder.join("raw.write");
    let mut samples = Samples::default();
    let mut spent = Duration::ZERO;
    while spent < length {
        let file = prepare(&path, shape)?;
        let mut position = 0;
        loop {
            let begun = Instant::now();
            position = write_and_sync(&file, &buffer, position)?;
            let took = begun.elapsed();
            samples.note(took, shape.bytes);
            spent += took;
            if position == 0 || spent >= length {
                break;
            }
        }
    }
    std::fs::remove_file(&path)?;
    let summary = samples.summary();
    Ok(Written { shape, summary })
}

/// Answers the position behind it, or 0 at the end of the file.
pub(crate) fn write_and_sync(file: &File, from: &Aligned, position: u64) -> io::Result<u64> {
    file.write_all_at(from.bytes(), position)?;
    file.sync_data()?;
    let next = position + from.bytes().len() as u64;
    Ok(if next < FILE_BYTES { next } else { 0 })
}

/// A file of this kind, opened; one that was written before is taken again.
pub(crate) fn prepare(path: &Path, shape: Shape) -> Fallible<File> {
    let is_again = shape.target == Target::Written && path.exists();
    if !is_again {
        create(path, shape.target)?;
    }
    let flags = if shape.is_direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let flags = flags.bits().cast_signed();
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    Ok(opened?)
}

fn create(path: &Path, target: Target) -> Fallible<()> {
    let file = File::create(path)?;
    match target {
        Target::Growing => {}
        Target::Reserved => fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?,
        Target::Written => {
            let fill = Aligned::new(1 << 20);
            for position in (0..FILE_BYTES).step_by(1 << 20) {
                file.write_all_at(fill.bytes(), position)?;
            }
        }
    }
    file.sync_all()?;
    Ok(())
}

/// The same shape both ways into each kind of file, for so long each.
pub(crate) fn measure_all(folder: &Path, bytes: usize, length: Duration) -> Fallible<Vec<Written>> {
    let shapes = shapes(&[bytes]);
    let measured = shapes.into_iter().map(|at| measure(folder, at, length));
    measured.collect()
}

/// The one with the shortest median.
pub(crate) fn quickest(measured: &[Written]) -> Option<Written> {
    let by = |a: &&Written, b: &&Written| a.summary.p50_us.total_cmp(&b.summary.p50_us);
    measured.iter().min_by(by).copied()
}

/// The one with the highest throughput.
pub(crate) fn widest(measured: &[Written]) -> Option<Written> {
    let by = |a: &&Written, b: &&Written| a.summary.mb_per_s.total_cmp(&b.summary.mb_per_s);
    measured.iter().max_by(by).copied()
}
