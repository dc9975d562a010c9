//! How long it takes to open a folder: after an orderly stop, after a kill, without its index.
//!
//! `cargo bench --bench recovery`. The folder has 256 MiB of 100 B records and its pages are in the page
//! cache; how a broker starts with 10 GB says row 13 of `cargo bench --bench rows`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking"
)]

#[path = "journal/mod.rs"]
mod journal;

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use falcon::io::RealDisk;
use journal::{Log, P};

/// What happened to a folder before it is opened.
#[derive(Clone, Copy)]
enum End {
    Clean,
    Killed,
    IndexDeleted,
}

fn fill(folder: &Path, bytes: u64, end: End) {
    let (mut log, _) = Log::open_default(folder);
    let batch = journal::batch(64 << 10);
    for _ in 0..bytes / (64 << 10) {
        log.append(&batch, std::iter::once(P));
    }
    match end {
        End::Clean => drop(log.close()),
        // Without a last word, as when the process is killed.
        End::Killed => drop(log),
        End::IndexDeleted => {
            log.close();
            RealDisk.remove_tree(&folder.join("index")).unwrap();
        }
    }
}

fn recovery(criterion: &mut Criterion) {
    let bytes = if journal::is_test() {
        1 << 20
    } else {
        256 << 20
    };
    let mut benches = criterion.benchmark_group("recovery");
    benches.sample_size(10);
    benches.measurement_time(Duration::from_secs(1));
    benches.warm_up_time(Duration::from_millis(1));
    benches.throughput(Throughput::Bytes(bytes));
    let ends = [
        ("clean", End::Clean),
        ("killed", End::Killed),
        ("index deleted", End::IndexDeleted),
    ];
    for (name, end) in ends {
        let folder = journal::folder();
        let (whole, copy) = (folder.path().join("whole"), folder.path().join("copy"));
        fill(&whole, bytes, end);
        benches.bench_function(name, |bencher| {
            // A start changes the folder, so each has a copy of its own.
            let prepare = || {
                RealDisk.remove_tree(&copy).unwrap();
                RealDisk.copy_tree(&whole, &copy).unwrap();
                rustix::fs::sync();
            };
            bencher.iter_batched(
                prepare,
                |()| Log::open_default(&copy),
                BatchSize::PerIteration,
            );
        });
    }
    benches.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
