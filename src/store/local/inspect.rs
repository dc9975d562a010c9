//! Looking at a data folder without changing it.
//!
//! Owns the judgement of a folder that no broker runs on: every checksum, the chain of segments and
//! commit sequences, footers against bodies, the clean-stop marker against the journal's end, the
//! index against the journal, and each partition's records in the order of their offsets. Promises:
//! nothing in the folder is written, bytes that the device does not give count as damage instead of
//! ending the inspection, and all that proves itself can be read. It reads with recovery's own
//! passes, so what it calls damaged is what a broker refuses. Must not know: what rows mean.

mod ends;
mod finding;
mod patient;
mod records;
mod segments;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use falcon_protocol::{Offset, PartitionId};

use self::patient::PatientDisk;
use super::LocalConfig;
use super::identity::{CleanMarker, Identity};
use super::index::MemoryIndex;
use super::journal::state::Bounds;
use super::open::{IDENTITY, JOURNAL, LOCK, clean_path, list_journal, synced_path};
use super::recovery::{Flaw, Given, LastWord, is_outlived, missing, replay, survey};
use super::segments::{SegmentInfo, Segments};
use super::synced::SyncedMark;
use super::{OpenError, TornTail};
use crate::io::{Disk, DiskLock};
use crate::store::Replay;

pub use finding::{Finding, FindingKind};
pub use tree::IndexVerdict;

/// Told how many more bytes were read.
pub type OnRead = Arc<dyn Fn(u64) + Send + Sync>;

/// A data folder, locked and read through once.
#[derive(Debug)]
pub struct Inspection {
    config: LocalConfig,
    disk: Arc<PatientDisk>,
    segments: Segments,
    epoch: u32,
    clean: Option<CleanMarker>,
    infos: BTreeMap<u64, SegmentInfo>,
    memory: MemoryIndex,
    bounds: HashMap<PartitionId, Bounds>,
    flaws: Vec<Flaw>,
    missing: Vec<u64>,
    findings: Vec<Finding>,
    torn_tail: Option<TornTail>,
    _lock: Box<dyn DiskLock>,
}

impl Inspection {
    /// Locks the folder, reads the whole journal, and replays rows and batch headers.
    pub fn open(
        config: LocalConfig,
        disk: Arc<dyn Disk>,
        on_read: OnRead,
        replay_to: &mut dyn Replay,
    ) -> Result<Self, OpenError> {
        let dir = config.data_dir.clone();
        let lock = disk.lock(&dir.join(LOCK))?;
        let lock = lock.ok_or_else(|| OpenError::Locked { path: dir.clone() })?;
        let journal_dir = dir.join(JOURNAL);
        let disk = Arc::new(PatientDisk::new(disk, on_read));
        let mut findings = Vec::new();
        let identity = read_identity(disk.as_ref(), &dir, &mut findings)?;
        let (mut numbers, _) = match list_journal(disk.as_ref(), &journal_dir) {
            Ok(listed) => listed,
            // A folder that never held anything.
            Err(error) if identity.is_none() && error.is_not_found() => {
                return Err(OpenError::NotFalcon { path: dir });
            }
            Err(error) => return Err(error.into()),
        };
        let as_disk: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
        let segments = Segments::new(Arc::clone(&as_disk), &journal_dir, false);
        let journal_id = segments::check_headers(
            &segments,
            &mut numbers,
            identity.map(|identity| identity.journal_id),
            &mut findings,
        )?;
        let Some(journal_id) = journal_id else {
            return Err(OpenError::NotFalcon { path: dir });
        };
        let clean = read_clean(disk.as_ref(), &config, journal_id, &mut findings);
        let clean = match clean {
            Some(clean) if is_outlived(&clean, &segments, &numbers)? => {
                let path = clean_path(&config);
                findings.push(Finding::new(&dir, &path, FindingKind::Marker));
                None
            }
            clean => clean,
        };
        let synced = SyncedMark::read(disk.as_ref(), &synced_path(&config), journal_id);
        let last = LastWord {
            clean: clean.as_ref(),
            synced: synced.as_ref(),
        };
        let given = Given {
            segments: &segments,
            journal_id,
            last,
            trusts_footers: false,
            progress: None,
        };
        let mut found = survey(given, &numbers)?;
        segments::prefer_footers(&segments, &mut found)?;
        let newest = found.newest_snapshot;
        let replayed = replay(&segments, &found.infos, newest, last, replay_to)?;
        let torn_tail = ends::torn_tail(clean.as_ref(), &found);
        let missing = missing(last, &found.infos);
        let mut inspection = Self {
            epoch: identity.map_or(0, |identity| identity.epoch),
            config,
            disk,
            segments,
            clean,
            infos: found.infos,
            memory: found.memory,
            bounds: replayed.bounds,
            flaws: found.flaws,
            missing,
            findings,
            torn_tail,
            _lock: lock,
        };
        inspection.check_journal()?;
        Ok(inspection)
    }

