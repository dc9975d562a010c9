//! Which operations fail, lie, or go astray, and what came of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

const ERRNO_IO: i32 = 5;
const ERRNO_FULL: i32 = 28;
/// Places written or read last, to one of which a misdirected write or read goes.
const PLACES_MAX: usize = 64;

/// How an operation fails on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// The device reports an error (`EIO`).
    Device,
    /// The device is full (`ENOSPC`).
    Full,
}

impl SimFault {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Device => ERRNO_IO,
            Self::Full => ERRNO_FULL,
        })
    }
}

/// An operation that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOperation {
    /// A write.
    Write,
    /// A `sync_data`.
    Sync,
    /// A `sync_dir`.
    SyncDir,
    /// The creation of a file.
    Create,
    /// A rename.
    Rename,
    /// A change of a file's length.
    SetLen,
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimTimes {
    /// It strikes once.
    Once,
    /// It strikes from then on.
    Sticky,
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimFailure {
    /// What failed.
    pub operation: SimOperation,
    /// On which path.
    pub path: PathBuf,
    /// The thread that asked for it.
    pub thread: String,
}

/// Where a write or read went that was meant for elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimAstray {
    /// The file that was meant, by its present name.
    pub meant: PathBuf,
    /// The position that was meant.
    pub meant_position: u64,
    /// The file that was hit.
    pub hit: PathBuf,
    /// The position that was hit.
    pub hit_position: u64,
    /// How many bytes were written or read there.
    pub bytes: u64,
}

/// The same with the files' ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Astray {
    pub(super) meant: (u64, u64),
    pub(super) hit: (u64, u64),
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    at: u64,
    times: SimTimes,
}

impl Plan {
    fn strikes(self, count: u64) -> bool {
        match self.times {
            SimTimes::Once => count == self.at,
            SimTimes::Sticky => count >= self.at,
        }
    }
}

/// A misdirection to come: of the `at`-th operation, to a place that the seed decides.
#[derive(Debug, Clone, Copy)]
struct Detour {
    at: u64,
    seed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    counts: BTreeMap<SimOperation, u64>,
    plans: BTreeMap<SimOperation, (Plan, SimFault)>,
    lies: Option<Plan>,
    reads: u64,
    detour_of_write: Option<Detour>,
    detour_of_read: Option<Detour>,
    pub(super) failures: Vec<SimFailure>,
    pub(super) astray: Option<Astray>,
    /// Files with a failed `sync_data`, and what was asked of them afterwards.
    failed_files: BTreeSet<u64>,
    pub(super) used_after_failure: u64,
    written: VecDeque<(u64, u64)>,
    read: VecDeque<(u64, u64)>,
}

impl Faults {
    pub(super) fn count(&self, operation: SimOperation) -> u64 {
        self.counts.get(&operation).copied().unwrap_or(0)
    }

    pub(super) fn plan(
        &mut self,
        operation: SimOperation,
        n: u64,
        fault: SimFault,
        times: SimTimes,
    ) {
        let at = self.count(operation) + n;
        self.plans.insert(operation, (Plan { at, times }, fault));
    }

    pub(super) fn plan_lie(&mut self, n: u64, times: SimTimes) {
        let at = self.count(SimOperation::Sync) + n;
        self.lies = Some(Plan { at, times });
    }

    pub(super) fn plan_detour_of_write(&mut self, n: u64, seed: u64) {
        let at = self.count(SimOperation::Write) + n;
        self.detour_of_write = Some(Detour { at, seed });
    }

    pub(super) fn plan_detour_of_read(&mut self, n: u64, seed: u64) {
        let at = self.reads + n;
        self.detour_of_read = Some(Detour { at, seed });
    }

    /// Counts an operation; answers how it fails, if it does.
    pub(super) fn strike(&mut self, operation: SimOperation, path: &Path) -> Option<SimFault> {
        let count = self.counts.entry(operation).or_default();
        *count += 1;
        let (plan, fault) = *self.plans.get(&operation)?;
        if !plan.strikes(*count) {
            return None;
        }
        let thread = std::thread::current();
        self.failures.push(SimFailure {
            operation,
            path: path.to_path_buf(),
            thread: thread.name().unwrap_or_default().to_owned(),
        });
        Some(fault)
    }

    /// Whether the sync that was just counted lies.
    pub(super) fn lies_now(&self) -> bool {
        let count = self.count(SimOperation::Sync);
        self.lies.is_some_and(|plan| plan.strikes(count))
    }

    /// INVARIANT of whoever uses the disk: a file whose sync failed is left alone.
    pub(super) fn note_use(&mut self, file: u64) {
        self.used_after_failure += u64::from(self.failed_files.contains(&file));
    }

    pub(super) fn note_failed_sync(&mut self, file: u64) {
        self.failed_files.insert(file);
    }

    pub(super) fn note_written(&mut self, file: u64, position: u64) {
        note_place(&mut self.written, (file, position));
    }

    pub(super) fn note_read(&mut self, file: u64, position: u64) {
        note_place(&mut self.read, (file, position));
    }

    /// The random choices of a write that goes astray now.
    pub(super) fn detour_of_write(&mut self) -> Option<fastrand::Rng> {
        let count = self.count(SimOperation::Write);
        let detour = self.detour_of_write.filter(|detour| detour.at == count)?;
        Some(fastrand::Rng::with_seed(detour.seed))
    }

    /// Counts a read; answers the random choices if it goes astray.
    pub(super) fn detour_of_read(&mut self) -> Option<fastrand::Rng> {
        self.reads += 1;
        let detour = self.detour_of_read.filter(|d| d.at == self.reads)?;
        Some(fastrand::Rng::with_seed(detour.seed))
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// Another place than the one meant: most often one that the same was done to before, else any
    /// sector of `files`, which are ids and lengths.
    pub(super) fn elsewhere(
        &self,
        meant: (u64, u64),
        files: &[(u64, u64)],
        (is_read, random): (bool, &mut fastrand::Rng),
    ) -> (u64, u64) {
        let known = if is_read { &self.read } else { &self.written };
        let is_other = |place: &&(u64, u64)| {
            **place != meant && files.iter().any(|(file, _)| *file == place.0)
        };
        let known: Vec<&(u64, u64)> = known.iter().filter(is_other).collect();
        if let Some(place) = random.choice(&known).filter(|_| random.u8(0..4) > 0) {
            return **place;
        }
        let (file, bytes) = random.choice(files).copied().unwrap_or((meant.0, 0));
        (file, random.u64(0..bytes.max(1)) / 512 * 512)
    }

    /// Everything works again; what was counted and noted stays.
    pub(super) fn heal(&mut self) {
        self.plans.clear();
        self.lies = None;
        self.detour_of_read = None;
        self.detour_of_write = None;
        self.note_restart();
    }

    pub(super) fn note_restart(&mut self) {
        self.failed_files.clear();
    }
}

fn note_place(places: &mut VecDeque<(u64, u64)>, place: (u64, u64)) {
    places.push_back(place);
    if places.len() > PLACES_MAX {
        places.pop_front();
    }
}
