//! Opening a folder: lock, identity, recovery, index, and the clean-stop marker at the other end.

mod folder;
pub(super) mod gaps;
mod indexes;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use self::folder::Folder;
pub(super) use self::folder::{
    IDENTITY, JOURNAL, LOCK, clean_path, damaged_path, list_journal, synced_path,
};
use self::indexes::IndexPlan;
use super::append::{Active, Appender, JournalEnd};
use super::cache::TailCache;
use super::damaged;
use super::forward::Forward;
use super::identity::CleanMarker;
use super::index::Index;
use super::keeper::{self, Signal};
use super::read::Recent;
use super::recovery::{Given, LastWord, Survey, check_heads, is_outlived, missing, replay, survey};
use super::segments::{SegmentInfo, Segments};
use super::synced::{SyncedFile, SyncedMark};
use super::{LocalConfig, LocalStore, OpenError, RecoveryReport, Shared, TornTail};
use crate::io::{Disk, DiskFile, IoError};
use crate::metrics::ProcessMetrics;
use crate::store::{Damage, Replay};

/// One byte in so many of the cache may hold what several readers want that is older than the rest.
const RECENT_SHARE: usize = 4;

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long a start took, for the report; decides nothing"
)]
fn now() -> Instant {
    Instant::now()
}

impl LocalStore {
    /// Looks for what [`open`](Self::open) would refuse a folder for before it reads the journal: its identity
    /// and the headers of its segments. Changes nothing; no broker may run on it meanwhile.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn check_folder(config: &LocalConfig, disk: &Arc<dyn Disk>) -> Result<(), OpenError> {
        folder::check(config, disk)
    }

    /// Opens the folder, creating it where needed, and replays what it holds.
    pub fn open(
        config: LocalConfig,
        disk: Arc<dyn Disk>,
        replay_to: &mut dyn Replay,
    ) -> Result<(Arc<Self>, RecoveryReport), OpenError> {
        let started = now();
        let config = config.in_blocks();
        let folder = Folder::open(&config, disk.as_ref())?;
        let segments = Segments::new(Arc::clone(&disk), &folder.journal_dir, config.direct_io);
        let segments = Arc::new(segments);
        check_heads(&segments, folder.identity.journal_id, &folder.segments)?;
        let clean = read_clean(disk.as_ref(), &folder, &segments)?;
        let synced_path = synced_path(&config);
        let synced = SyncedMark::read(disk.as_ref(), &synced_path, folder.identity.journal_id);
        let last = LastWord {
            clean: clean.as_ref(),
            synced: synced.as_ref(),
        };
        check_presence(last, &folder, &segments)?;
        let progress = &config.metrics.process;
        progress.recovery_segments.set(folder.segments.len() as u64);
        let given = Given {
            segments: &segments,
            journal_id: folder.identity.journal_id,
            last,
            trusts_footers: true,
            progress: Some(&progress.recovery_segments_read),
        };
        let mut survey = survey(given, &folder.segments)?;
        let newest = survey.newest_snapshot;
        let replayed = replay(&segments, &survey.infos, newest, last, replay_to)?;
        let torn_tail = match clean {
            None => cut_torn_tail(&segments, &survey)?,
            Some(_) => None,
        };
        // ORDER: the epoch rises and the marker goes before anything can be appended.
        folder.take_over(disk.as_ref())?;
        let resumed = resume(&mut survey, clean.is_some());
        let missing_segments = missing(last, &survey.infos);
        let plan = IndexPlan::new(clean.as_ref(), folder.is_new);
        *segments.infos_mut() = survey.infos;
        let index = Index::new(survey.memory, Arc::clone(&segments));
        let kept = gaps::Kept {
            bounds: &replayed.bounds,
            index: &index,
            files: gaps::Files::of(&segments),
        };
        let damage = kept.confirm(survey.damage);
        let doubts = gaps::Doubts {
            known: known_damage(&config, disk.as_ref(), &folder),
            is_suspect: !missing_segments.is_empty(),
        };
        let mut report = RecoveryReport {
            groups: replayed.groups,
            batches: replayed.batches,
            records: replayed.records,
            segments: segments.infos().len() as u64,
            torn_tail,
            damage: damage.clone(),
            rows_damaged: replayed.rows_damaged,
            missing_segments,
            was_clean: clean.is_some() || folder.is_new,
            duration: Duration::ZERO,
        };
        let is_empty = segments.infos().is_empty();
        let cache = TailCache::new(config.cache_bytes);
        let shared = Arc::new(Shared {
            recent: Recent::new(config.cache_bytes / RECENT_SHARE, cache.lent_bytes()),
            cache: RwLock::new(cache),
            identity: folder.identity,
            segments,
            index,
            bounds: Mutex::new(replayed.bounds),
            trims: Mutex::default(),
            damage: Mutex::new(damage),
            doubts: Mutex::new(Some(doubts)),
            snapshot_segment: AtomicU64::new(replayed.snapshot_segment),
            signal: Signal::default(),
            forward: Forward::default(),
            config,
            disk,
        });
        folder.take_spares(&shared);
        let marks = SyncedFile::open(
            shared.disk.as_ref(),
            synced_path,
            shared.identity.journal_id,
        );
        let mut appender = go_on(&shared, resumed, survey.next_seq, marks)?;
        if is_empty && survey.next_seq == 0 {
            first_segment(&shared, &mut appender)?;
        }
        let keeper = keeper::start(&shared).map_err(OpenError::Thread)?;
        let indexer = indexes::start(&shared, plan);
        report.duration = started.elapsed();
        note(&shared.config.metrics.process, &report);
        announce(&report);
        let store = Self {
            shared,
            device: Arc::clone(appender.device()),
            appender: Mutex::new(appender),
            threads: Mutex::new([Some(keeper), indexer].into_iter().flatten().collect()),
            _lock: folder.lock,
        };
        Ok((Arc::new(store), report))
    }
}

