//! Row 14: throughput over time, while a log grows and is trimmed.

use std::thread::sleep;
use std::time::Duration;

use falcon::clock::Instant;
use falcon_crash::chart::{BLUE, Chart, Curve, ORANGE, Panel};

use crate::broker::Broker;
use crate::limit::Bulk;
use crate::limits::samples::median;
use crate::limits::{Fallible, loopback, write};
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::Stage;
use crate::page::PICTURE;

/// What is written in all, and what the topic keeps.
pub(crate) const WRITTEN_BYTES: f64 = 20e9;
const KEPT_BYTES: f64 = 10e9;
/// Over which a mean is taken. In bytes, so that a slow stretch counts as often as a quick one.
const WINDOW_BYTES: f64 = 1e9;
/// Beside it.
const WINDOW_SECONDS: f64 = 10.0;
/// Of the beginning, which is left out: connections, first segments, a device that was idle.
const WARM_UP_SECONDS: f64 = 3.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Of the picture: shorter ones say more about the sampling than about the broker.
const PICTURE_SECONDS: f64 = 0.5;
const PATIENCE: Duration = Duration::from_secs(1800);

/// What the broker had done by a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    records: f64,
    bytes: f64,
    trimmed: f64,
    on_disk: f64,
}

/// One log's life.
struct Growth {
    samples: Vec<Sample>,
    furthest: f64,
    notes: Vec<String>,
}

pub(crate) fn flatness(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let mut rounds = Vec::new();
    let mut notes = vec![format!(
        "windows of 1 GB, the first {WARM_UP_SECONDS:.0} s left out"
    )];
    let mut worst: Option<Growth> = None;
    for round in 0..stage.rounds {
        if round > 0 {
            broker.kill()?;
            *broker = stage.fresh()?;
        }
        let growth = Growth::measure(stage, broker)?;
        rounds.push(Round::alone(growth.furthest));
        let number = round + 1;
        notes.push(format!("round {number}: {}", growth.notes.join("; ")));
        if worst
            .as_ref()
            .is_none_or(|worst| growth.furthest > worst.furthest)
        {
            worst = Some(growth);
        }
    }
    let worst = worst.ok_or("nothing was measured")?;
    worst.draw(stage)?;
    let what = "100 B records until 20 GB are written, 10 GB kept: furthest mean from the median";
    let subject = Subject::new(14, what, Unit::Share, Goal::AtMost(0.1));
    Ok(vec![subject.line(rounds, notes)])
}

impl Growth {
    fn measure(stage: &Stage, broker: &Broker) -> Fallible<Self> {
        let kept = stage.bytes(KEPT_BYTES);
        let create = format!("topic create grows --retention-bytes {kept:.0}");
        stage.falcon(broker, &create)?;
        let before = Bulk::measure(stage)?.megabytes();
        let samples = observe(stage, broker)?;
        let after = Bulk::measure(stage)?.megabytes();
        let scale = stage.scale.min(1.0);
        let settled: Vec<Sample> = samples
            .iter()
            .filter(|sample| sample.seconds >= WARM_UP_SECONDS * scale)
            .copied()
            .collect();
        let by_bytes = means(&settled, stage.bytes(WINDOW_BYTES), |sample| sample.bytes);
        let by_seconds = means(&settled, WINDOW_SECONDS * scale, |sample| sample.seconds);
        let trims = trims_begin(&samples);
        let (early, late): (Vec<_>, Vec<_>) = by_bytes
            .iter()
            .partition(|mean| trims.is_none_or(|trims| mean.until <= trims));
        let device = device_alone(stage, by_bytes.len())?;
        let begun = settled.first().map_or(0.0, |sample| sample.seconds);
        let ended = by_bytes.last().map_or(begun, |mean| mean.until);
        let processors = processors_alone(by_bytes.len(), ended - begun)?;
        let last = samples.last().ok_or("nothing was sampled")?;
        let on_disk = samples.iter().map(|sample| sample.on_disk);
        let (all, long) = (rates(&by_bytes), rates(&by_seconds));
        let show = |rates: &[f64]| Unit::RecordsPerSecond.show(median(rates));
        let notes = vec![
            format!(
                "{} windows around {}, from {} to {}; before trims begin around {}, the furthest \
                 {:.3} away, after around {}, {:.3}; {} means of {WINDOW_SECONDS:.0} s: {:.3}",
                all.len(),
                show(&all),
                Unit::RecordsPerSecond.show(all.iter().copied().fold(f64::INFINITY, f64::min)),
                Unit::RecordsPerSecond.show(all.iter().copied().fold(0.0, f64::max)),
                show(&rates(&early)),
                furthest(&rates(&early)),
                show(&rates(&late)),
                furthest(&rates(&late)),
                long.len(),
                furthest(&long),
            ),
            format!(
                "{:.1} GB written in {:.0} s, at most {:.1} GB on disk",
                last.bytes / 1e9,
                last.seconds,
                on_disk.fold(0.0, f64::max) / 1e9,
            ),
            format!(
                "{} before: {before:.0} MB/s, after: {after:.0} MB/s; the machine alone: as many \
                 windows of 1 GB by 1 MiB write + fdatasync {device:.3}, as many as long ones of \
                 one loopback stream {processors:.3}",
                Bulk::IS
            ),
        ];
        Ok(Self {
            samples,
            furthest: furthest(&all),
            notes,
        })
    }

