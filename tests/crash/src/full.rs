//! A disk that is full: filled by the broker itself, or by a stranger who takes the last byte in the
//! middle of publishing, and drained again, many times under one broker that is never restarted.
//!
//! Then the same folder at zero bytes free: brokers that stop, that are killed and that start, their
//! log on the full disk too. Owns the order of it. Must not know: how a disk is filled (`volume`),
//! how records are accounted for (`ledger`, and the judge of histories).

mod at_zero;
pub(crate) mod ledger;
pub(crate) mod volume;

use std::path::Path;
use std::thread;
use std::time::Duration;

use falcon_client::{Client, ErrorCode, Partition, TopicChange};
use tokio::runtime::Runtime;

use crate::checker::{check, check_trimmed};
use crate::error::CrashError;
use crate::history::now_ns;
use crate::load::{self, Load, LoadOptions};
use crate::process::{Broker, Program, free_port};
use crate::trial::{Findings, TrialOptions};
use ledger::{Ledger, Published};
use volume::{Stranger, Volume};

const DEVICE_BYTES: u64 = 96 << 20;
/// Small segments, so that the disk holds many of them.
const SETTINGS: [(&str, &str); 5] = [
    ("FALCON_STORAGE_RETENTION_CHECK_MS", "100ms"),
    ("FALCON_STORAGE_SEGMENT_BYTES", "2MiB"),
    ("FALCON_STORAGE_CACHE_BYTES", "1MiB"),
    ("FALCON_LIMITS_BATCH_BYTES_MAX", "128KiB"),
    ("FALCON_SHUTDOWN_GRACE_MS", "2s"),
];
/// What each partition of the load keeps.
const RETENTION_BYTES: u64 = 1 << 20;
const LEDGER_BYTES: usize = 600;
const BALLAST_BYTES: usize = 30_000;
/// Longest until a full disk is noticed, and until space that is back is used.
const DEADLINE: Duration = Duration::from_secs(60);
/// Cycles between two comparisons of everything.
const COMPARE_EVERY: u32 = 5;

/// How the disk becomes full, and empty again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By records; the topic is deleted.
    RecordsDeleted,
    /// By a stranger, suddenly, while records are published; he goes.
    Stranger,
    /// By records; a retention setting trims them.
    RecordsTrimmed,
    /// By records, and in the middle of them a stranger; the topic is deleted with no byte free, then he
    /// goes.
    Both,
}

/// What one broker goes through.
#[derive(Debug, Clone, Copy)]
struct Plan {
    name: &'static str,
    /// What its cycles are called in the results.
    figure: &'static str,
    cycles: u32,
    ways: &'static [Way],
    /// Without one nothing is refused before the last byte: it is the writes that find out.
    floor: &'static str,
    retention_bytes: Option<u64>,
}

const WAYS: &[Way] = &[
    Way::Stranger,
    Way::RecordsDeleted,
    Way::Both,
    Way::RecordsTrimmed,
];
const FLOOR: &str = "FALCON_STORAGE_FREE_FLOOR_BYTES";

/// The trial.
pub(crate) fn disk_full(options: &TrialOptions) -> Result<Findings, CrashError> {
    let (cycles, sudden, restarts) = if options.is_long {
        (50, 12, 12)
    } else {
        (3, 1, 1)
    };
    let volume = Volume::new(&options.folder, DEVICE_BYTES)?;
    let runtime = runtime()?;
    let program = program(options, &volume, &SETTINGS)?;
    let mut findings = Findings::default();
    for name in ["acked", "lost", "duplicates", "restarts"] {
        findings.figure(name, 0);
    }
    let mut trial = Full {
        runtime: &runtime,
        volume: &volume,
        findings,
    };
    let without_floor = Plan {
        name: "without-floor",
        figure: "cycles_without_floor",
        cycles: sudden,
        ways: &[Way::Both],
        floor: "0",
        retention_bytes: None,
    };
    let with_floor = Plan {
        name: "with-floor",
        figure: "cycles",
        cycles,
        ways: WAYS,
        floor: "6MiB",
        retention_bytes: Some(RETENTION_BYTES),
    };
    for plan in [without_floor, with_floor] {
        let program = plan.program(&program);
        let folder = options.folder.join(plan.name);
        std::fs::create_dir(&folder).map_err(CrashError::io("create", &folder))?;
        let ledger = trial.fill_and_drain(&program, plan, &folder)?;
        let Some(ledger) = ledger else { break };
        if plan.floor == "0" {
            let folder = &program.data_dir;
            std::fs::remove_dir_all(folder).map_err(CrashError::io("remove", folder))?;
        } else {
            trial.at_zero(&program, restarts, ledger)?;
        }
    }
    let findings = trial.findings;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(findings)
}

