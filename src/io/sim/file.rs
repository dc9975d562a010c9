//! One file of the simulated disk.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::faults::{Astray, SimAstray, SimFault, SimOperation};
use super::record::Step;
use super::{SimDisk, State};
use crate::io::{BLOCK_BYTES, DiskFile, IoError};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) id: u64,
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

impl State {
    fn len_of(&self, id: u64) -> u64 {
        let content = self.contents.get(&id);
        content.map_or(0, |content| content.now.len() as u64)
    }

    fn name_of(&self, id: u64) -> Option<PathBuf> {
        let name = self.names.iter().find(|(_, named)| **named == id);
        name.map(|(name, _)| name.clone())
    }

    /// Files in the folder of `path`, as ids and lengths.
    fn beside(&self, path: &Path) -> Vec<(u64, u64)> {
        let names = self.names.iter();
        let beside = names.filter(|(other, _)| other.parent() == path.parent());
        beside.map(|(_, id)| (*id, self.len_of(*id))).collect()
    }

    /// The place that an operation meant for `meant` goes to, and how many of its bytes.
    fn astray(
        &mut self,
        path: &Path,
        meant: (u64, u64),
        (bytes, is_read, mut random): (u64, bool, fastrand::Rng),
    ) -> Astray {
        let files = self.beside(path);
        let hit = self.faults.elsewhere(meant, &files, (is_read, &mut random));
        let bytes = bytes.min(self.len_of(hit.0).saturating_sub(hit.1));
        let astray = Astray { meant, hit, bytes };
        self.faults.astray = Some(astray);
        astray
    }

    /// Where the operation went that went astray.
    pub(super) fn astray_by_name(&self) -> Option<SimAstray> {
        let astray = self.faults.astray?;
        Some(SimAstray {
            meant: self.name_of(astray.meant.0).unwrap_or_default(),
            meant_position: astray.meant.1,
            hit: self.name_of(astray.hit.0).unwrap_or_default(),
            hit_position: astray.hit.1,
            bytes: astray.bytes,
        })
    }

    /// Where a write goes, and how many of its bytes: one that went astray makes no file longer.
    /// The first `head` of them are there already.
    fn destination(
        &mut self,
        file: &SimFile,
        position: u64,
        (head, bytes): (usize, usize),
    ) -> (u64, u64, usize) {
        let new = position.saturating_add(head as u64);
        let Some(random) = self.faults.detour_of_write() else {
            self.faults.note_written(file.id, new);
            return (file.id, position, bytes);
        };
        let meant = (file.id, new);
        let astray = self.astray(&file.path, meant, (bytes as u64, false, random));
        // What was meant to become longer does so all the same.
        let end = index(position).saturating_add(bytes);
        if self.len_of(file.id) < end as u64 {
            self.take(Step::Resize(file.id, end));
        }
        (astray.hit.0, astray.hit.1, index(astray.bytes))
    }
}

impl SimFile {
    /// Writes what is new in `bytes` at those places, and what lies around it again.
    fn write(&self, position: u64, bytes: &[u8], new: &Range<usize>) -> Result<(), IoError> {
        let mut state = self.disk.state();
        let mut fault = state.faults.strike(SimOperation::Write, &self.path);
        state.faults.note_use(self.id);
        let mut taken = match fault {
            Some(_) => bytes.get(..new.start + new.len() / 2).unwrap_or_default(),
            None => bytes,
        };
        let end = position.saturating_add(taken.len() as u64);
        let fits = state.reachable(self.id, end).saturating_sub(position);
        if position.saturating_add(fits) < end {
            taken = taken.get(..index(fits)).unwrap_or_default();
            fault = Some(SimFault::Full);
        }
        let whole = (new.start, taken.len());
        let (id, at, taken_bytes) = state.destination(self, position, whole);
        let taken = taken.get(..taken_bytes).unwrap_or_default();
        state.take(Step::Write(id, index(at), taken.to_vec()));
        match fault {
            Some(fault) => Err(IoError::new("write", &self.path, fault.error())),
            None => Ok(()),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, IoError> {
        let mut state = self.disk.state();
        let end = position.saturating_add(buffer.len() as u64);
        let refuses = |(id, range): &(u64, Range<u64>)| {
            *id == self.id && range.start < end && position < range.end
        };
        if state.unreadable.iter().any(refuses) {
            let source = SimFault::Device.error();
            return Err(IoError::new("read", &self.path, source));
        }
        let (id, at) = if let Some(random) = state.faults.detour_of_read() {
            let wanted = (buffer.len() as u64, true, random);
            state.astray(&self.path, (self.id, position), wanted).hit
        } else {
            state.faults.note_read(self.id, position);
            (self.id, position)
        };
        let bytes = state
            .contents
            .get(&id)
            .and_then(|content| content.now.get(index(at)..))
            .unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        if id == self.id && at == position {
            return Ok(read);
        }
        // The length is the file system's, only the bytes are wrong.
        let meant = index(state.len_of(self.id).saturating_sub(position)).min(buffer.len());
        buffer.iter_mut().skip(read).for_each(|byte| *byte = 0);
        Ok(meant)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.write(position, bytes, &(0..bytes.len()))
    }

    /// As a device does that takes whole blocks: what shares a block with `bytes` is written again, and zeros
    /// behind them, as far as the file reaches.
    fn append_at(&self, position: u64, bytes: &[u8]) -> Result<(), IoError> {
        let start = position - position % BLOCK_BYTES as u64;
        let end = position.saturating_add(bytes.len() as u64);
        let block_end = end.next_multiple_of(BLOCK_BYTES as u64);
        let (mut blocks, until) = {
            let state = self.disk.state();
            let content = state.contents.get(&self.id);
            let head = content.and_then(|content| content.now.get(index(start)..));
            let head = head.unwrap_or_default();
            let head = head.get(..index(position - start)).unwrap_or(head).to_vec();
            (head, block_end.min(state.len_of(self.id).max(end)))
        };
        blocks.resize(index(position - start), 0);
        blocks.extend_from_slice(bytes);
        blocks.resize(index(until - start), 0);
        let head = index(position - start);
        self.write(start, &blocks, &(head..head + bytes.len()))
    }

    fn reserve(&self, _from: u64, end: u64) -> Result<(), IoError> {
        let mut state = self.disk.state();
        let reached = state.reachable(self.id, end);
        if reached > state.len_of(self.id) {
            state.take(Step::Resize(self.id, index(reached)));
        }
        if reached < end {
            let source = SimFault::Full.error();
            return Err(IoError::new("reserve space in", &self.path, source));
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.disk.pass_gate();
        let mut state = self.disk.state();
        let name = state.name_of(self.id).unwrap_or_else(|| self.path.clone());
        let fault = state.faults.strike(SimOperation::Sync, &name);
        state.faults.note_use(self.id);
        if let Some(fault) = fault {
            state.faults.note_failed_sync(self.id);
            state.take(Step::SetAdrift(self.id));
            return Err(IoError::new("sync", &self.path, fault.error()));
        }
        let synced = if state.faults.lies_now() {
            Step::SetAdrift(self.id)
        } else {
            Step::Sync(self.id)
        };
        if !state.is_read_only {
            state.take(synced);
        }
        Ok(())
    }

    fn len_bytes(&self) -> Result<u64, IoError> {
        Ok(self.disk.state().len_of(self.id))
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        self.disk
            .strike(SimOperation::SetLen, "resize", &self.path)?;
        let resized = Step::Resize(self.id, index(bytes));
        self.disk.state().take(resized);
        Ok(())
    }
}
