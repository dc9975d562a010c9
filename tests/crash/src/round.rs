//! One round: a fresh data folder, clients at work, many faults, a full read, a verdict.
//!
//! Owns the order of a round. The fault is somebody else's (`Fault`). Promises: the seed decides
//! which faults come and when (what clients get done until then it cannot decide); every process of
//! the round has ended when it returns.

use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::checker::{Verdict, check, check_trimmed};
use crate::error::CrashError;
use crate::load::{Load, LoadOptions};
use crate::process::{Broker, Program, free_port};

pub(crate) const PARTITIONS: u16 = 4;
const RETENTION_CHECK: (&str, &str) = ("FALCON_STORAGE_RETENTION_CHECK_MS", "50ms");
/// Small segments, so that a round rolls many times; what they need elsewhere; and room on small
/// devices.
const SETTINGS: [(&str, &str); 5] = [
    RETENTION_CHECK,
    ("FALCON_LIMITS_BATCH_BYTES_MAX", "128KiB"),
    ("FALCON_STORAGE_SEGMENT_BYTES", "256KiB"),
    ("FALCON_STORAGE_FREE_FLOOR_BYTES", "8MiB"),
    ("FALCON_SHUTDOWN_GRACE_MS", "2s"),
];

/// Makes the time between a write and its sync longer.
const SYNC_DELAY: &str = "FALCON_TEST_SYNC_DELAY_MS";
const SYNC_DELAY_MS_MAX: u64 = 12;

/// What the broker is about when a strike is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It recovers, and is not ready.
    Starting,
    /// It serves clients.
    Working,
    /// It was asked to stop.
    Stopping,
}

/// How a broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the fault.
    Struck,
    /// By the fault, while it stops.
    StruckInStop,
    /// In order; the fault comes then.
    Stopped,
}

/// A way to break a machine.
pub(crate) trait Fault {
    /// Where the broker's data goes.
    fn data_dir(&self) -> PathBuf;

    /// After the topic was made: a control may need that it survives.
    fn settle(&mut self) -> Result<(), CrashError>;

    /// Ties the next strike to something that a broker does then, or leaves it to chance.
    fn arm(&mut self, phase: Phase) -> Result<(), CrashError>;

    /// Waits for what the next strike is tied to, about so long at most, and answers whether it came;
    /// else just so long.
    fn wait(&mut self, longest: Duration) -> Result<bool, CrashError>;

    /// Breaks it with the broker running, or just stopped; no broker runs afterwards.
    fn strike(&mut self, broker: Option<Broker>) -> Result<(), CrashError>;

    /// Makes it usable again.
    fn revive(&mut self) -> Result<(), CrashError>;
}

/// What a round does.
#[derive(Debug, Clone)]
pub struct RoundOptions {
    /// The broker's program.
    pub program: PathBuf,
    /// Folder for histories and log, kept when the round ends badly.
    pub folder: PathBuf,
    /// Decides what happens when.
    pub seed: u64,
    /// Faults.
    pub cycles: u32,
    /// Longest that clients work between two faults.
    pub work_ms_max: u64,
    /// Lets partitions lose their oldest records, so that segments are reclaimed and used again.
    pub retention_bytes: Option<u64>,
    /// Variables of the broker's environment.
    pub environment: Vec<(String, String)>,
}

/// What a round found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RoundReport {
    /// Its seed.
    pub seed: u64,
    /// Faults that struck.
    pub faults: u32,
    /// Those among them that took power away, not only the broker.
    pub power_cuts: u32,
    /// Those that did not come at a random moment, but with something that a broker did.
    pub faults_at_events: u32,
    /// Those that struck a broker that was starting.
    pub faults_during_start: u32,
    /// Those that struck a broker that was stopping.
    pub faults_during_stop: u32,
    /// Those that came after an orderly stop.
    pub clean_stops: u32,
    /// Those after which the data folder was looked through before the next start.
    pub inspections: u32,
    /// The longest start.
    pub start_ms_max: u64,
    /// What the histories prove.
    pub verdict: Verdict,
    /// What else must not happen: a broker that does not start, an error of the log, damage told to
    /// a client.
    pub complaints: Vec<String>,
}

impl RoundReport {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.complaints.is_empty()
    }
}

/// Runs a round.
pub(crate) fn run(
    options: &RoundOptions,
    fault: &mut impl Fault,
) -> Result<RoundReport, CrashError> {
    let runtime = runtime()?;
    let program = program(options, fault.data_dir())?;
    let mut round = Round {
        random: Rng::with_seed(options.seed),
        report: RoundReport {
            seed: options.seed,
            ..RoundReport::default()
        },
        program,
        fault,
        was_at_event: false,
    };
    round.run(options, &runtime)?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(round.report)
}

/// For clients.
pub(crate) fn runtime() -> Result<Runtime, CrashError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.map_err(|error| CrashError::Program(format!("no runtime: {error}")))
}

/// How brokers of a round are started.
pub(crate) fn program(options: &RoundOptions, data_dir: PathBuf) -> Result<Program, CrashError> {
    let settings = SETTINGS.iter();
    let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(Program {
        path: options.program.clone(),
        data_dir,
        log: options.folder.join("broker.log"),
        environment: settings
            .chain(options.environment.iter().cloned())
            .collect(),
        port: free_port()?,
    })
}

struct Round<'a, F> {
    random: Rng,
    report: RoundReport,
    program: Program,
    fault: &'a mut F,
    /// Whether the last fault came with something that a broker did.
    was_at_event: bool,
}

