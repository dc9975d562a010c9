//! Members of groups come, go, die, freeze and stall while records flow.
//!
//! Owns the plan of it: processes that are members of two groups, whose partitions move with every act; in the end
//! the trouble stops, and everything must have been handled and committed. One group mixes members that commit
//! by themselves and members whose client does; the other publishes what it handles in atomic steps. Every second
//! member has a name, and comes back under it. Then two judges go through what everybody wrote down.
//!
//! Must not know: what histories prove, and how members work.

mod acts;
mod crew;
mod load;
pub mod member;
mod pulse;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Builder;

use crate::checker::{self, Violation, groups};
use crate::error::CrashError;
use crate::history::{Entry, HistoryWriter, Op, Outcome, ValueId, now_ns};
use crate::process::{Broker, Program, free_port};
use crate::trial::{Findings, TrialOptions};
use acts::{Act, FIGURES, choose, join};
use crew::Crew;
use load::Load;
use member::GROUPS;
use pulse::Pulse;

/// How long a member may be silent.
const SESSION: Duration = Duration::from_secs(2);
/// What the groups promise. A partition is without an owner for a second more than the session; members that stall
/// do so for longer than partitions of others may stand still; members look for a broker that comes back at least
/// every second.
pub const BOUNDS: groups::Bounds = groups::Bounds {
    ownerless: Duration::from_secs(3),
    blocked: Duration::from_secs(2),
    recovery: Duration::from_secs(2),
};
/// Topics at most, and partitions of those that come later.
const TOPICS_MAX: usize = 8;
const LATER_PARTITIONS: u16 = 2;
/// Longest until members have joined, and everything is committed once the trouble is over.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much of it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rebalances: usize,
    time_max: Duration,
    /// Longest pause between two acts.
    pause_ms_max: u64,
    /// Of each of the two topics that are there from the start.
    partitions: u16,
    /// Records a second for each partition.
    rate: u32,
}

const SHORT: Plan = Plan {
    rebalances: 40,
    time_max: Duration::from_secs(40),
    pause_ms_max: 300,
    partitions: 4,
    rate: 40,
};
const LONG: Plan = Plan {
    rebalances: 1_000,
    time_max: Duration::from_secs(30 * 60),
    pause_ms_max: 1_200,
    partitions: 7,
    rate: 80,
};

/// Tells members to commit what they have not handled: the run must then fail.
const HASTY: &str = "FALCON_REBALANCES_HASTY";

/// The trial.
pub(crate) fn run(options: &TrialOptions) -> Result<Findings, CrashError> {
    let mut plan = if options.is_long { LONG } else { SHORT };
    if let Some(minutes) = options.minutes {
        plan.rebalances = usize::MAX;
        plan.time_max = Duration::from_secs(minutes * 60);
    }
    let program = Program {
        path: options.program.clone(),
        data_dir: options.folder.join("data"),
        log: options.folder.join("falcon.log"),
        environment: Vec::new(),
        port: free_port()?,
    };
    let broker = started(&program)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CrashError::Program(format!("no runtime: {error}")))?;
    let handle = runtime.handle().clone();
    let address = program.address();
    let load = Load::new(handle, address.clone(), options.folder.clone(), plan.rate)?;
    let mut crew = Crew::new(address, options.folder.clone(), SESSION);
    crew.is_hasty = std::env::var_os(HASTY).is_some();
    let mut trial = Rebalances {
        program: &program,
        broker: Some(broker),
        load,
        crew,
        random: Rng::with_seed(options.seed),
        entries: Vec::new(),
        findings: Findings::default(),
    };
    for figure in FIGURES {
        trial.findings.figure(figure, 0);
    }
    trial.run(plan, options)?;
    Ok(trial.findings)
}

fn started(program: &Program) -> Result<Broker, CrashError> {
    let broker = program.start()?;
    if broker.wait_ready().is_none() {
        return Err(CrashError::Program(program.read_log()));
    }
    Ok(broker)
}

struct Rebalances<'a> {
    program: &'a Program,
    broker: Option<Broker>,
    load: Load,
    crew: Crew,
    random: Rng,
    /// What the rig itself did.
    entries: Vec<Entry>,
    findings: Findings,
}

