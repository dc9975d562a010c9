//! Reading files from their beginning to their end.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use falcon::clock::Instant;
use rustix::fs::{Advice, OFlags, fadvise};
use serde::Serialize;

use super::Fallible;
use super::aligned::{ALIGNMENT, Aligned};
use super::cache::{Cold, drop_caches};

/// Bytes of each read.
const READ_BYTES: usize = 1 << 20;

/// MB a second.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Reads {
    /// From the page cache.
    pub(crate) hot: f64,
    /// Through an empty page cache.
    pub(crate) cold: f64,
    /// Past the page cache.
    pub(crate) cold_direct: f64,
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
    Ok(Reads {
        hot,
        cold,
        cold_direct,
        is_all_dropped,
    })
}

/// MB a second, of those files that are still there: a broker that runs removes dead ones.
pub(crate) fn read(paths: &[PathBuf], is_direct: bool) -> Fallible<f64> {
    let mut buffer = Aligned::new(READ_BYTES);
    let mut bytes = 0;
    let begun = Instant::now();
    for path in paths {
        bytes += match read_one(path, is_direct, &mut buffer) {
            Err(_) if !path.try_exists()? => 0,
            read => read?,
        };
    }
    Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

fn read_one(path: &Path, is_direct: bool, buffer: &mut Aligned) -> Fallible<u64> {
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
        fadvise(&file, 0, None, Advice::Sequential)?;
    }
    let mut position = 0;
    loop {
        let read = file.read_at(buffer.bytes_mut(), position)?;
        position += read as u64;
        // A direct read behind the last whole block would not be aligned.
        if read < READ_BYTES {
            return Ok(position);
        }
    }
}