/// The damage that an earlier life has found.
fn known_damage(config: &LocalConfig, disk: &dyn Disk, folder: &Folder) -> Vec<Damage> {
    damaged::read_file(disk, &damaged_path(config), folder.identity.journal_id)
}

/// The marker of the last stop, if it is of this journal and nothing followed it.
fn read_clean(
    disk: &dyn Disk,
    folder: &Folder,
    segments: &Segments,
) -> Result<Option<CleanMarker>, IoError> {
    let clean = CleanMarker::read(disk, &folder.clean_path)
        .filter(|clean| clean.journal_id == folder.identity.journal_id);
    Ok(match clean {
        Some(clean) if is_outlived(&clean, segments, &folder.segments)? => {
            tracing::warn!("the clean-stop marker is older than the journal, it is not used");
            None
        }
        clean => clean,
    })
}

/// Refuses a folder whose journal, or its end, is gone as a whole: a broker on it would give offsets out again
/// that were acknowledged, and nobody would notice. After a clean stop every end is known.
fn check_presence(
    last: LastWord<'_>,
    folder: &Folder,
    segments: &Segments,
) -> Result<(), OpenError> {
    let Some(newest) = folder.segments.last() else {
        return match last.newest_segment() {
            Some(_) => Err(OpenError::JournalMissing {
                path: folder.journal_dir.clone(),
            }),
            None => Ok(()),
        };
    };
    match (last.clean, last.newest_segment()) {
        (None, Some(segment)) if segment > *newest => Err(OpenError::SegmentMissing {
            path: segments.path(segment),
        }),
        (_, _) => Ok(()),
    }
}

/// Overwrites what lies behind the journal's end, so that it can never be taken for a group again.
fn cut_torn_tail(segments: &Segments, survey: &Survey) -> Result<Option<TornTail>, IoError> {
    const CHUNK: usize = 1 << 20;
    let (Some(tail), Some(last)) = (survey.open_tail, survey.infos.keys().next_back()) else {
        return Ok(None);
    };
    let file = segments.handle(*last)?;
    if tail.is_end_unknown {
        file.sync_data()?;
        return Ok(None);
    }
    let end = file.len_bytes()?;
    let mut position = tail.end;
    let mut buffer = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    while position < end {
        let read = file.read_at(position, &mut buffer)?;
        if read == 0 {
            break;
        }
        let is_zero = buffer.get(..read) == zeros.get(..read);
        if !is_zero {
            file.write_at(position, zeros.get(..read).unwrap_or_default())?;
        }
        position += read as u64;
    }
    // Whole groups at the end may have been written and never synced, when the process died and the
    // machine did not. From here on they count as durable.
    write_again(file.as_ref(), survey, tail.end)?;
    file.sync_data()?;
    Ok((tail.torn_bytes > 0).then_some(TornTail {
        segment: *last,
        position: tail.end,
        bytes: tail.torn_bytes,
    }))
}

/// Writes groups that may be in the page cache alone. After a failed sync the system takes such pages
/// for clean, so that a sync keeps them only once they were written again.
fn write_again(file: &dyn DiskFile, survey: &Survey, end: u64) -> Result<(), IoError> {
    const CHUNK: u64 = 1 << 20;
    const BLOCK: u64 = 4096;
    let from = survey.unproven.front();
    let mut position = from.map_or(end, |(_, position)| *position);
    while position < end {
        let bytes = usize::try_from((end - position).min(CHUNK)).unwrap_or(0);
        let mut buffer = vec![0; bytes];
        let Ok(read) = file.read_at(position, &mut buffer) else {
            // What the device refuses is no group, and stays as it is.
            let next = (position + 1).next_multiple_of(BLOCK).min(end);
            write_block(file, position..next)?;
            position = next;
            continue;
        };
        buffer.truncate(read);
        if read == 0 {
            break;
        }
        file.write_at(position, &buffer)?;
        position += read as u64;
    }
    Ok(())
}