impl Plan {
    fn program(&self, program: &Program) -> Program {
        let mut program = program.clone();
        let floor = (FLOOR.to_owned(), self.floor.to_owned());
        program.environment.push(floor);
        program.data_dir.set_file_name(self.name);
        program
    }
}

/// What clients run on.
pub(crate) fn runtime() -> Result<Runtime, CrashError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.map_err(|error| CrashError::Program(format!("no runtime: {error}")))
}

/// A broker on the volume, its log beside it.
pub(crate) fn program(
    options: &TrialOptions,
    volume: &Volume,
    settings: &[(&str, &str)],
) -> Result<Program, CrashError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ok(Program {
        path: options.program.clone(),
        data_dir: volume.path().join("data"),
        log: options.folder.join("broker.log"),
        environment: settings.iter().map(owned).collect(),
        port: free_port()?,
    })
}

/// Starts a broker and waits until it serves.
pub(crate) fn start(program: &Program) -> Result<Broker, CrashError> {
    let broker = program.start()?;
    match broker.wait_ready() {
        Some(_) => Ok(broker),
        None => Err(CrashError::Program("it did not start".into())),
    }
}

/// A connection to it.
pub(crate) async fn connect(program: &Program) -> Result<Client, CrashError> {
    let client = Client::connect(&program.address()).await;
    client.map_err(|error| CrashError::Program(format!("it accepts nobody: {error}")))
}

/// Lines of a log that must not be there.
pub(crate) fn bad_lines(log: &str, expected: &[&str]) -> Vec<String> {
    let is_bad = |line: &&str| {
        let is_expected = expected.iter().any(|message| line.contains(message));
        line.contains("panicked") || (line.contains(" ERROR ") && !is_expected)
    };
    log.lines().filter(is_bad).map(str::to_owned).collect()
}

struct Full<'a> {
    runtime: &'a Runtime,
    volume: &'a Volume,
    findings: Findings,
}

