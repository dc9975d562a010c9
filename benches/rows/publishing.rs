//! Rows 1, 2, 3, 8, 10, 12: publishing as fast as it goes.

use crate::broker::Broker;
use crate::limit::{Ack, Bulk};
use crate::limits::Fallible;
use crate::limits::samples::median;
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::Stage;
use crate::process::{
    cpu_seconds, device_written_bytes, threads, written_by_thread, written_bytes,
};
use crate::profile::Profile;

const MILLION: f64 = 1e6;
const ONE: &str = "publish";
/// The thread that prepares and reclaims segments.
const KEEPER: &str = "falcon-keeper";

/// 100 B, one publisher, one partition.
pub(crate) fn one_publisher(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let mut rounds = Vec::new();
    for _ in 0..stage.rounds {
        let limit = Bulk::measure(stage)?.megabytes() * MILLION / 100.0;
        let ran = stage.warm(broker, ONE)?;
        rounds.push(Round::new(limit, ran.records_per_second));
    }
    let goal = Goal::AtLeast(3.0 * MILLION);
    let what = "100 B, one publisher, one partition";
    let subject = Subject::new(1, what, Unit::RecordsPerSecond, goal);
    let limit = format!("{}, at 100 B a record", Bulk::IS);
    Ok(vec![subject.against(&limit).line(rounds, Vec::new())])
}

/// 1 KB, and where the time goes.
pub(crate) fn kilobytes(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let loads = [
        ("1 KB, one publisher", "publish --size 1024"),
        (
            "1 KB, 4 publishers x 4 partitions",
            "publish --size 1024 --publishers 4 --partitions 4",
        ),
    ];
    let mut lines = Vec::new();
    for (what, load) in loads {
        let (mut rounds, mut profiles) = (Vec::new(), Vec::new());
        for _ in 0..stage.rounds {
            let limit = Bulk::measure(stage)?.megabytes();
            let (ran, profile) = Profile::of(broker, || stage.cold(broker, load))?;
            rounds.push(Round::new(limit, ran.megabytes_per_second));
            profiles.push(profile);
        }
        let goal = Goal::AtLeast(1000.0);
        let subject = Subject::new(2, what, Unit::MegabytesPerSecond, goal);
        let notes = vec![Profile::sum(&profiles).to_string()];
        lines.push(subject.against(Bulk::IS).line(rounds, notes));
    }
    Ok(lines)
}

/// 256 tasks, each awaiting its own publish.
pub(crate) fn awaiting(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    const TASKS: f64 = 256.0;
    let mut rounds = Vec::new();
    for _ in 0..stage.rounds {
        let limit = Ack::measure(stage, 64 << 10)?;
        let ran = stage.warm(broker, "scale")?;
        let limit = TASKS / (limit.p50_us() / MILLION);
        rounds.push(Round::new(limit, ran.records_per_second));
    }
    let what = "256 tasks await each their own 100 B, 4 connections";
    let goal = Goal::AtLeast(250_000.0);
    let subject = Subject::new(3, what, Unit::RecordsPerSecond, goal);
    let limit = "256 records by one 64 KiB write + fdatasync and one round trip (p50)";
    Ok(vec![subject.against(limit).line(rounds, Vec::new())])
}

/// 1,000 partitions, against one.
pub(crate) fn partitions(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let mut rounds = Vec::new();
    for _ in 0..stage.rounds {
        let one = stage.warm(broker, ONE)?.records_per_second;
        let ran = stage.warm(broker, "publish --partitions 1000")?;
        rounds.push(Round::new(one, ran.records_per_second));
    }
    let goal = Goal::RatioAtLeast(0.7);
    let what = "100 B, 1,000 partitions in turns";
    let subject = Subject::new(8, what, Unit::RecordsPerSecond, goal);
    let line = subject.against("row 1, in the same round");
    Ok(vec![line.line(rounds, Vec::new())])
}

/// Processor time of the broker.
pub(crate) fn processor(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let (mut rounds, mut without) = (Vec::new(), Vec::new());
    for _ in 0..stage.rounds {
        let before = Processor::of(broker)?;
        let ran = stage.cold(broker, ONE)?;
        let after = Processor::of(broker)?;
        let millions = ran.records / MILLION;
        let (all, keeper) = (after.all - before.all, after.keeper - before.keeper);
        rounds.push(Round::alone(all / millions));
        without.push((all - keeper) / millions);
    }
    let goal = Goal::AtMost(0.35);
    let what = "processor time of the broker for a million durable 100 B records";
    let subject = Subject::new(10, what, Unit::Seconds, goal);
    let without = median(&without);
    let note = format!("{without:.3} s without the thread that prepares and reclaims segments");
    Ok(vec![subject.line(rounds, vec![note])])
}

/// Seconds.
struct Processor {
    all: f64,
    keeper: f64,
}

impl Processor {
    fn of(broker: &Broker) -> Fallible<Self> {
        let threads = threads(broker.pid())?;
        Ok(Self {
            all: cpu_seconds(broker.pid())?,
            keeper: threads.get(KEEPER).copied().unwrap_or_default(),
        })
    }
}

/// Bytes written to the device.
pub(crate) fn written(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let loads = [
        ("100 B", "publish", 1.15),
        ("1 KB", "publish --size 1024", 1.03),
    ];
    let mut lines = Vec::new();
    for (size, load, most) in loads {
        let (mut rounds, mut besides) = (Vec::new(), <[Vec<f64>; 3]>::default());
        for _ in 0..stage.rounds {
            let before = Device::of(broker)?;
            let ran = stage.cold(broker, load)?;
            let wrote = Device::of(broker)?.since(&before, ran.value_bytes);
            rounds.push(Round::alone(wrote.all - wrote.prepared));
            let all = [wrote.prepared, wrote.process, wrote.keeper];
            for (figures, figure) in besides.iter_mut().zip(all) {
                figures.push(figure);
            }
        }
        let what = format!("bytes written to the device for a byte of payload, {size}");
        let subject = Subject::new(12, &what, Unit::Share, Goal::AtMost(most));
        let [prepared, process, keeper] = besides.map(|figures| median(&figures));
        let prepared = if broker.metrics()?.contains_key(PREPARED) {
            format!("preparing segments: {prepared:.3} besides")
        } else {
            "with what preparing segments wrote".to_owned()
        };
        let process = format!(
            "by the process' own account {process:.3}, of it the thread that prepares and reclaims segments \
             {keeper:.3}; the account takes a large page that is written in part for all of it"
        );
        lines.push(subject.line(rounds, vec![prepared, process]));
    }
    Ok(lines)
}

const PREPARED: &str = "falcon_journal_prepared_bytes_total";

/// Bytes.
struct Device {
    all: f64,
    process: f64,
    keeper: f64,
    prepared: f64,
}

impl Device {
    fn of(broker: &Broker) -> Fallible<Self> {
        let process = written_bytes(broker.pid())?;
        Ok(Self {
            all: device_written_bytes(broker.data())?.unwrap_or(process),
            process,
            keeper: written_by_thread(broker.pid(), KEEPER)?,
            prepared: broker.metric(PREPARED)?,
        })
    }

    /// What came since, by so many bytes of payload.
    fn since(&self, before: &Self, payload: f64) -> Self {
        Self {
            all: (self.all - before.all) / payload,
            process: (self.process - before.process) / payload,
            keeper: (self.keeper - before.keeper) / payload,
            prepared: (self.prepared - before.prepared) / payload,
        }
    }
}