    /// Everything that is not as it was written, but for the records that cannot be read: those
    /// are named by [`read`](Self::read).
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The epoch of the last owner.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether the last stop was clean.
    pub const fn was_clean(&self) -> bool {
        self.clean.is_some()
    }

    /// What a crash left behind the journal's end. The next start cuts it; nobody was told that it
    /// is stored.
    pub const fn torn_tail(&self) -> Option<TornTail> {
        self.torn_tail
    }

    /// Live segments.
    pub fn segment_count(&self) -> usize {
        self.infos.len()
    }

    /// Log start and end of a partition, as the journal has them.
    pub fn bounds(&self, partition: PartitionId) -> Option<(Offset, Offset)> {
        let bounds = self.bounds.get(&partition)?;
        Some((bounds.start, bounds.end))
    }

    fn check_journal(&mut self) -> Result<(), OpenError> {
        let mut found = Vec::new();
        for flaw in &self.flaws {
            found.extend(Finding::of_flaw(flaw, &self.config, &self.segments));
        }
        for number in &self.missing {
            found.push(self.finding(&self.segments.path(*number), FindingKind::SegmentMissing));
        }
        self.check_segments(&mut found)?;
        self.check_marker(&mut found);
        self.findings.append(&mut found);
        Ok(())
    }

    fn finding(&self, path: &Path, kind: FindingKind) -> Finding {
        Finding::new(&self.config.data_dir, path, kind)
    }

    /// Stretches that the device did not give, since the last time this was asked.
    pub fn take_unreadable(&self) -> Vec<Finding> {
        let taken = self.disk.take_unreadable();
        let named = taken.into_iter().map(|(path, position, bytes)| {
            let kind = FindingKind::Unreadable { bytes };
            self.finding(&path, kind).at(position)
        });
        named.collect()
    }
}

fn read_identity(
    disk: &dyn Disk,
    dir: &Path,
    findings: &mut Vec<Finding>,
) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(IDENTITY);
    let Some(slots) = Identity::slots(disk, &path)? else {
        return Ok(None);
    };
    let newest = slots
        .iter()
        .flatten()
        .max_by_key(|slot| slot.epoch)
        .copied();
    let is_whole = slots.iter().all(Option::is_some);
    if newest.is_none() {
        findings.push(Finding::new(dir, &path, FindingKind::Identity));
    } else if !is_whole {
        findings.push(Finding::new(dir, &path, FindingKind::IdentitySlot));
    }
    Ok(newest)
}

fn read_clean(
    disk: &dyn Disk,
    config: &LocalConfig,
    journal_id: u128,
    findings: &mut Vec<Finding>,
) -> Option<CleanMarker> {
    let path = clean_path(config);
    let is_there = disk.open(&path).is_ok();
    let marker = CleanMarker::read(disk, &path);
    let ours = marker.filter(|marker| marker.journal_id == journal_id);
    if is_there && ours.is_none() {
        findings.push(Finding::new(&config.data_dir, &path, FindingKind::Marker));
    }
    ours
}