impl Full<'_> {
    /// All cycles under one broker. `None`: there is nothing to go on with.
    fn fill_and_drain(
        &mut self,
        program: &Program,
        plan: Plan,
        folder: &Path,
    ) -> Result<Option<Ledger>, CrashError> {
        let broker = start(program)?;
        let client = self.runtime.block_on(connect(program))?;
        let handle = self.runtime.handle().clone();
        let what = LoadOptions {
            address: program.address(),
            folder: folder.to_path_buf(),
            partitions: 4,
            retention_bytes: plan.retention_bytes,
            topics: None,
        };
        let mut load = Load::new(handle, what)?;
        load.start_lasting()?;
        let shape = (1, LEDGER_BYTES);
        let mut ledger = self
            .runtime
            .block_on(Ledger::create(&client, "ledger", shape))?;
        for cycle in 0..plan.cycles {
            load.start_fresh()?;
            let way = plan.ways.iter().copied().cycle().nth(cycle as usize);
            let way = way.unwrap_or(Way::Stranger);
            let done = self.cycle(&client, &mut ledger, (cycle, way));
            load.abandon_fresh();
            if !done? {
                self.judge_log(program);
                return Ok(None);
            }
            self.add(plan.figure, 1);
            if cycle % COMPARE_EVERY == COMPARE_EVERY - 1 || cycle + 1 == plan.cycles {
                self.compare(&ledger);
            }
        }
        load.finish();
        self.read_finally(&client, &load, plan)?;
        self.findings.expect(broker.stop(), || {
            "the broker did not last to the end, or did not stop in order".into()
        });
        self.judge_log(program);
        self.add("acked", ledger.acked());
        Ok(Some(ledger))
    }

    /// One time full and back. Answers whether going on makes sense.
    fn cycle(
        &mut self,
        client: &Client,
        ledger: &mut Ledger,
        (cycle, way): (u32, Way),
    ) -> Result<bool, CrashError> {
        let mut ballast = None;
        if way != Way::Stranger {
            let (name, shape) = (format!("ballast-{cycle}"), (2, BALLAST_BYTES));
            let filled = self
                .runtime
                .block_on(Ledger::create(client, &name, shape))?;
            ballast = Some(filled);
        }
        let stranger = match &mut ballast {
            None => Some(self.volume.fill()?),
            Some(ballast) => self.fill_with(ballast, way)?,
        };
        if !self.until(ledger, &Published::Full, way) {
            return Ok(false);
        }
        self.while_full(client, ledger, way);
        let is_freed = self.drain(client, ballast.as_ref(), way);
        drop(stranger);
        if let Some(ballast) = &ballast {
            self.add("acked", ballast.acked());
            if way == Way::RecordsTrimmed && is_freed {
                // Emptied, and of no use any more.
                let deleted = client.delete_topic(&ballast.topic);
                self.runtime.block_on(deleted).ok();
            }
        }
        let begun = now_ns();
        let is_resumed = self.until(ledger, &Published::Acked, way);
        let took = Duration::from_nanos(now_ns().saturating_sub(begun)).as_millis();
        self.raise("resume_ms_max", u64::try_from(took).unwrap_or(u64::MAX));
        Ok(is_resumed)
    }

    /// Publishes until there is no space, a stranger coming in the middle of it or not.
    fn fill_with(
        &mut self,
        ballast: &mut Ledger,
        way: Way,
    ) -> Result<Option<Stranger>, CrashError> {
        let volume = self.volume;
        let (end, stranger) = thread::scope(|scope| {
            let come = || {
                thread::sleep(Duration::from_millis(fastrand::u64(50..400)));
                volume.fill()
            };
            let stranger = (way == Way::Both).then(|| scope.spawn(come));
            let end = self.runtime.block_on(ballast.fill(2 * DEVICE_BYTES));
            (end, stranger.and_then(|thread| thread.join().ok()))
        });
        self.findings.expect(end == Published::Full, || {
            format!("{way:?}: the disk was filled, and the last publish ended with {end:?}")
        });
        stranger.transpose()
    }

    /// Publishes until one ends like that. Every other end but the two that are due is a finding.
    fn until(&mut self, ledger: &mut Ledger, wanted: &Published, way: Way) -> bool {
        let begun = now_ns();
        loop {
            let ended = self.runtime.block_on(ledger.publish());
            match &ended {
                Published::Acked => {}
                Published::Full => self.add("refused_while_full", 1),
                Published::Unanswered => self.add("unanswered", 1),
                Published::Otherwise(said) => {
                    let said = format!("{way:?}: a publish ended with: {said}");
                    self.findings.broken.push(said);
                    return false;
                }
            }
            if ended == *wanted {
                return true;
            }
            if Duration::from_nanos(now_ns().saturating_sub(begun)) > DEADLINE {
                let said = format!("{way:?}: still {ended:?} after {DEADLINE:?}, want {wanted:?}");
                self.findings.broken.push(said);
                return false;
            }
        }
    }

    /// What must go on without space.
    fn while_full(&mut self, client: &Client, ledger: &Ledger, way: Way) {
        let offsets = client.offsets("full");
        for round in 1..=4 {
            let last = ledger.acked().saturating_sub(4 - round);
            let position = falcon_client::Offset::ZERO.advance(last);
            let committed = offsets.commit(&ledger.topic, Partition(0), position);
            match self.runtime.block_on(committed) {
                Ok(()) => self.add("offset_commits_while_full", 1),
                Err(error) if error.code() == Some(ErrorCode::StorageFull) => {
                    self.add("offset_commits_refused", 1);
                }
                Err(error) => {
                    let said = format!("{way:?}: an offset commit ended with: {error}");
                    self.findings.broken.push(said);
                }
            }
        }
        match self.runtime.block_on(offsets.fetch(&ledger.topic)) {
            Ok(_) => self.add("offset_reads_while_full", 1),
            Err(error) => {
                let said = format!("{way:?}: committed offsets cannot be read: {error}");
                self.findings.broken.push(said);
            }
        }
        let compared = self.compare(ledger);
        self.add("records_read_while_full", compared);
    }

    /// Frees what the broker itself may free; answers whether it did.
    fn drain(&mut self, client: &Client, ballast: Option<&Ledger>, way: Way) -> bool {
        let Some(ballast) = ballast else { return true };
        // With a stranger about, all that is free is what was set aside.
        self.compare(ballast);
        let topic = &ballast.topic;
        let freed = match way {
            Way::RecordsTrimmed => {
                let change = TopicChange::new().retention_bytes(Some(1));
                self.runtime.block_on(client.alter_topic(topic, change))
            }
            Way::Stranger | Way::RecordsDeleted | Way::Both => {
                self.runtime.block_on(client.delete_topic(topic))
            }
        };
        let said = freed.as_ref().err().map(ToString::to_string);
        self.findings.expect(freed.is_ok(), || {
            format!("{way:?}: what frees space was refused: {said:?}")
        });
        freed.is_ok()
    }

    /// Compares what is stored with what was acknowledged; answers how much was read.
    fn compare(&mut self, ledger: &Ledger) -> u64 {
        let compared = self.runtime.block_on(ledger.compare());
        self.add("lost", compared.lost);
        self.add("duplicates", compared.duplicates);
        self.findings.expect(compared.lost == 0, || {
            format!("{}: {} records are lost", ledger.topic, compared.lost)
        });
        self.findings.broken.extend(compared.wrong);
        compared.read
    }

    /// The judge's verdict on the clients that were at work all the time.
    fn read_finally(&mut self, client: &Client, load: &Load, plan: Plan) -> Result<(), CrashError> {
        // Nothing is trimmed under the full read.
        let change = TopicChange::new().retention_bytes(None);
        let altered = self
            .runtime
            .block_on(client.alter_topic(load::TOPIC, change));
        let said = altered.err().map(|error| error.to_string());
        self.findings
            .expect(said.is_none(), || format!("retention stays: {said:?}"));
        load.read_all()?;
        let verdict = match plan.retention_bytes {
            Some(_) => check_trimmed(&load.files()[..])?,
            None => check(&load.files()[..])?,
        };
        self.add("acked", verdict.counts.acked);
        self.add("records_compared", verdict.counts.stored);
        self.findings
            .expect(verdict.is_clean(), || format!("{verdict:?}"));
        self.findings.broken.extend(load.complaints());
        Ok(())
    }

    fn judge_log(&mut self, program: &Program) {
        const EXPECTED: [&str; 3] = [
            "the disk is full, publishes are refused",
            "the index cannot be used",
            "the index cannot be written",
        ];
        let bad = bad_lines(&program.read_log(), &EXPECTED);
        self.findings.broken.extend(bad);
    }

    fn add(&mut self, name: &str, more: u64) {
        *self.findings.figures.entry(name.to_owned()).or_default() += more;
    }

    fn raise(&mut self, name: &str, value: u64) {
        let highest = self.findings.figures.entry(name.to_owned()).or_default();
        *highest = value.max(*highest);
    }
}
