//! The trial `eio-on-sync`: a device that answers `EIO` to flushes, and to writes, under load.
//!
//! Below ext4 the device falls ill at a random moment, for one request or for good. The broker must
//! log that once, acknowledge nothing any more, and go on serving reads. Then it is killed. Either power
//! goes at once, or a broker starts on the same mount, where the page cache still has what the device
//! never got, works, and power goes after that. The histories are judged as those of power cuts.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Runtime;

use super::disk::Illness;
use super::{FileSystem, Power, system};
use crate::checker::check;
use crate::error::CrashError;
use crate::history::{History, Op, Outcome, now_ns};
use crate::load::{Load, LoadOptions};
use crate::process::{Broker, Program};
use crate::round::{Fault, PARTITIONS, RoundOptions, is_error, program, runtime};
use crate::trial::{Findings, TrialOptions};

const POINTS_SHORT: u64 = 3;
const POINTS_LONG: u64 = 60;
/// What the broker logs, once.
const SAID: &str = "the journal cannot be written";
const STEP: Duration = Duration::from_millis(5);
/// Longest until a broker under load hears of a device that is ill: 20 s.
const STEPS_MAX: u32 = 4_000;
/// How often an illness that is over comes again until then: 10 times a second.
const STEPS_AGAIN: u32 = 20;
/// How long clients go on against a broker that has stopped.
const AFTERWARDS: Duration = Duration::from_millis(400);

/// Runs the trial.
pub(crate) fn on_sync(options: &TrialOptions) -> Result<Findings, CrashError> {
    system::check(FileSystem::Ext4.name())?;
    let points = if options.is_long {
        POINTS_LONG
    } else {
        POINTS_SHORT
    };
    let mut findings = Findings::default();
    let mut seen = Seen::default();
    for point in 0..points {
        let seed = options.seed.wrapping_add(point);
        let folder = options.folder.join(format!("point-{point}"));
        std::fs::create_dir_all(&folder).map_err(CrashError::io("create", &folder))?;
        let round = RoundOptions {
            program: options.program.clone(),
            folder: folder.clone(),
            seed,
            cycles: 1,
            work_ms_max: 0,
            retention_bytes: None,
            environment: Vec::new(),
        };
        let before = findings.broken.len();
        Point::new(&round, point)?.run(&round, &mut seen, &mut findings)?;
        if findings.broken.len() == before {
            std::fs::remove_dir_all(&folder).map_err(CrashError::io("remove", &folder))?;
        }
    }
    findings.figure("failure_points", points);
    seen.note_in(&mut findings);
    Ok(findings)
}

#[derive(Debug, Default)]
struct Seen {
    failed_once: u64,
    failed_sticky: u64,
    failed_writes_too: u64,
    requests_failed: u64,
    restarts_on_same_mount: u64,
    acked: u64,
    acks_after_failure: u64,
    read_after_failure: u64,
    file_systems_repaired: u64,
}

impl Seen {
    fn note_in(&self, findings: &mut Findings) {
        findings.figure("failed_once", self.failed_once);
        findings.figure("failed_sticky", self.failed_sticky);
        findings.figure("failed_writes_too", self.failed_writes_too);
        findings.figure("requests_failed", self.requests_failed);
        findings.figure("restarts_on_same_mount", self.restarts_on_same_mount);
        findings.figure("acked", self.acked);
        findings.figure("acks_after_failure", self.acks_after_failure);
        findings.figure("records_read_after_failure", self.read_after_failure);
        findings.figure("file_systems_repaired", self.file_systems_repaired);
    }
}

struct Point {
    power: Power,
    program: Program,
    runtime: Runtime,
    illness: Illness,
    /// Whether another broker starts before power goes.
    has_restart: bool,
    at: String,
    random: Rng,
}

impl Point {
    fn new(options: &RoundOptions, number: u64) -> Result<Self, CrashError> {
        let power = Power::new(options, FileSystem::Ext4, false)?;
        let program = program(options, power.data_dir())?;
        let illness = Illness {
            is_sticky: number % 2 == 1,
            has_writes: number % 4 >= 2,
        };
        let has_restart = number.is_multiple_of(3);
        Ok(Self {
            power,
            program,
            runtime: runtime()?,
            illness,
            has_restart,
            at: format!("seed {}, {illness:?}, restart {has_restart}", options.seed),
            random: Rng::with_seed(options.seed),
        })
    }