impl Rebalances<'_> {
    fn run(&mut self, plan: Plan, options: &TrialOptions) -> Result<(), CrashError> {
        let pulse = Pulse::start()?;
        for _ in 0..2 {
            self.load.add_topic(plan.partitions)?;
        }
        for group in (0..GROUPS).cycle().take(usize::from(GROUPS) * 3) {
            let act = join(group, &self.crew, &mut self.random);
            self.act(act)?;
        }
        let is_settled = self.wait(|crew| crew.members().all(crew::Member::is_at_work));
        self.findings
            .expect(is_settled, || "the first members do not join".into());

        let until = now_ns() + nanoseconds(plan.time_max);
        let mut acts = 0;
        while self.crew.epochs.len() < plan.rebalances && now_ns() < until {
            acts += 1;
            let act = choose(acts, &self.crew, SESSION, &mut self.random);
            self.act(act)?;
            self.pause_up_to(plan.pause_ms_max);
        }
        self.settle()?;
        let (hiccups, late_ms_max) = pulse.stop();
        self.findings.figure("machine_late_ms_max", late_ms_max);
        self.findings.figure("hiccups", hiccups.len() as u64);
        self.entries.extend(hiccups);
        self.judge(options)
    }

    /// Does something, and counts it.
    fn act(&mut self, act: Act) -> Result<(), CrashError> {
        if act == Act::AddTopic && self.load.topics() >= TOPICS_MAX {
            return Ok(());
        }
        let figures = &mut self.findings.figures;
        *figures.entry(act.figure().to_owned()).or_default() += 1;
        match act {
            Act::Join(group, mode, instance) => {
                self.crew.start(group, mode, instance)?;
            }
            Act::Leave(number) => self.crew.leave(number),
            Act::Crash(number) => self.crew.kill(number),
            Act::Freeze(number, length) => self.crew.freeze(number, length),
            Act::Stall(number, length) => self.crew.stall(number, length),
            Act::Restart(number) => {
                let old = self.who(number);
                self.crew.kill(number);
                self.pause_up_to(600);
                self.heir(old)?;
            }
            Act::TakeOver(number, frozen) => {
                if let Some(length) = frozen {
                    self.crew.freeze(number, length);
                }
                let old = self.who(number);
                self.heir(old)?;
            }
            Act::KillBroker => self.kill_broker()?,
            Act::AddTopic => self.load.add_topic(LATER_PARTITIONS)?,
        }
        Ok(())
    }

    fn who(&self, number: u32) -> Option<(u16, member::Mode, Option<String>)> {
        let mut members = self.crew.members();
        let member = members.find(|member| member.number == number)?;
        Some((member.group, member.mode, member.instance.clone()))
    }

    /// Starts a member under the name of another one.
    fn heir(&mut self, old: Option<(u16, member::Mode, Option<String>)>) -> Result<(), CrashError> {
        if let Some((group, mode, instance)) = old {
            self.crew.start(group, mode, instance)?;
        }
        Ok(())
    }

    fn kill_broker(&mut self) -> Result<(), CrashError> {
        let from = now_ns();
        if let Some(broker) = self.broker.take() {
            broker.kill();
        }
        self.broker = Some(started(self.program)?);
        self.entries.push(Entry {
            op: Op::Down,
            outcome: Outcome::Ok,
            partition: 0,
            actor: 0,
            value: ValueId::FOREIGN,
            offset: 0,
            invoked_ns: from,
            completed_ns: now_ns(),
        });
        Ok(())
    }

    fn pause_up_to(&mut self, most_ms: u64) {
        let length = Duration::from_millis(self.random.u64(0..most_ms));
        self.pause(length);
    }

    /// Passes time, and looks after the members.
    fn pause(&mut self, length: Duration) {
        let until = now_ns() + nanoseconds(length);
        loop {
            self.crew.tick();
            let left = until.saturating_sub(now_ns());
            if left == 0 {
                return;
            }
            thread::sleep(Duration::from_nanos(left).min(Duration::from_millis(10)));
        }
    }

    fn wait(&mut self, is_so: impl Fn(&Crew) -> bool) -> bool {
        let until = now_ns() + nanoseconds(DEADLINE);
        while !is_so(&self.crew) {
            if now_ns() > until {
                return false;
            }
            self.pause(Duration::from_millis(50));
        }
        true
    }

    /// The trouble is over: everything is handled and committed, then everybody goes.
    fn settle(&mut self) -> Result<(), CrashError> {
        self.load.stop_publishing();
        self.crew.thaw_all();
        for group in 0..GROUPS {
            let act = join(group, &self.crew, &mut self.random);
            self.act(act)?;
        }
        let until = now_ns() + nanoseconds(DEADLINE);
        while !self.load.is_drained() && now_ns() < until {
            self.pause(Duration::from_millis(200));
        }
        let is_drained = self.load.is_drained();
        self.findings.expect(is_drained, || {
            "not everything is committed a minute after the trouble is over".into()
        });
        self.crew.end(DEADLINE);
        self.load.finish()
    }

    fn judge(&mut self, options: &TrialOptions) -> Result<(), CrashError> {
        self.crew.mend()?;
        let rig = options.folder.join("rig.history");
        let mut notes = HistoryWriter::create(&rig)?;
        let of_rig = self.entries.iter().chain(&self.crew.lives);
        of_rig
            .chain(&self.load.appeared)
            .try_for_each(|entry| notes.push(entry))?;
        notes.finish()?;
        let members = self.crew.files.iter().filter(|path| path.exists()).cloned();
        let files = self.load.files().into_iter().chain([rig]).chain(members);
        let files: Vec<PathBuf> = files.collect();

        let records = checker::check(&files[..])?;
        let found = groups::check(&files[..], BOUNDS)?;
        self.figures(&found, &records);
        let mut violations: BTreeMap<Violation, u64> = records.violations;
        for (violation, times) in found.verdict.violations {
            *violations.entry(violation).or_default() += times;
        }
        for (violation, times) in &violations {
            self.findings.broken.push(format!("{violation}: {times}"));
        }
        let broken = &mut self.findings.broken;
        broken.extend(records.examples);
        broken.extend(found.verdict.examples);
        broken.extend(self.load.complaints());
        broken.append(&mut self.crew.complaints);
        let is_stopped = self.broker.take().is_some_and(Broker::stop);
        self.findings
            .expect(is_stopped, || "the broker did not stop orderly".into());
        for line in self.program.read_log().lines() {
            let is_bad = line.contains(" ERROR ") || line.contains("panicked");
            self.findings.expect(!is_bad, || line.to_owned());
        }
        Ok(())
    }

    fn figures(&mut self, found: &groups::GroupVerdict, records: &checker::Verdict) {
        let (counts, verdict) = (&found.counts, &found.verdict);
        let figures = [
            // Generations that moved something: what moves together is granted under one epoch.
            ("rebalances", counts.epochs),
            ("partitions_granted", counts.grants),
            ("names_taken_over", self.crew.taken_over),
            ("records_published", records.counts.acked),
            ("records_handled", counts.handled),
            ("redelivered", counts.redelivered),
            ("commits", counts.commits),
            ("commits_refused_as_stale", counts.commits_refused_as_stale),
            ("ownerless_ms_max", counts.ownerless_ms_max),
            ("ownerless_excluded", counts.ownerless_excluded),
            (
                "blocked_by_stalled_ms_max",
                counts.blocked_by_stalled_ms_max,
            ),
            ("handled_beside_stalled", counts.handled_beside_stalled),
            ("step_records", counts.outputs),
            ("double_owners", verdict.count(Violation::DoubleOwner)),
            ("skipped", verdict.count(Violation::Skipped)),
            (
                "committed_before_handled",
                verdict.count(Violation::CommittedBeforeHandled),
            ),
            (
                "committed_regressions",
                verdict.count(Violation::CommitRegression),
            ),
            ("handled_again", verdict.count(Violation::HandledAgain)),
            ("not_exactly_once", verdict.count(Violation::NotExactlyOnce)),
        ];
        for (name, value) in figures {
            self.findings.figure(name, value);
        }
    }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
