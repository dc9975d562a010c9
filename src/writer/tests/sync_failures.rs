//! Every sync fails once: nothing is acknowledged afterwards, and nothing acknowledged is lost.
//!
//! Publishers, offset commits, trims, copies forward, idle marks and orderly restarts run over the real
//! writer and the real store; then the same again, with the first sync failing, with the second, and
//! so on, each once and for good. `FALCON_SYNC_POINTS` sets how many of them are tried,
//! `FALCON_SYNC_SEED` what power cuts leave afterwards.

mod ledger;
mod life;

use std::collections::BTreeMap;

use super::*;
use crate::io::{SimFailure, SimOperation, SimTimes};
use crate::store::local::OpenError;
use ledger::Ledger;
use life::Life;

const POINTS: usize = 32;
/// Syncs for each turn of the work, about.
const SYNCS_PER_TURN: usize = 2;
const IMAGES: u64 = 3;
const TURNS_AFTER_FAILURE: u64 = 30;

/// The one that fails: of the syncs of files, or of those of folders.
#[derive(Debug, Clone, Copy)]
struct Point {
    operation: SimOperation,
    n: u64,
    times: SimTimes,
    overlap_bytes: u64,
}

#[derive(Debug, Default)]
struct Figures {
    acked_before: u64,
    acked_after_restart: u64,
    unknown: u64,
    refused_after: u64,
    images: u64,
    sites: BTreeMap<&'static str, u64>,
}

/// Whether an acknowledgement waited for it.
fn is_writers(failure: &SimFailure) -> bool {
    ["falcon-writer", "falcon-syncer"].contains(&&*failure.thread)
}

/// What was synced when it failed.
fn site(failure: &SimFailure) -> &'static str {
    let name = failure.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let by_writer = is_writers(failure);
    let by_keeper = failure.thread == "falcon-keeper";
    match (failure.operation, &*name) {
        (SimOperation::SyncDir, "journal") if by_writer => "at_directory_of_a_roll",
        (SimOperation::SyncDir, _) if by_writer => "at_directory_of_a_stop",
        (SimOperation::SyncDir, _) if by_keeper => "at_directory_of_the_keeper",
        (SimOperation::SyncDir, _) => "at_directory_of_a_start",
        (_, name) if name.starts_with("CLEAN") => "at_clean_marker",
        (_, name) if name.starts_with("IDENTITY") => "at_identity",
        (_, name) if name.starts_with("spare") && by_writer => "at_new_segment",
        (_, name) if name.starts_with("spare") => "at_prepared_segment",
        (_, _) if by_writer => "at_active_segment",
        (_, _) if by_keeper => "at_footer",
        (_, _) => "at_tail_of_a_start",
    }
}

/// How the work ended.
enum End {
    /// The writer accepts nothing any more.
    Stopped(Life),
    /// A start was refused, because a sync failed.
    Refused,
    /// All was done; what failed was no sync that an acknowledgement waits for.
    Done,
}

fn start(disk: &SimDisk, ledger: &Arc<Ledger>) -> Option<Life> {
    match Life::start(disk, ledger) {
        Ok(life) => Some(life),
        Err(OpenError::Io(_)) => None,
        Err(error) => panic!("refused to start: {error}"),
    }
}

/// In order. What fails in it was answered to nobody, and the next start finds what it finds.
fn stop(life: &mut Life, ledger: &Ledger) {
    assert_eq!(ledger.writers_failures(), 0, "the writer went on");
    life.stop();
    ledger.excuse_failures();
}

/// Works for so many turns after a sync has failed, or `turns_max` in all.
fn work(disk: &SimDisk, ledger: &Arc<Ledger>, turns_max: u64) -> End {
    let mut started = start(disk, ledger);
    let mut turns_left = TURNS_AFTER_FAILURE;
    for turn in 0..turns_max {
        turns_left -= u64::from(!disk.failures().is_empty());
        if turns_left == 0 {
            break;
        }
        let Some(life) = &mut started else {
            return End::Refused;
        };
        life.prepare();
        life.turn(turn);
        if life.has_stopped() {
            break;
        }
        if turn % 20 == 13 {
            stop(life, ledger);
            // ORDER: the folder is free only once the old life is gone.
            drop(started);
            disk.note_restart();
            started = start(disk, ledger);
        }
    }
    match started {
        Some(life) if life.has_stopped() => End::Stopped(life),
        Some(mut life) => {
            stop(&mut life, ledger);
            End::Done
        }
        None => End::Refused,
    }
}

