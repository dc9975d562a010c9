//! Row 14: throughput over time, while a log grows and is trimmed.

use std::thread::sleep;
use std::time::Duration;

use falcon::clock::Instant;

use crate::broker::Broker;
use crate::chart::{self, Curves};
use crate::limit::Bulk;
use crate::limits::Fallible;
use crate::limits::samples::median;
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::Stage;
use crate::page::PICTURE;

/// What is written in all, and what the topic keeps.
pub(crate) const WRITTEN_BYTES: f64 = 20e9;
const KEPT_BYTES: f64 = 10e9;
/// Over which a mean is taken.
const WINDOW_SECONDS: f64 = 10.0;
const PATIENCE: Duration = Duration::from_secs(1800);

/// What the broker had done by a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    records: f64,
    bytes: f64,
    on_disk: f64,
}

pub(crate) fn flatness(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let kept = stage.bytes(KEPT_BYTES);
    let create = format!("topic create grows --retention-bytes {kept:.0}");
    stage.falcon(broker, &create)?;
    let before = Bulk::measure(stage)?.megabytes();
    let samples = observe(stage, broker)?;
    let after = Bulk::measure(stage)?.megabytes();
    let window = WINDOW_SECONDS * stage.scale.min(1.0);
    let means = means(&samples, window);
    let middle = median(&means);
    let furthest = means.iter().map(|mean| (mean - middle).abs() / middle);
    let furthest = furthest.fold(0.0, f64::max);
    let picture = stage.folder.join(PICTURE);
    chart::draw(&curves(&samples), &picture)?;
    let last = samples.last().ok_or("nothing was sampled")?;
    let on_disk = samples.iter().map(|sample| sample.on_disk);
    let notes = vec![
        format!(
            "{} means of {window:.0} s around {}; {:.1} GB written in {:.0} s, at most {:.1} GB on disk",
            means.len(),
            Unit::RecordsPerSecond.show(middle),
            last.bytes / 1e9,
            last.seconds,
            on_disk.fold(0.0, f64::max) / 1e9,
        ),
        format!(
            "{} before: {before:.0} MB/s, after: {after:.0} MB/s",
            Bulk::IS
        ),
    ];
    let what = "100 B records until 20 GB are written, 10 GB kept: furthest mean from the median";
    let subject = Subject::new(14, what, Unit::Share, Goal::AtMost(0.1));
    Ok(vec![subject.line(vec![Round::alone(furthest)], notes)])
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
            on_disk: of("falcon_journal_bytes"),
        });
        sleep(Duration::from_secs_f64(stage.scale.clamp(0.05, 1.0)));
    }
    Ok(samples)
}

/// Records a second in whole windows, the first second left out.
fn means(samples: &[Sample], window: f64) -> Vec<f64> {
    let mut means = Vec::new();
    let mut rest = samples.iter().skip(2);
    let Some(mut from) = rest.next() else {
        return means;
    };
    for sample in rest {
        let seconds = sample.seconds - from.seconds;
        if seconds >= window {
            means.push((sample.records - from.records) / seconds);
            from = sample;
        }
    }
    means
}

fn curves(samples: &[Sample]) -> Curves {
    let rate = |pair: &[Sample]| {
        let [earlier, later] = pair else { return None };
        let seconds = later.seconds - earlier.seconds;
        Some((
            later.seconds,
            (later.records - earlier.records) / seconds / 1e6,
        ))
    };
    Curves {
        millions_per_second: samples.windows(2).filter_map(rate).collect(),
        gigabytes_on_disk: samples
            .iter()
            .map(|sample| (sample.seconds, sample.on_disk / 1e9))
            .collect(),
    }
}