/// The same for a block, unless it cannot be read.
fn write_block(file: &dyn DiskFile, range: std::ops::Range<u64>) -> Result<(), IoError> {
    let bytes = usize::try_from(range.end - range.start).unwrap_or(0);
    let mut buffer = vec![0; bytes];
    let Ok(read) = file.read_at(range.start, &mut buffer) else {
        return Ok(());
    };
    file.write_at(range.start, buffer.get(..read).unwrap_or_default())
}

/// The last segment, when it is fit to go on in.
fn resume(survey: &mut Survey, was_clean: bool) -> Option<(u64, SegmentInfo)> {
    let (segment, info) = survey.infos.iter_mut().next_back()?;
    let is_short = info.file_bytes < info.groups_end;
    let is_whole = info.damage.is_empty() || !was_clean;
    if survey.open_tail.is_some_and(|tail| tail.is_end_unknown) {
        return None;
    }
    // Sequences are dense within a segment; those that a lost segment held are not used again.
    let is_last = info.end_seq == survey.next_seq;
    if info.seal.is_some() || info.is_header_damaged || is_short || !is_whole || !is_last {
        return None;
    }
    info.is_active = true;
    Some((*segment, info.clone()))
}

/// The appender, in the last segment where that is fit for it.
fn go_on(
    shared: &Shared,
    resumed: Option<(u64, SegmentInfo)>,
    next_seq: u64,
    marks: SyncedFile,
) -> Result<Appender, IoError> {
    let active = match resumed {
        Some((segment, info)) => Some(active(shared, segment, &info)?),
        None => None,
    };
    Ok(Appender::new(active, next_seq, marks))
}

fn active(shared: &Shared, segment: u64, info: &SegmentInfo) -> Result<Active, IoError> {
    let file = shared.open_for_appends(&shared.segments.path(segment))?;
    shared.segments.set_active(segment, &file);
    Ok(Active {
        segment,
        nonce: info.nonce,
        file,
        end: info.groups_end,
        capacity: info.file_bytes,
        data_from: super::journal::segment::HEADER_BYTES,
        file_bytes: info.file_bytes,
    })
}

/// The first segment of a new folder: small, so that the first start is quick.
fn first_segment(shared: &Arc<Shared>, appender: &mut Appender) -> Result<(), OpenError> {
    let bytes = shared.config.first_segment_bytes;
    let path = shared.segments.spare_path(1);
    keeper::zero_filled(shared, &path, bytes)?;
    let prepared = shared.signal.put_aside(path);
    let rolled = appender.commit_snapshot(shared, &[]);
    shared.signal.put_back(prepared);
    match rolled {
        Ok(_) => Ok(()),
        Err(error) => Err(folder::unwritable(shared, &error)),
    }
}

fn note(metrics: &ProcessMetrics, report: &RecoveryReport) {
    let micros = u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX);
    metrics.recovery_us.set(micros.max(1));
}

fn announce(report: &RecoveryReport) {
    if let Some(torn) = &report.torn_tail {
        tracing::warn!(
            segment = torn.segment,
            position = torn.position,
            bytes = torn.bytes,
            "cut a torn tail, which nobody was told was stored"
        );
    }
    for damage in &report.damage {
        tracing::error!(
            partition = %damage.partition,
            from = damage.range.start.0,
            to = damage.range.end.0,
            "records are damaged and cannot be read"
        );
    }
    if report.rows_damaged > 0 {
        tracing::error!(
            stretches = report.rows_damaged,
            "the journal is damaged where tables are kept: changes of topics, offsets or publishers may be missing"
        );
    }
    if !report.missing_segments.is_empty() {
        tracing::error!(segments = ?report.missing_segments, "segments are missing");
    }
    tracing::info!(
        segments = report.segments,
        groups = report.groups,
        was_clean = report.was_clean,
        duration_ms = report.duration.as_millis(),
        "opened the journal"
    );
}

/// Leaves word of a clean stop. Without it the next start reads more; nothing else is lost.
pub(super) fn write_clean_marker(shared: &Shared, end: JournalEnd) {
    let token = fastrand::u64(1..);
    let (indexed, infos) = {
        let infos = shared.segments.infos();
        let of = |(segment, info): (&u64, &SegmentInfo)| info.is_indexed.then_some(*segment);
        let indexed: Vec<u64> = infos.iter().filter_map(of).collect();
        (indexed, infos.len())
    };
    let is_checked = match shared.index.tree() {
        Some(tree) => indexes::checkpoint(tree, token),
        None => false,
    };
    let marker = CleanMarker {
        journal_id: shared.identity.journal_id,
        next_seq: end.next_seq,
        segment: end.segment,
        end: end.end,
        index_token: if is_checked { token } else { 0 },
        indexed: if is_checked { indexed } else { Vec::new() },
        state: shared.state(),
    };
    let path = clean_path(&shared.config);
    match marker.write(shared.disk.as_ref(), &path) {
        Ok(()) => tracing::info!(segments = infos, "closed the journal"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the clean-stop marker was not written, the next start checks everything"
        ),
    }
}