/// Everything that was acknowledged is on the disk, and what a start serves stays.
fn check_restarts(disk: &SimDisk, ledger: &Arc<Ledger>, seed: u64, at: &str) -> u64 {
    for seed in seed..seed + IMAGES {
        let ledger = Arc::new(ledger.copy());
        let at = format!("{at}, power cut {seed}");
        let life = Life::start(&disk.crash(seed), &ledger);
        let life = life.unwrap_or_else(|error| panic!("{at}: {error:?}"));
        life.check(&at);
    }
    // The process restarts and the machine does not: the page cache still has what was never kept.
    disk.heal();
    let mut life = Life::start(disk, ledger).unwrap_or_else(|error| panic!("{at}: {error:?}"));
    life.check(&format!("{at}, restarted"));
    life.take_over_ends();
    let acked = ledger.acked();
    life.prepare();
    life.turn(1);
    assert!(ledger.acked() > acked, "{at}: nothing is taken any more");
    for seed in seed..seed + IMAGES {
        let at = format!("{at}, restarted, power cut {seed}");
        let ledger = Arc::new(ledger.copy());
        let life = Life::start(&disk.crash(seed), &ledger);
        let life = life.unwrap_or_else(|error| panic!("{at}: {error:?}"));
        life.check(&at);
    }
    ledger.acked() - acked
}

fn check_point(point: Point, turns: u64, seed: u64, figures: &mut Figures) -> bool {
    let at = format!("{point:?}, FALCON_SYNC_SEED={seed}");
    let disk = SimDisk::new();
    let ledger = Arc::new(Ledger::new(&disk, point.overlap_bytes));
    disk.fail(point.operation, point.n, SimFault::Device, point.times);
    // How many syncs a turn has depends on how commands meet.
    let end = work(&disk, &ledger, turns * 3);
    let failures = disk.failures();
    let Some(failure) = failures.first() else {
        return false;
    };
    *figures.sites.entry(site(failure)).or_default() += 1;
    figures.acked_before += ledger.acked();
    figures.unknown += ledger.unknown();
    if let End::Stopped(life) = &end {
        assert!(
            ledger.writers_failures() > 0,
            "{at}: stopped without reason: {failures:?}"
        );
        figures.refused_after += life.probe(&at);
        life.check(&at);
    } else {
        assert_eq!(
            ledger.writers_failures(),
            0,
            "{at}: it went on after {failures:?}"
        );
    }
    assert_eq!(ledger.acks_after_failure(), 0, "{at}");
    assert_eq!(disk.used_after_failed_sync(), 0, "{at}: {failures:?}");
    drop(end);
    figures.acked_after_restart += check_restarts(&disk, &ledger, seed, &at);
    figures.images += 2 * IMAGES;
    true
}

/// How many syncs the work makes: of files, of folders.
fn rehearse(turns: u64) -> (u64, u64) {
    let disk = SimDisk::new();
    let ledger = Arc::new(Ledger::new(&disk, u64::MAX));
    assert!(matches!(work(&disk, &ledger, turns), End::Done));
    let count = |operation| disk.count(operation) * 9 / 10;
    (count(SimOperation::Sync), count(SimOperation::SyncDir))
}

#[test]
fn after_any_failed_sync_nothing_is_acknowledged_and_nothing_is_lost() {
    let number = |name: &str, default| {
        let given = std::env::var(name).ok();
        given.map_or(default, |given| given.parse().expect("a number"))
    };
    let wanted = number("FALCON_SYNC_POINTS", POINTS);
    let seed = number("FALCON_SYNC_SEED", 1) as u64;
    let turns = (wanted / SYNCS_PER_TURN).max(40) as u64;
    let (files, folders) = rehearse(turns);
    let all = (1..=files).map(|n| (SimOperation::Sync, n));
    let all = all.chain((1..=folders).map(|n| (SimOperation::SyncDir, n)));
    let all: Vec<_> = all.collect();
    assert!(
        all.len() >= wanted,
        "{} syncs for {wanted} points",
        all.len()
    );
    let mut figures = Figures::default();
    let (mut points, mut once, mut sticky) = (0, 0, 0);
    for nth in 0..wanted {
        let (operation, n) = all[nth * all.len() / wanted];
        points += 1;
        for times in [SimTimes::Once, SimTimes::Sticky] {
            // Each second one with everything that can be finished beside the writer.
            let is_beside = (nth % 2 == 0) == matches!(times, SimTimes::Once);
            let point = Point {
                operation,
                n,
                times,
                overlap_bytes: if is_beside { 0 } else { u64::MAX },
            };
            let has_struck = check_point(point, turns, seed, &mut figures);
            assert!(has_struck, "{point:?} never came");
            match times {
                SimTimes::Once => once += 1,
                SimTimes::Sticky => sticky += 1,
            }
        }
    }
    let sites = figures
        .sites
        .iter()
        .map(|(site, count)| format!(" failed_{site}={count}"));
    println!(
        "figures: sync_failure_points={points} failed_once={once} failed_sticky={sticky} acked_before={} \
         acks_after_failure=0 refused_after={} unknown={} acked_after_restart={} crash_images={}{}",
        figures.acked_before,
        figures.refused_after,
        figures.unknown,
        figures.acked_after_restart,
        figures.images,
        sites.collect::<String>(),
    );
}
