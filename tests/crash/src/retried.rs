//! Publishes whose acknowledgements get lost: every batch is sent again, and must be there once.
//!
//! Between publishers and broker stands a proxy that cuts connections when batches are under way (`proxy`).
//! Beside that the broker is killed, every second time after the batches became durable and before anybody
//! was told. Owns the order of it. In the end everything is read back (`read_back`). The control takes the
//! identity out of each batch between client and broker: then duplicates must be found.

mod proxy;
mod publishers;
mod read_back;
mod sent;

use std::path::Path;
use std::thread;
use std::time::Duration;

use falcon_client::TopicOptions;
use fastrand::Rng;
use tokio::runtime::Runtime;

use crate::error::CrashError;
use crate::full::{bad_lines, connect, runtime, start};
use crate::history::now_ns;
use crate::process::{Broker, Program, free_port};
use crate::trial::{Findings, TrialOptions};
use proxy::Proxy;
use publishers::{Account, Publishers};
use sent::Identity;

const TOPIC: &str = "retried";
const PARTITIONS: u32 = 4;
const SETTINGS: [(&str, &str); 3] = [
    ("FALCON_LIMITS_BATCH_BYTES_MAX", "128KiB"),
    ("FALCON_STORAGE_SEGMENT_BYTES", "1MiB"),
    ("FALCON_SHUTDOWN_GRACE_MS", "2s"),
];
/// Makes the time between a write and its sync longer.
const SYNC_DELAY: &str = "FALCON_TEST_SYNC_DELAY_MS";
/// Between two looks at how far it is.
const TURN: Duration = Duration::from_millis(50);

/// How long one part goes on.
#[derive(Debug, Clone, Copy)]
struct Plan {
    identity: Identity,
    /// Records that are to be sent more than once.
    retried: u64,
    kills: u64,
    /// Longest.
    deadline: Duration,
    /// Longest time between two kills.
    kill_after_ms_max: u64,
}

/// The trial.
pub(crate) fn publishes(options: &TrialOptions) -> Result<Findings, CrashError> {
    let plan = if options.is_long {
        Plan {
            identity: Identity::Kept,
            retried: 1_000_000,
            kills: 150,
            deadline: Duration::from_secs(3000),
            kill_after_ms_max: 3000,
        }
    } else {
        Plan {
            identity: Identity::Kept,
            retried: 20_000,
            kills: 3,
            deadline: Duration::from_secs(120),
            kill_after_ms_max: 2000,
        }
    };
    let control = Plan {
        identity: Identity::Removed,
        retried: 2000,
        kills: 1,
        deadline: Duration::from_secs(60),
        kill_after_ms_max: 1000,
    };
    let runtime = runtime()?;
    let mut findings = Retried::run(&runtime, options, plan, "kept")?;
    let found = Retried::run(&runtime, options, control, "control")?;
    let figure = |name| found.figures.get(name).copied().unwrap_or_default();
    findings.figure("control_duplicates", figure("duplicates"));
    findings.expect(figure("duplicates") > 0, || {
        "the control: batches without identity were sent again, and no duplicate was found".into()
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(findings)
}

struct Retried<'a> {
    runtime: &'a Runtime,
    program: Program,
    proxy: Proxy,
    random: Rng,
    findings: Findings,
}

impl<'a> Retried<'a> {
    fn run(
        runtime: &'a Runtime,
        options: &TrialOptions,
        plan: Plan,
        name: &str,
    ) -> Result<Findings, CrashError> {
        let folder = options.folder.join(name);
        std::fs::create_dir(&folder).map_err(CrashError::io("create", &folder))?;
        let program = program(options, &folder)?;
        let proxy = Proxy::start(runtime.handle(), program.port, plan.identity, options.seed);
        let mut retried = Self {
            runtime,
            program,
            proxy: runtime.block_on(proxy)?,
            random: Rng::with_seed(options.seed),
            findings: Findings::default(),
        };
        let broker = start(&retried.program)?;
        let client = runtime.block_on(connect(&retried.program))?;
        let created = client.create_topic(TOPIC, TopicOptions::new(PARTITIONS));
        let created = runtime.block_on(created);
        created.map_err(|error| CrashError::Program(format!("the topic {TOPIC}: {error}")))?;
        let publishers = Publishers::start(runtime.handle(), retried.proxy.port);
        let (broker, kills) = retried.trouble(broker, plan)?;
        retried.proxy.calm();
        let accounts = runtime.block_on(publishers.finish());
        runtime.block_on(retried.proxy.end());
        retried.judge(&accounts);
        retried.note(plan, kills);
        retried
            .findings
            .expect(broker.stop(), || "the last broker did not stop".into());
        let bad = bad_lines(&retried.program.read_log(), &[]);
        retried.findings.broken.extend(bad);
        Ok(retried.findings)
    }

    /// Kills brokers until enough was sent again.
    fn trouble(&mut self, mut broker: Broker, plan: Plan) -> Result<(Broker, u64), CrashError> {
        let begun = now_ns();
        let mut kills = 0;
        loop {
            let wait_ms = self
                .random
                .u64(plan.kill_after_ms_max / 10..plan.kill_after_ms_max);
            let turns = Duration::from_millis(wait_ms).as_nanos() / TURN.as_nanos();
            for _ in 0..turns {
                thread::sleep(TURN);
            }
            let is_enough = self.proxy.sent().retried_records() >= plan.retried;
            let took = Duration::from_nanos(now_ns().saturating_sub(begun));
            if is_enough && kills >= plan.kills || took > plan.deadline {
                return Ok((broker, kills));
            }
            self.kill(broker);
            kills += 1;
            let delay_ms = self.random.u64(0..2) * self.random.u64(1..6);
            self.program.set(SYNC_DELAY, &delay_ms.to_string());
            broker = start(&self.program)?;
        }
    }

    /// Every second time when what is durable has been told nobody for a while.
    fn kill(&mut self, broker: Broker) {
        if self.random.bool() {
            broker.kill();
            return;
        }
        self.proxy.swallow_answers(true);
        thread::sleep(Duration::from_micros(self.random.u64(0..30_000)));
        broker.kill();
        self.proxy.swallow_answers(false);
    }

    fn judge(&mut self, accounts: &[Account]) {
        let judged = self.runtime.block_on(async {
            let client = connect(&self.program).await?;
            Ok::<_, CrashError>(read_back::judge(&client, accounts).await)
        });
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => return self.findings.broken.push(error.to_string()),
        };
        for (name, count) in judged.counts() {
            self.findings.figure(name, count);
        }
        self.findings.broken.extend(judged.said);
    }

    fn note(&mut self, plan: Plan, kills: u64) {
        let retried = self.proxy.sent().retried_records();
        self.findings.figure("retried", retried);
        self.findings
            .figure("batches_retried", self.proxy.sent().retried_batches());
        self.findings.figure("kills", kills);
        for (name, count) in self.proxy.figures() {
            self.findings.figure(name, count);
        }
        self.findings.expect(retried >= plan.retried, || {
            format!("only {retried} records were sent again")
        });
    }
}

fn program(options: &TrialOptions, folder: &Path) -> Result<Program, CrashError> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ok(Program {
        path: options.program.clone(),
        data_dir: folder.join("data"),
        log: folder.join("broker.log"),
        environment: SETTINGS.iter().map(owned).collect(),
        port: free_port()?,
    })
}
