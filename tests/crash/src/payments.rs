//! The payment pipeline of `examples/payments`, killed part by part while it works.
//!
//! Owns the order of it: a broker and six processes of the example, one of which, or the broker, is
//! killed and started again whenever the ledger has grown by another share; in the end the example's own
//! audit compares the ledger with the file. A pipeline that stands still for long is a broken promise
//! too.
//!
//! Must not know: how the pipeline works.

mod part;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use falcon_client::Client;
use tokio::runtime::Runtime;

use crate::error::CrashError;
use crate::full::{bad_lines, connect, runtime, start};
use crate::history::now_ns;
use crate::process::{Broker, Program, free_port};
use crate::trial::{Findings, TrialOptions};
use part::{Part, Pipeline};

/// Names a file of flights, instead of the one beside the sources.
const FLIGHTS: &str = "FALCON_FLIGHTS";
const DAY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/data/flights-2013-01-01.jsonl"
);
const YEAR: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/data/flights.jsonl.gz"
);
/// The ledger, and what leads to it.
const TOPICS: [&str; 3] = ["payments.orders", "payments.charges", "payments.ledger"];
const PAUSE: Duration = Duration::from_millis(20);
/// Longest the pipeline may stand still. A worker that was killed is back within a second, so this is
/// what a partition lost for good looks like, on a machine that is busy.
const STILL: Duration = Duration::from_secs(60);
/// Longest a part may take to end when it is asked to.
const END: Duration = Duration::from_secs(60);

/// The trial.
pub(crate) fn payments(options: &TrialOptions) -> Result<Findings, CrashError> {
    let kills = if options.is_long { 200 } else { 12 };
    let file = options.folder.join("flights.jsonl");
    let orders = write_flights(&file, options.is_long)?;
    let program = Program {
        path: options.program.clone(),
        data_dir: options.folder.join("data"),
        log: options.folder.join("broker.log"),
        environment: Vec::new(),
        port: free_port()?,
    };
    let broker = start(&program)?;
    let pipeline = Pipeline {
        path: example(&options.program)?,
        address: program.address(),
        log: options.folder.join("parts.log"),
    };
    let runtime = runtime()?;
    let client = runtime.block_on(connect(&program))?;
    let mut trial = Payments {
        runtime: &runtime,
        client,
        program: &program,
        broker: Some(broker),
        parts: pipeline.start_all(&file)?,
        pipeline: &pipeline,
        random: fastrand::Rng::with_seed(options.seed),
        findings: Findings::default(),
    };
    trial.findings.figure("orders", orders);
    if trial.run(kills, orders)? {
        trial.end(&file)?;
    }
    let bad = bad_lines(&program.read_log(), &[]);
    trial.findings.broken.extend(bad);
    Ok(trial.findings)
}

struct Payments<'a> {
    runtime: &'a Runtime,
    client: Client,
    program: &'a Program,
    broker: Option<Broker>,
    pipeline: &'a Pipeline,
    parts: Vec<Part>,
    random: fastrand::Rng,
    findings: Findings,
}

