//! What a record costs on its way through the protocol crate: build, check, read.
//!
//! `cargo bench --bench codec`, by records and by bytes. The denominator is the machine's own CRC-32 over
//! the same bytes, measured in the same run.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use falcon_protocol::{Batch, BatchBuilder, Codec, Producer, Record};

const BATCH_BYTES: usize = 256 * 1024;

fn fill(builder: &mut BatchBuilder, record: &Record) {
    while builder.push(record, 1_700_000_000_000).is_ok() {}
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for size in [100, 1024] {
        let record = Record::new(vec![b'x'; size]);
        let mut builder = BatchBuilder::new(Codec::None, BATCH_BYTES);
        fill(&mut builder, &record);
        let bytes = builder.build(Producer::default()).unwrap();
        let batch = Batch::from_bytes(bytes.clone()).unwrap();
        group.throughput(Throughput::ElementsAndBytes {
            elements: batch.records().unwrap().count() as u64,
            bytes: bytes.len() as u64,
        });
        group.bench_function(BenchmarkId::new("crc32", size), |bencher| {
            bencher.iter(|| crc32fast::hash(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("build", size), |bencher| {
            bencher.iter(|| {
                fill(&mut builder, &record);
                builder.build(Producer::default())
            });
        });
        group.bench_function(BenchmarkId::new("verify", size), |bencher| {
            bencher.iter(|| black_box(&batch).verify().unwrap());
        });
        group.bench_function(BenchmarkId::new("check_records", size), |bencher| {
            bencher.iter(|| black_box(&batch).check_records().unwrap());
        });
        group.bench_function(BenchmarkId::new("read_records", size), |bencher| {
            bencher.iter(|| black_box(&batch).records().unwrap().count());
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
