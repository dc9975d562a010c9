//! A file past the page cache, written at any position.
//!
//! Owns the aligned memory that the device wants, and the last block of what was appended, which the next
//! append writes again. Promises that bytes before an append stay, whatever block they share with it.
//! Must not know: what is appended.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

use super::RealFile;
use super::scratch::{self, PLACE_BYTES, Scratch};
use crate::io::{BLOCK_BYTES, BlockBuffer, DiskFile, IoError, skip_to_phase};

/// Copied and written at once. LIMIT: what a handle holds for writing, and again for reading.
const CHUNK_BYTES: usize = 256 << 10;
/// From here on it is worth three pieces instead of a copy.
const PIECES_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct DirectFile {
    direct: File,
    /// For all that is not bytes.
    plain: RealFile,
    end: Mutex<End>,
    reads: Mutex<Option<BlockBuffer>>,
}

/// What the next append needs.
#[derive(Debug)]
struct End {
    /// Where the block begins that was written last, and how many of its bytes count.
    block: Option<(u64, usize)>,
    /// Those bytes.
    bytes: Vec<u8>,
    scratch: Option<BlockBuffer>,
}

/// Opens a file for direct I/O; gives `plain` back where the file system has none.
pub(super) fn open(path: &Path, plain: RealFile) -> Result<DirectFile, RealFile> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path);
    match opened {
        Ok(direct) if suits(&direct) => Ok(DirectFile {
            direct,
            plain,
            end: Mutex::new(End {
                block: None,
                bytes: Vec::with_capacity(BLOCK_BYTES),
                scratch: None,
            }),
            reads: Mutex::default(),
        }),
        Ok(_) | Err(_) => Err(plain),
    }
}

/// Whether blocks of [`BLOCK_BYTES`] will do. A kernel that cannot tell gets the benefit of the doubt:
/// it refused to open the file if it could not.
fn suits(file: &File) -> bool {
    let Ok(found) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return true;
    };
    if found.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return true;
    }
    let fits = |align: u32| align > 0 && BLOCK_BYTES.is_multiple_of(align as usize);
    fits(found.stx_dio_offset_align) && fits(found.stx_dio_mem_align)
}

fn whole_blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Splits a position into the start of its block and the bytes before it there.
fn split(position: u64) -> (u64, usize) {
    let before = position % BLOCK_BYTES as u64;
    (position - before, usize::try_from(before).unwrap_or(0))
}

