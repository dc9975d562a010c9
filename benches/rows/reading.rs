//! Rows 6, 7, 9: reading, alone and many at a time.

use crate::broker::Broker;
use crate::limit::stream;
use crate::limits::cache::{Cold, drop_caches};
use crate::limits::read::{self, Reads};
use crate::limits::samples::median;
use crate::limits::{Fallible, loopback};
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::{Ran, Stage, Topic};

const SMALL: Topic<'static> = Topic {
    name: "rows-100",
    record_bytes: 100,
};
const LARGE: Topic<'static> = Topic {
    name: "rows-1024",
    record_bytes: 1024,
};
/// Of the log that is read: far more than the broker's own cache, and less than memory.
const SMALL_BYTES: f64 = 1e9;
const LARGE_BYTES: f64 = 2e9;

fn replay(stage: &Stage, broker: &Broker, topic: Topic<'_>) -> Fallible<Ran> {
    let name = topic.name;
    stage.bench(broker, &format!("replay --topic {name}"))
}

fn delete(stage: &Stage, broker: &Broker, topic: Topic<'_>) -> Fallible<()> {
    let delete = format!("topic delete {}", topic.name);
    stage.falcon(broker, &delete).map(drop)
}

/// What was read a moment before.
pub(crate) fn hot(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let subjects = [
        (
            "replay hot, 100 B, decoded",
            Unit::RecordsPerSecond,
            Goal::AtLeast(8e6),
        ),
        (
            "replay hot, 1 KB, decoded",
            Unit::MegabytesPerSecond,
            Goal::AtLeast(2200.0),
        ),
    ];
    let mut lines = Vec::new();
    let loads = [(SMALL, SMALL_BYTES), (LARGE, LARGE_BYTES)];
    for ((topic, bytes), (what, unit, goal)) in loads.into_iter().zip(subjects) {
        stage.fill(broker, topic, stage.bytes(bytes))?;
        replay(stage, broker, topic)?;
        let (mut rounds, mut notes) = (Vec::new(), Vec::new());
        for _ in 0..stage.rounds {
            let paths = broker.segments()?;
            // The first one fills the page cache, where something is missing.
            read::read(&paths, false)?;
            let limit = read::read(&paths, false)?.min(stream(stage)?);
            let ran = replay(stage, broker, topic)?;
            rounds.push(if unit == Unit::RecordsPerSecond {
                Round::new(limit * 1e4, ran.records_per_second)
            } else {
                Round::new(limit, ran.megabytes_per_second)
            });
            notes.push(ran.megabytes_per_second);
        }
        delete(stage, broker, topic)?;
        let hot = format!(
            "hot: a log of {:.1} GB was filled and read once, the broker ran on, then it was read again and again; {:.0} MB/s of values",
            stage.bytes(bytes) / 1e9,
            median(&notes)
        );
        let subject = Subject::new(6, what, unit, goal);
        let subject = subject.against(
            "the lower of one loopback stream and reading the segments from the page cache",
        );
        lines.push(subject.line(rounds, vec![hot]));
    }
    Ok(lines)
}

/// What is on the device alone.
pub(crate) fn cold(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let mut lines = Vec::new();
    for (topic, bytes) in [(SMALL, SMALL_BYTES), (LARGE, LARGE_BYTES)] {
        stage.fill(broker, topic, stage.bytes(bytes))?;
        let (mut rounds, mut reads) = (Vec::new(), Vec::new());
        let mut is_all_dropped = true;
        for _ in 0..stage.rounds {
            broker.stop()?;
            let raw = read::measure(&broker.data().join("journal"), &broker.segments()?)?;
            is_all_dropped &= drop_caches(broker.data())? == Cold::All;
            broker.start_again()?;
            let ran = replay(stage, broker, topic)?;
            let limit = raw.cold.max(raw.cold_direct);
            rounds.push(Round::new(limit, ran.megabytes_per_second));
            reads.push(raw);
        }
        delete(stage, broker, topic)?;
        let size = topic.record_bytes;
        let what = format!("replay cold, {size} B, MB/s of values");
        let subject = Subject::new(7, &what, Unit::MegabytesPerSecond, Goal::RatioAtLeast(0.8));
        let subject =
            subject.against("the faster of raw sequential reads of the same segments, cold");
        let notes = vec![cold_note(&reads, is_all_dropped)];
        lines.push(subject.line(rounds, notes));
    }
    Ok(lines)
}

fn cold_note(reads: &[Reads], is_all_dropped: bool) -> String {
    let of = |kind: fn(&Reads) -> f64| median(&reads.iter().map(kind).collect::<Vec<_>>());
    let dropped = if is_all_dropped {
        "page cache dropped"
    } else {
        "without root: only the pages of the data folder dropped"
    };
    format!(
        "{dropped}, broker restarted; raw: {:.0} MB/s through the cache, {:.0} O_DIRECT, {:.0} O_DIRECT into a huge page",
        of(|reads| reads.cold),
        of(|reads| reads.cold_direct),
        of(|reads| reads.cold_huge)
    )
}

/// One publisher, 100 subscribers.
pub(crate) fn fan_out(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    const SUBSCRIBERS: usize = 100;
    let (mut rounds, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..stage.rounds {
        let limit = loopback::fan_out(SUBSCRIBERS, stage.lap())?;
        streams.push(stream(stage)?);
        let load = format!("fanout --size 1024 --subscribers {SUBSCRIBERS}");
        let ran = stage.warm(broker, &load)?;
        rounds.push(Round::new(limit, ran.megabytes_per_second));
    }
    let what = "1 publisher, 100 subscribers, 1 KB, delivered in all";
    let goal = Goal::RatioAtLeast(0.6);
    let subject = Subject::new(9, what, Unit::MegabytesPerSecond, goal);
    let note = format!("one loopback stream alone: {:.0} MB/s", median(&streams));
    let line = subject
        .against("raw loopback, one sender and 100 sockets, the best of 8 to 256 KiB a write");
    Ok(vec![line.line(rounds, vec![note])])
}
