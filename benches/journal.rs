//! What it costs to make records durable, and to find them again.
//!
//! `cargo bench --bench journal`, on the device of `target/tmp`. What the device itself can do in the same
//! shape says `cargo bench --bench speed_of_light`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking"
)]

#[path = "journal/mod.rs"]
mod journal;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use falcon::store::local::LocalConfig;
use falcon::store::{Extent, Store};
use falcon_protocol::{Offset, PartitionId};
use journal::{Log, P};

/// Commit and durable, one group after the other.
fn append(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("journal/append");
    benches.sample_size(20);
    benches.measurement_time(Duration::from_secs(3));
    for kib in [4, 64, 1024] {
        let folder = journal::folder();
        let (mut log, _) = Log::open_default(folder.path());
        let batch = journal::batch(kib << 10);
        let records = batch.header().end_offset().0;
        benches.throughput(Throughput::ElementsAndBytes {
            elements: records,
            bytes: batch.bytes().len() as u64,
        });
        let kept = (256 << 20) / (kib as u64 * 1024) * records;
        benches.bench_function(
            BenchmarkId::from_parameter(format!("{kib} KiB")),
            |bencher| {
                bencher.iter(|| {
                    log.append(&batch, std::iter::once(P));
                    // The device must not fill up meanwhile.
                    log.keep(kept);
                });
            },
        );
    }
    benches.finish();
}

/// One group with many extents: what each partition more costs, its place in the index included.
fn insert(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("journal/insert");
    benches.sample_size(20);
    for partitions in [1, 1000, 10_000] {
        let folder = journal::folder();
        let (mut log, _) = Log::open_default(folder.path());
        let batch = journal::batch(256);
        let records = batch.header().end_offset().0;
        benches.throughput(Throughput::Elements(u64::from(partitions)));
        let id = BenchmarkId::new("partitions", partitions);
        benches.bench_function(id, |bencher| {
            bencher.iter(|| {
                let all = (0..partitions).map(|number| PartitionId::new(1, number));
                log.append(&batch, all);
                log.keep(8 * records);
            });
        });
    }
    benches.finish();
}

/// Finds the extent with an offset: in memory, where the newest are, and in sled.
fn find(criterion: &mut Criterion) {
    let folder = journal::folder();
    let small = || LocalConfig {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        extent_bytes: 1 << 10,
        ..LocalConfig::new(folder.path())
    };
    let batch = journal::batch(1 << 10);
    let (mut log, _) = Log::open(small());
    let segments = if journal::is_test() { 2 } else { 64 };
    for _ in 0..segments * 1024 / 128 {
        let many = std::iter::repeat_n(P, 128);
        log.append(&batch, many);
    }
    let end = log.end(P);
    // What was sealed before the start is in sled alone.
    let (mut log, _) = Log::open_again(small(), log.close());
    log.append(&batch, std::iter::repeat_n(P, 128));
    let mut benches = criterion.benchmark_group("journal/find");
    for (name, from, to) in [("memory", end, log.end(P)), ("sled", 0, end / 2)] {
        let mut offsets = (from..to).step_by(7).cycle();
        benches.bench_function(name, |bencher| {
            bencher.iter(|| {
                let offset = Offset(offsets.next().unwrap());
                let mut found: Option<Extent> = None;
                let mut first = |extent| {
                    found = Some(extent);
                    ControlFlow::Break(())
                };
                log.store.extents(P, offset, &mut first).unwrap();
                assert!(black_box(found).is_some());
            });
        });
    }
    benches.finish();
}

criterion_group!(benches, append, insert, find);
criterion_main!(benches);