impl DirectFile {
    /// Fills `blocks`, which begin at `start` in the file; fewer bytes only at the end of the file.
    fn read_blocks(&self, blocks: &mut [u8], start: u64) -> Result<usize, IoError> {
        let mut at = 0_usize;
        // A read that ends early on a whole block may go on; one that does not is at the end of the file.
        while at.is_multiple_of(BLOCK_BYTES)
            && let Some(rest) = blocks.get_mut(at..)
            && !rest.is_empty()
        {
            match self.direct.read_at(rest, start + at as u64) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.plain.error("read")(error)),
            }
        }
        Ok(at)
    }

    /// A copy from memory that the device fills quickly costs less than to have it fill any other.
    fn fetch_through(
        &self,
        mut scratch: Scratch,
        position: u64,
        bytes: usize,
    ) -> Result<Bytes, IoError> {
        let mut memory = Vec::with_capacity(bytes);
        while memory.len() < bytes {
            let (start, before) = split(position + memory.len() as u64);
            let end = before + bytes - memory.len();
            let blocks = whole_blocks(end).min(PLACE_BYTES);
            let blocks = scratch.get_mut(..blocks).unwrap_or_default();
            let read = self.read_blocks(blocks, start)?;
            let got = blocks.get(before..read.min(end)).unwrap_or_default();
            memory.extend_from_slice(got);
            if read < blocks.len() {
                break;
            }
        }
        Ok(Bytes::from(memory))
    }

    /// The bytes before an append in its first block.
    fn head(&self, end: &End, position: u64) -> Result<Vec<u8>, IoError> {
        let (start, before) = split(position);
        if let Some((block, filled)) = end.block
            && block == start
            && filled >= before
        {
            return Ok(end.bytes.get(..before).unwrap_or_default().to_vec());
        }
        let mut head = vec![0; before];
        self.read_at(start, &mut head)?;
        Ok(head)
    }

    /// In pieces: the blocks shared with others through scratch, all between as it lies in memory.
    fn write_pieces(
        &self,
        scratch: &mut BlockBuffer,
        (start, head): (u64, &[u8]),
        bytes: &[u8],
    ) -> Result<(), IoError> {
        let first = if head.is_empty() {
            0
        } else {
            BLOCK_BYTES - head.len()
        };
        let (first, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        let (middle, last) = rest
            .split_at_checked(rest.len() / BLOCK_BYTES * BLOCK_BYTES)
            .unwrap_or_default();
        let (front, back) = scratch.bytes_mut().split_at_mut(BLOCK_BYTES);
        fill(front, &[head, first]);
        let back = back.get_mut(..BLOCK_BYTES).unwrap_or_default();
        fill(back, &[last]);
        let front: &[u8] = if head.is_empty() { &[] } else { front };
        let back: &[u8] = if last.is_empty() { &[] } else { back };
        let mut pieces = [front, middle, back].map(IoSlice::new);
        let mut pieces = pieces.as_mut_slice();
        let mut position = start;
        let all = front.len() + middle.len() + back.len();
        let end = start + all as u64;
        IoSlice::advance_slices(&mut pieces, 0);
        while position < end {
            match rustix::io::pwritev(&self.direct, pieces, position) {
                Ok(0) => return Err(self.plain.error("write")(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut pieces, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.plain.error("write")(error.into())),
            }
        }
        Ok(())
    }

    /// Through scratch, a chunk after the other.
    fn write_copied(
        &self,
        scratch: &mut BlockBuffer,
        (start, head): (u64, &[u8]),
        bytes: &[u8],
    ) -> Result<(), IoError> {
        let mut position = start;
        let (mut head, mut rest) = (head, bytes);
        while !rest.is_empty() {
            let room = (CHUNK_BYTES - head.len()).min(rest.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            let blocks = whole_blocks(head.len() + now.len());
            let chunk = scratch.bytes_mut().get_mut(..blocks).unwrap_or_default();
            fill(chunk, &[head, now]);
            self.direct
                .write_all_at(chunk, position)
                .map_err(self.plain.error("write"))?;
            position += blocks as u64;
            (head, rest) = (&[], later);
        }
        Ok(())
    }
}

/// Puts `parts` at the front of `to`, and zeros behind them.
fn fill(to: &mut [u8], parts: &[&[u8]]) {
    let mut rest = to;
    for part in parts {
        let Some((now, later)) = rest.split_at_mut_checked(part.len()) else {
            return;
        };
        now.copy_from_slice(part);
        rest = later;
    }
    rest.fill(0);
}

impl End {
    /// Notes the last block of an append that ends at `position`.
    fn remember(&mut self, position: u64, head: &[u8], bytes: &[u8]) {
        let (start, filled) = split(position);
        let from_bytes = filled.min(bytes.len());
        let from_head = filled - from_bytes;
        self.bytes.clear();
        self.bytes
            .extend_from_slice(head.get(..from_head).unwrap_or_default());
        self.bytes
            .extend_from_slice(bytes.get(bytes.len() - from_bytes..).unwrap_or_default());
        self.block = Some((start, filled));
    }
}

impl DiskFile for DirectFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let taken = self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut scratch = taken.unwrap_or_else(|| BlockBuffer::zeroed(CHUNK_BYTES));
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (start, before) = split(position + done as u64);
            let blocks = whole_blocks(before + rest.len()).min(CHUNK_BYTES);
            let chunk = scratch.bytes_mut().get_mut(..blocks).unwrap_or_default();
            let read = match self.direct.read_at(chunk, start) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.plain.error("read")(error)),
            };
            let got = chunk.get(before..read).unwrap_or_default();
            let got = got.get(..rest.len()).unwrap_or(got);
            copy_front(rest, got);
            done += got.len();
            if got.is_empty() {
                break;
            }
        }
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = Some(scratch);
        Ok(done)
    }

    fn fetch(&self, position: u64, bytes: usize) -> Result<Bytes, IoError> {
        if let Some(scratch) = scratch::take() {
            return self.fetch_through(scratch, position, bytes);
        }
        let (start, before) = split(position);
        let mut blocks = BlockBuffer::zeroed(whole_blocks(before + bytes));
        let read = self.read_blocks(blocks.bytes_mut(), start)?;
        Ok(blocks.slice(before..read.min(before + bytes)))
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.block = None;
        self.plain.write_at(position, bytes)
    }

    fn append_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let end = &mut *end;
        let head = self.head(end, position)?;
        // What fails half-way leaves a block that is not known.
        end.block = None;
        let at = (split(position).0, head.as_slice());
        let scratch = &mut end.scratch;
        let scratch = scratch.get_or_insert_with(|| BlockBuffer::zeroed(CHUNK_BYTES));
        let is_in_phase = skip_to_phase(bytes.as_ptr(), position) == 0;
        if bytes.len() >= PIECES_BYTES && is_in_phase {
            self.write_pieces(scratch, at, bytes)?;
        } else {
            self.write_copied(scratch, at, bytes)?;
        }
        end.remember(position + bytes.len() as u64, &head, bytes);
        Ok(())
    }

    fn reserve(&self, from: u64, end: u64) -> Result<(), IoError> {
        self.plain.reserve(from, end)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.plain.sync_data()
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        self.plain.len_bytes()
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.block = None;
        self.plain.set_len(bytes)
    }
}

/// Copies `from` to the front of `to`, which is as long at least.
fn copy_front(to: &mut [u8], from: &[u8]) {
    if let Some(front) = to.get_mut(..from.len()) {
        front.copy_from_slice(from);
    }
}