impl Payments<'_> {
    /// Kills until everything is booked; answers whether that came to pass.
    fn run(&mut self, kills: u64, orders: u64) -> Result<bool, CrashError> {
        let whole = orders * TOPICS.len() as u64;
        let mut killed = 0;
        let mut last = (0, now_ns());
        let mut due = 0;
        loop {
            std::thread::sleep(PAUSE);
            let done = self.progress();
            if done > last.0 {
                last = (done, now_ns());
            }
            if done == whole {
                break;
            }
            if let Some(part) = self.parts.iter_mut().find_map(Part::has_failed) {
                self.findings.broken.push(format!("{part} ended by itself"));
                return Ok(false);
            }
            let still = Duration::from_nanos(now_ns().saturating_sub(last.1));
            if still > STILL {
                let text = format!("it stands still with {done} of {whole} records");
                self.findings.broken.push(text);
                return Ok(false);
            }
            // Shares of the way, so that kills are spread over all of it, however fast the machine is.
            if killed < kills && done >= due {
                self.kill_one()?;
                killed += 1;
                let share = whole / (kills + 1);
                due = killed * share + self.random.u64(0..share.max(1));
            }
        }
        self.findings.figure("kills", killed);
        self.findings.expect(killed == kills, || {
            format!("{killed} kills, {kills} were meant")
        });
        Ok(true)
    }

    /// Records of all topics; what was known before when the broker does not answer.
    fn progress(&self) -> u64 {
        let ends = async {
            let mut sum = 0;
            for topic in TOPICS {
                let ends = self.client.latest_offsets(topic).await.ok()?;
                sum += ends.iter().map(|end| end.offset.get()).sum::<u64>();
            }
            Some(sum)
        };
        let asked = async { tokio::time::timeout(Duration::from_secs(1), ends).await };
        self.runtime.block_on(asked).ok().flatten().unwrap_or(0)
    }

    /// Kills the broker or a part at random, and starts it again.
    fn kill_one(&mut self) -> Result<(), CrashError> {
        let victim = self.random.usize(0..self.parts.len() + 3);
        if let Some(part) = self.parts.get_mut(victim) {
            part.kill();
            part.start(self.pipeline)?;
            self.count("worker_kills");
            return Ok(());
        }
        if let Some(broker) = self.broker.take() {
            broker.kill();
        }
        self.broker = Some(start(self.program)?);
        self.count("broker_kills");
        Ok(())
    }

    /// Everybody ends in order, and the books are audited.
    fn end(&mut self, file: &Path) -> Result<(), CrashError> {
        for mut part in std::mem::take(&mut self.parts) {
            let name = part.name();
            self.findings
                .expect(part.stop(END), || format!("{name} did not end in order"));
        }
        let audit = self.pipeline.command();
        let said = audited(audit, file, &self.pipeline.path)?;
        self.findings.figure("accounts", said.accounts);
        self.findings.figure("problems", said.problems.len() as u64);
        let problems = said.problems.into_iter();
        self.findings.broken.extend(problems);
        let stopped = self.broker.take().is_some_and(Broker::stop);
        self.findings
            .expect(stopped, || "the broker did not stop in order".into());
        let damage = self.program.inspect()?;
        self.findings
            .expect(damage.is_none(), || format!("verify: {damage:?}"));
        Ok(())
    }

    fn count(&mut self, name: &str) {
        let known = self.findings.figures.get(name).copied().unwrap_or_default();
        self.findings.figure(name, known + 1);
    }
}

struct Audit {
    accounts: u64,
    problems: Vec<String>,
}

fn audited(mut command: Command, file: &Path, program: &Path) -> Result<Audit, CrashError> {
    let output = command.arg("check").arg(file).output();
    let output = output.map_err(CrashError::io("start", program))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut problems: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("WRONG"))
        .map(str::to_owned)
        .collect();
    if !output.status.success() && problems.is_empty() {
        let error = String::from_utf8_lossy(&output.stderr);
        problems.push(format!("the audit failed: {error}"));
    }
    let last = said.lines().last().unwrap_or_default();
    let accounts = last.split(' ').next().and_then(|count| count.parse().ok());
    Ok(Audit {
        accounts: accounts.unwrap_or(0),
        problems,
    })
}

/// The example, built beside the broker.
fn example(program: &Path) -> Result<PathBuf, CrashError> {
    let path = program.with_file_name("examples").join("payments");
    if path.exists() {
        return Ok(path);
    }
    let text = format!("{} is not built", path.display());
    Err(CrashError::Unavailable(text))
}

/// Writes the flights of the run; answers how many. A year of them in a long run, if it is there.
fn write_flights(to: &Path, is_long: bool) -> Result<u64, CrashError> {
    let day = || std::fs::read(DAY).map_err(CrashError::io("read", Path::new(DAY)));
    let flights = match std::env::var_os(FLIGHTS) {
        Some(path) => {
            let path = PathBuf::from(path);
            std::fs::read(&path).map_err(CrashError::io("read", &path))?
        }
        None if is_long && Path::new(YEAR).exists() => {
            let unpacked = Command::new("zcat").arg(YEAR).stdin(Stdio::null()).output();
            unpacked
                .map_err(CrashError::io("unpack", Path::new(YEAR)))?
                .stdout
        }
        None if is_long => {
            eprintln!(
                "payments: {FLIGHTS} names no file; one day, many times over, stands in for the year"
            );
            day()?.repeat(400)
        }
        None => day()?.repeat(3),
    };
    write(to, &flights)?;
    Ok(flights.split_inclusive(|byte| *byte == b'\n').count() as u64)
}

fn write(to: &Path, bytes: &[u8]) -> Result<(), CrashError> {
    std::fs::write(to, bytes).map_err(CrashError::io("write", to))
}