    fn run(
        mut self,
        options: &RoundOptions,
        seen: &mut Seen,
        findings: &mut Findings,
    ) -> Result<(), CrashError> {
        let Some(broker) = self.start(findings)? else {
            return Ok(());
        };
        let handle = self.runtime.handle().clone();
        let what = LoadOptions {
            address: self.program.address(),
            folder: options.folder.clone(),
            partitions: PARTITIONS,
            retention_bytes: None,
            topics: None,
        };
        let mut load = Load::new(handle, what)?;
        load.start_lasting()?;
        load.start_fresh()?;
        thread::sleep(Duration::from_millis(self.random.u64(100..600)));
        let has_stopped = self.fall_ill(seen);
        findings.expect(has_stopped, || {
            format!("{}: the broker heard of nothing", self.at)
        });
        let stopped_ns = now_ns();
        load.read_now()?;
        thread::sleep(AFTERWARDS);
        self.check_log(findings);
        load.abandon_fresh();
        let restarted_ns = now_ns();
        self.power.disk.set_illness(None);
        self.break_it(broker, seen, &mut load)?;
        if self.power.revive().is_err() {
            self.power.repair()?;
            seen.file_systems_repaired += 1;
        }
        if let Some(broker) = self.start(findings)? {
            load.finish();
            load.read_all()?;
            let has_stopped = broker.stop();
            findings.expect(has_stopped, || {
                format!("{}: it did not stop in order", self.at)
            });
        } else {
            load.abandon_fresh();
        }
        self.judge(&load, stopped_ns..restarted_ns, seen, findings)
    }

    fn start(&self, findings: &mut Findings) -> Result<Option<Broker>, CrashError> {
        let broker = self.program.start()?;
        let is_ready = broker.wait_ready().is_some();
        findings.expect(is_ready, || {
            format!("{}: the broker did not start", self.at)
        });
        Ok(is_ready.then_some(broker))
    }

    /// The device fails until the broker says so. A failure that strikes once may strike the file system
    /// or the broker's background, which lawfully go on: then it strikes again.
    fn fall_ill(&self, seen: &mut Seen) -> bool {
        let before = self.power.disk.failed();
        self.power.disk.set_illness(Some(self.illness));
        let mut struck = before;
        let mut steps = 0;
        while !self.program.read_log().contains(SAID) {
            if steps == STEPS_MAX {
                return false;
            }
            thread::sleep(STEP);
            steps += 1;
            let failed = self.power.disk.failed();
            if !self.illness.is_sticky && failed > struck && steps.is_multiple_of(STEPS_AGAIN) {
                struck = failed;
                self.power.disk.set_illness(Some(self.illness));
            }
        }
        if !self.illness.is_sticky {
            self.power.disk.set_illness(None);
        }
        seen.failed_once += u64::from(!self.illness.is_sticky);
        seen.failed_sticky += u64::from(self.illness.is_sticky);
        seen.failed_writes_too += u64::from(self.illness.has_writes);
        seen.requests_failed += self.power.disk.failed() - before;
        true
    }

    fn check_log(&self, findings: &mut Findings) {
        let log = self.program.read_log();
        let errors: Vec<&str> = log.lines().filter(|line| is_error(line)).collect();
        findings.expect(errors.len() == 1, || {
            format!("{}: not one error was logged but {errors:#?}", self.at)
        });
    }

    /// Kills the broker, and takes power away at once or after another life.
    fn break_it(
        &mut self,
        broker: Broker,
        seen: &mut Seen,
        load: &mut Load,
    ) -> Result<(), CrashError> {
        broker.kill();
        let next = if self.has_restart {
            Some(self.program.start()?)
        } else {
            None
        };
        // A file system that gave up its journal is read-only: no broker starts there.
        let next = next.filter(|broker| broker.wait_ready().is_some());
        if next.is_some() {
            seen.restarts_on_same_mount += 1;
            load.start_fresh()?;
            thread::sleep(AFTERWARDS);
        }
        self.power.cut(next);
        load.abandon_fresh();
        Ok(())
    }

    fn judge(
        &self,
        load: &Load,
        stopped_ns: std::ops::Range<u64>,
        seen: &mut Seen,
        findings: &mut Findings,
    ) -> Result<(), CrashError> {
        let files = load.files();
        let verdict = check(&files[..])?;
        let at = &self.at;
        findings.expect(verdict.is_clean(), || {
            format!("{at}: {:?}", verdict.examples)
        });
        let complaints = load.complaints();
        findings.expect(complaints.is_empty(), || format!("{at}: {complaints:?}"));
        seen.acked += verdict.counts.acked;
        let mut acks_after_failure = 0;
        files[..].for_each(&mut |entry| {
            let is_during =
                stopped_ns.contains(&entry.invoked_ns) && stopped_ns.contains(&entry.completed_ns);
            match (entry.op, entry.outcome) {
                (Op::Publish | Op::Commit, Outcome::Ok) if is_during => acks_after_failure += 1,
                (Op::Read, Outcome::Ok) if is_during => seen.read_after_failure += 1,
                _ => {}
            }
        })?;
        seen.acks_after_failure += acks_after_failure;
        findings.expect(acks_after_failure == 0, || {
            format!("{at}: {acks_after_failure} acknowledged after the failure")
        });
        Ok(())
    }
}
