//! One round: a fresh data folder, clients at work, many faults, a full read, a verdict.
//!
//! Owns the order of a round. The fault is somebody else's (`Fault`). Promises: the seed decides
//! which faults come and when (what clients get done until then it cannot decide); every process of
//! the round has ended when it returns.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::checker::{Verdict, check, check_trimmed};
use crate::error::CrashError;
use crate::load::Load;
use crate::process::{Broker, Program, free_port};

pub(crate) const PARTITIONS: u16 = 4;
const RETENTION_CHECK: (&str, &str) = ("FALCON_STORAGE_RETENTION_CHECK_MS", "50ms");
/// Small segments, so that a round rolls many times; what they need elsewhere; and room on small
/// devices.
const SETTINGS: [(&str, &str); 5] = [
    RETENTION_CHECK,
    ("FALCON_LIMITS_BATCH_BYTES_MAX", "128KiB"),
    ("FALCON_STORAGE_SEGMENT_BYTES", "1MiB"),
    ("FALCON_STORAGE_FREE_FLOOR_BYTES", "8MiB"),
    ("FALCON_SHUTDOWN_GRACE_MS", "2s"),
];

/// A way to break a machine.
pub(crate) trait Fault {
    /// Where the broker's data goes.
    fn data_dir(&self) -> PathBuf;

    /// After the topic was made: a control may need that it survives.
    fn settle(&mut self) -> Result<(), CrashError>;

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
    /// Those that struck a broker that was starting.
    pub faults_during_start: u32,
    /// Those that struck a broker that was stopping.
    pub faults_during_stop: u32,
    /// Those that came after an orderly stop.
    pub clean_stops: u32,
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
}

impl<F: Fault> Round<'_, F> {
    fn run(&mut self, options: &RoundOptions, runtime: &Runtime) -> Result<(), CrashError> {
        let Some(mut broker) = self.start()? else {
            return Ok(());
        };
        let handle = runtime.handle().clone();
        let address = self.program.address();
        let topic = (PARTITIONS, options.retention_bytes);
        let mut load = Load::new(handle, address, options.folder.clone(), topic)?;
        self.fault.settle()?;
        load.start_lasting()?;
        for _ in 0..options.cycles {
            load.start_fresh()?;
            let work_ms = self.random.u64(5..options.work_ms_max.max(6));
            thread::sleep(Duration::from_millis(work_ms));
            self.break_it(broker)?;
            load.abandon_fresh();
            self.fault.revive()?;
            match self.start_with_trouble()? {
                Some(started) => broker = started,
                // The clients would wait for a broker that cannot come back.
                None => return self.judge(options, &load),
            }
        }
        load.finish();
        self.break_it(broker)?;
        self.fault.revive()?;
        // Nothing is trimmed under the full read.
        let (name, _) = RETENTION_CHECK;
        let rarely = (name.to_owned(), "1d".to_owned());
        self.program.environment.push(rarely);
        if let Some(broker) = self.start()? {
            load.read_all()?;
            if !broker.stop() {
                self.complain("the broker did not stop in order");
            }
        }
        self.judge(options, &load)
    }

    /// The fault, now and then during or after an orderly stop.
    fn break_it(&mut self, broker: Broker) -> Result<(), CrashError> {
        self.report.faults += 1;
        match self.random.u8(0..20) {
            0 | 1 => {
                self.report.clean_stops += 1;
                if !broker.stop() {
                    self.complain("the broker did not stop in order");
                }
                self.fault.strike(None)
            }
            2 | 3 => {
                self.report.faults_during_stop += 1;
                broker.send_terminate();
                thread::sleep(Duration::from_millis(self.random.u64(0..60)));
                self.fault.strike(Some(broker))
            }
            4.. => self.fault.strike(Some(broker)),
        }
    }

    /// Starts a broker that lasts, now and then after one that is hit while it starts.
    fn start_with_trouble(&mut self) -> Result<Option<Broker>, CrashError> {
        if self.random.u8(0..5) == 0 {
            let broker = self.program.start()?;
            thread::sleep(Duration::from_millis(self.random.u64(0..150)));
            self.report.faults += 1;
            self.report.faults_during_start += 1;
            self.fault.strike(Some(broker))?;
            self.fault.revive()?;
        }
        self.start()
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

    fn judge(&mut self, options: &RoundOptions, load: &Load) -> Result<(), CrashError> {
        load.abandon_fresh();
        self.report.complaints.extend(load.complaints());
        let log = self.program.read_log();
        let errors = log.lines().filter(|line| is_error(line));
        self.report.complaints.extend(errors.map(str::to_owned));
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
