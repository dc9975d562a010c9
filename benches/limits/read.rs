//! Reading files from their beginning to their end.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use falcon::clock::Instant;
use memmap2::{Advice, MmapMut};
use rustix::fs::{Advice as FileAdvice, OFlags, fadvise};
use serde::Serialize;

use super::Fallible;
use super::aligned::{ALIGNMENT, Aligned};
use super::cache::{Cold, drop_caches};

/// Bytes of each read.
const READ_BYTES: usize = 1 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// MB a second.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Reads {
    /// From the page cache.
    pub(crate) hot: f64,
    /// Through an empty page cache.
    pub(crate) cold: f64,
    /// Past the page cache.
    pub(crate) cold_direct: f64,
    /// The same, into memory that lies together: a huge page, where the system has them.
    pub(crate) cold_huge: f64,
    /// Whether all of the page cache was dropped, or only these files'.
    pub(crate) is_all_dropped: bool,
}

/// The files of a folder, larger than nothing, in the order of their names.
pub(crate) fn files(folder: &Path) -> Fallible<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A broker that runs may have removed it meanwhile.
        let bytes = entry.metadata().map_or(0, |found| found.len());
        if bytes >= ALIGNMENT as u64 {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file of so many bytes that do not compress, in `folder`.
pub(crate) fn create(folder: &Path, bytes: u64) -> Fallible<PathBuf> {
    let path = folder.join("raw.read");
    let file = File::create(&path)?;
    let fill = Aligned::new(READ_BYTES);
    for position in (0..bytes).step_by(READ_BYTES) {
        file.write_all_at(fill.bytes(), position)?;
    }
    file.sync_all()?;
    Ok(path)
}

/// Reads all of the files each way. The page cache has the files of `folder` afterwards no more.
pub(crate) fn measure(folder: &Path, paths: &[PathBuf]) -> Fallible<Reads> {
    let is_all_dropped = drop_caches(folder)? == Cold::All;
    let cold = read(paths, false)?;
    let hot = read(paths, false)?;
    drop_caches(folder)?;
    let cold_direct = read(paths, true)?;
    let cold_huge = read_into(paths, true, huge_page(&mut huge()?))?;
    Ok(Reads {
        hot,
        cold,
        cold_direct,
        cold_huge,
        is_all_dropped,
    })
}

/// MB a second, of those files that are still there: a broker that runs removes dead ones.
pub(crate) fn read(paths: &[PathBuf], is_direct: bool) -> Fallible<f64> {
    read_into(paths, is_direct, Aligned::new(READ_BYTES).bytes_mut())
}

/// Memory with a huge page in it.
fn huge() -> Fallible<MmapMut> {
    let memory = MmapMut::map_anon(2 * HUGE_PAGE_BYTES)?;
    // Where there are none, it is memory as any other.
    let _is_refused = memory.advise(Advice::HugePage).is_err();
    Ok(memory)
}

/// The start of that page, touched.
fn huge_page(memory: &mut MmapMut) -> &mut [u8] {
    let from = memory.as_ptr().align_offset(HUGE_PAGE_BYTES);
    let buffer = &mut memory[from..from + READ_BYTES];
    buffer.fill(1);
    buffer
}

fn read_into(paths: &[PathBuf], is_direct: bool, buffer: &mut [u8]) -> Fallible<f64> {
    let mut bytes = 0;
    let begun = Instant::now();
    for path in paths {
        bytes += match read_one(path, is_direct, buffer) {
            Err(_) if !path.try_exists()? => 0,
            read => read?,
        };
    }
    Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

fn read_one(path: &Path, is_direct: bool, buffer: &mut [u8]) -> Fallible<u64> {
    let flags = if is_direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !is_direct {
        fadvise(&file, 0, None, FileAdvice::Sequential)?;
    }
    let mut position = 0;
    loop {
        let read = file.read_at(buffer, position)?;
        position += read as u64;
        // A direct read behind the last whole block would not be aligned.
        if read < READ_BYTES {
            return Ok(position);
        }
    }
}