    fn draw(&self, stage: &Stage) -> Fallible<()> {
        let every = PICTURE_SECONDS * stage.scale.min(1.0);
        let rates = means(&self.samples, every, |sample| sample.seconds);
        let on_disk = self.samples.iter();
        let panel = |unit, label, colour, points| Panel {
            unit,
            curves: vec![Curve {
                label,
                colour,
                points,
            }],
        };
        let rates = rates.iter().map(|mean| (mean.until, mean.rate / 1e6));
        let on_disk = on_disk.map(|sample| (sample.seconds, sample.on_disk / 1e9));
        let trims = trims_begin(&self.samples).map(|at| (at, "trims begin"));
        let chart = Chart {
            title: "Falcon: 100 B records, one publisher, while the log grows and is trimmed",
            time: "seconds",
            panels: &[
                panel("million records/s", "acknowledged", BLUE, rates.collect()),
                panel("GB on disk", "journal", ORANGE, on_disk.collect()),
            ],
            marks: trims.as_slice(),
        };
        chart.write(&stage.folder.join(PICTURE))
    }
}

fn observe(stage: &Stage, broker: &Broker) -> Fallible<Vec<Sample>> {
    let mut publishing = stage.publishing(broker, "grows", 100)?;
    let begun = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let until = stage.bytes(WRITTEN_BYTES);
    while samples.last().is_none_or(|last| last.bytes < until) {
        publishing.check()?;
        if begun.elapsed() > PATIENCE {
            return Err("it takes longer than half an hour".into());
        }
        let metrics = broker.metrics()?;
        let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
        samples.push(Sample {
            seconds: begun.elapsed().as_secs_f64(),
            records: of("falcon_publish_records_acked_total"),
            bytes: of("falcon_publish_bytes_acked_total"),
            trimmed: of("falcon_trimmed_records_total"),
            on_disk: of("falcon_journal_bytes"),
        });
        sleep(SAMPLE_EVERY.mul_f64(stage.scale.clamp(0.05, 1.0)));
    }
    Ok(samples)
}

fn trims_begin(samples: &[Sample]) -> Option<f64> {
    let first = samples.iter().find(|sample| sample.trimmed > 0.0);
    first.map(|sample| sample.seconds)
}

/// Records a second, until a time.
#[derive(Debug, Clone, Copy)]
struct Mean {
    until: f64,
    rate: f64,
}

/// Over whole windows of so much, which begin and end where they would between two samples.
fn means(samples: &[Sample], window: f64, of: fn(&Sample) -> f64) -> Vec<Mean> {
    let mut means = Vec::new();
    let Some(first) = samples.first() else {
        return means;
    };
    let (mut seconds, mut records) = (first.seconds, first.records);
    let mut end = of(first) + window;
    for pair in samples.windows(2) {
        let [earlier, later] = pair else { continue };
        while of(later) >= end {
            let share = (end - of(earlier)) / (of(later) - of(earlier));
            let at = |before: f64, after: f64| before + share * (after - before);
            let until = at(earlier.seconds, later.seconds);
            let by_then = at(earlier.records, later.records);
            means.push(Mean {
                until,
                rate: (by_then - records) / (until - seconds),
            });
            (seconds, records) = (until, by_then);
            end += window;
        }
    }
    means
}

fn rates(means: &[Mean]) -> Vec<f64> {
    means.iter().map(|mean| mean.rate).collect()
}

/// From the median, as a share of it.
fn furthest(rates: &[f64]) -> f64 {
    let middle = median(rates);
    let far = rates.iter().map(|rate| (rate - middle).abs() / middle);
    far.fold(0.0, f64::max)
}

/// The same of the device alone, in as many windows.
fn device_alone(stage: &Stage, windows: usize) -> Fallible<f64> {
    let measured = write::measure_all(&stage.folder, 1 << 20, stage.lap())?;
    let widest = write::widest(&measured).ok_or("no write was measured")?;
    let seconds = stage.bytes(WINDOW_BYTES) / widest.summary.mb_per_s / 1e6;
    let length = Duration::from_secs_f64(seconds);
    let mut rates = Vec::new();
    for _ in 0..windows {
        let written = write::measure(&stage.folder, widest.shape, length)?;
        rates.push(written.summary.mb_per_s);
    }
    Ok(furthest(&rates))
}

/// The furthest mean of as many windows in so many seconds, of two threads that do nothing but copy.
fn processors_alone(windows: usize, seconds: f64) -> Fallible<f64> {
    let mut rates = Vec::new();
    for _ in 0..windows {
        let length = Duration::from_secs_f64(seconds / windows as f64);
        rates.push(loopback::stream(256 << 10, length)?);
    }
    Ok(furthest(&rates))
}