impl<F: Fault> Round<'_, F> {
    fn run(&mut self, options: &RoundOptions, runtime: &Runtime) -> Result<(), CrashError> {
        let Some(mut broker) = self.start()? else {
            return Ok(());
        };
        let handle = runtime.handle().clone();
        let what = LoadOptions {
            address: self.program.address(),
            folder: options.folder.clone(),
            partitions: PARTITIONS,
            retention_bytes: options.retention_bytes,
            topics: Some(options.seed),
        };
        let mut load = Load::new(handle, what)?;
        self.fault.settle()?;
        load.start_lasting()?;
        for _ in 0..options.cycles {
            load.start_fresh()?;
            let end = self.pick_end();
            if end == End::Struck {
                self.fault.arm(Phase::Working)?;
            }
            let work_ms = self.random.u64(5..options.work_ms_max.max(6));
            self.wait(Duration::from_millis(work_ms))?;
            self.break_it(broker, end)?;
            load.abandon_fresh();
            self.fault.revive()?;
            if std::mem::take(&mut self.was_at_event) {
                self.inspect()?;
            }
            let Some(started) = self.start_with_trouble()? else {
                // The clients wait for a broker that cannot come back: their histories have no end,
                // and there is nothing to compare them with.
                self.note_complaints(&load);
                return Ok(());
            };
            broker = started;
        }
        load.finish();
        let end = self.pick_end();
        self.break_it(broker, end)?;
        self.fault.revive()?;
        // Nothing is trimmed under the full read.
        let (name, _) = RETENTION_CHECK;
        self.program.set(name, "1d");
        if let Some(broker) = self.start()? {
            load.read_all()?;
            if !broker.stop() {
                self.complain("the broker did not stop in order");
            }
        }
        self.judge(options, &load)
    }

    /// Now and then an orderly stop.
    fn pick_end(&mut self) -> End {
        match self.random.u8(0..20) {
            0 | 1 => End::Stopped,
            2 | 3 => End::StruckInStop,
            4.. => End::Struck,
        }
    }

    fn break_it(&mut self, broker: Broker, end: End) -> Result<(), CrashError> {
        self.report.faults += 1;
        match end {
            End::Stopped => {
                self.report.clean_stops += 1;
                if !broker.stop() {
                    self.complain("the broker did not stop in order");
                }
                self.fault.strike(None)
            }
            End::StruckInStop => {
                self.report.faults_during_stop += 1;
                self.fault.arm(Phase::Stopping)?;
                broker.send_terminate();
                let longest = Duration::from_millis(self.random.u64(0..60));
                self.wait(longest)?;
                self.fault.strike(Some(broker))
            }
            End::Struck => self.fault.strike(Some(broker)),
        }
    }

    /// Starts a broker that lasts, now and then after one that is hit while it starts.
    fn start_with_trouble(&mut self) -> Result<Option<Broker>, CrashError> {
        if self.random.u8(0..5) == 0 {
            self.pick_sync_delay();
            self.fault.arm(Phase::Starting)?;
            let broker = self.program.start()?;
            let longest = Duration::from_millis(self.random.u64(0..150));
            self.wait(longest)?;
            self.report.faults += 1;
            self.report.faults_during_start += 1;
            self.fault.strike(Some(broker))?;
            self.fault.revive()?;
        }
        self.pick_sync_delay();
        self.start()
    }

    /// What a crash leaves may be torn at its end, and is damaged nowhere.
    fn inspect(&mut self) -> Result<(), CrashError> {
        self.report.inspections += 1;
        if let Some(found) = self.program.inspect()? {
            self.report
                .complaints
                .push(format!("after a fault, verify says: {found}"));
        }
        Ok(())
    }

    fn wait(&mut self, longest: Duration) -> Result<(), CrashError> {
        self.was_at_event = self.fault.wait(longest)?;
        self.report.faults_at_events += u32::from(self.was_at_event);
        Ok(())
    }

    /// Every second broker waits before each sync.
    fn pick_sync_delay(&mut self) {
        let is_delayed = self.random.bool();
        let delay_ms = self.random.u64(1..=SYNC_DELAY_MS_MAX);
        let delay_ms = if is_delayed { delay_ms } else { 0 };
        self.program.set(SYNC_DELAY, &delay_ms.to_string());
    }

    fn start(&mut self) -> Result<Option<Broker>, CrashError> {
        let broker = self.program.start()?;
        let Some(took) = broker.wait_ready() else {
            self.complain("the broker did not start");
            return Ok(None);
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.report.start_ms_max = self.report.start_ms_max.max(took_ms);
        Ok(Some(broker))
    }

    fn complain(&mut self, complaint: &str) {
        let log = self.program.read_log();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let said = format!("{complaint}; its log ends, newest first: {last:?}");
        self.report.complaints.push(said);
    }

    fn note_complaints(&mut self, load: &Load) {
        self.report.complaints.extend(load.complaints());
        let log = self.program.read_log();
        let errors = log.lines().filter(|line| is_error(line));
        self.report.complaints.extend(errors.map(str::to_owned));
    }

    fn judge(&mut self, options: &RoundOptions, load: &Load) -> Result<(), CrashError> {
        load.abandon_fresh();
        self.note_complaints(load);
        let files = load.files();
        self.report.verdict = match options.retention_bytes {
            None => check(&files[..])?,
            Some(_) => check_trimmed(&files[..])?,
        };
        Ok(())
    }
}

/// Whether the log says that an operator must act; not when it only says that this is a control.
pub(crate) fn is_error(line: &str) -> bool {
    line.contains(" ERROR ") && !line.contains("FALCON_TEST_UNSAFE_NO_SYNC")
}
