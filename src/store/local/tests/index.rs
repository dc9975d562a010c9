//! Indexes that cannot be used: a start builds them again from the journal and says why.

use std::path::Path;

use super::*;
use crate::store::local::IndexReport;

const RECORDS: u64 = 40;

/// A closed store with several sealed segments, and its folder of the index.
fn closed() -> (Bench, PathBuf) {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let index = bench.config.index_dir.clone().unwrap();
    let (store, ..) = bench.open();
    for base in 0..RECORDS {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        append(&store, P, base, &[&[b'v'; 700]]);
    }
    store.close(Vec::new()).unwrap();
    (bench, index)
}

/// Opens it, reads everything; why the index was built again.
fn rebuilt(bench: &Bench) -> String {
    let (store, report, _) = bench.open();
    assert!(report.was_clean);
    assert_eq!(report.damage, vec![]);
    let mut offset = 0;
    while offset < RECORDS {
        offset = values(&store, P, offset, 60).unwrap().last().unwrap().0 + 1;
    }
    let metrics = &store.shared.config.metrics.process;
    assert_eq!(
        metrics.recovery_segments_read.value(),
        metrics.recovery_segments.value(),
        "progress ends where it should"
    );
    let became = index_report(&store);
    store.close(Vec::new()).unwrap();
    let IndexReport::Rebuilt { reason } = became else {
        panic!("the index was {became:?}");
    };
    reason
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_index_cut_short_or_full_of_rubbish_is_built_again() {
    let (bench, index) = closed();
    let db = index.join("db");
    let whole = std::fs::read(&db).unwrap();
    for kept in [0, 1, whole.len() / 3, whole.len() / 2] {
        write(&db, &whole[..kept]);
        rebuilt(&bench);
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..8 {
        let mut bytes = std::fs::read(&db).unwrap();
        let from = random.usize(..bytes.len().min(4096));
        bytes[from..].fill_with(|| random.u8(..));
        write(&db, &bytes);
        rebuilt(&bench);
    }
}

#[test]
fn an_index_of_a_newer_sled_is_built_again() {
    let (bench, index) = closed();
    let conf = index.join("conf");
    let text = std::fs::read(&conf).unwrap();
    let (text, _) = text.split_at(text.len() - 4);
    let newer = String::from_utf8_lossy(text).replace("version: 0.34", "version: 9.1");
    assert_ne!(newer.as_bytes(), text);
    let crc = crc32fast::hash(newer.as_bytes()).to_le_bytes();
    write(&conf, &[newer.as_bytes(), &crc].concat());
    let reason = rebuilt(&bench);
    assert!(reason.contains("9.1"), "{reason}");
}

#[test]
fn a_file_in_the_place_of_the_index_is_replaced() {
    let (bench, index) = closed();
    std::fs::remove_dir_all(&index).unwrap();
    write(&index, b"no folder");
    rebuilt(&bench);
    assert!(index.is_dir());
}

/// Every sealed segment's extents are in sled.
fn is_indexed(store: &LocalStore) -> bool {
    let infos = store.shared.segments.infos();
    infos.len() > 2 && infos.values().all(|info| info.is_active || info.is_indexed)
}

#[test]
fn a_stop_does_not_wait_for_the_index_and_the_next_start_goes_on_with_it() {
    let (bench, _) = closed();
    for round in 0..6 {
        let (store, report, _) = bench.open();
        assert_eq!(report.damage, vec![]);
        if round == 0 {
            // Killed: the index is thrown away.
            drop(store);
            continue;
        }
        assert_eq!(values(&store, P, 0, RECORDS).unwrap()[0].0, 0);
        let became = index_report(&store);
        match round {
            1 => assert!(matches!(became, IndexReport::Rebuilt { .. }), "{became:?}"),
            _ => assert_eq!(became, IndexReport::Trusted),
        }
        store.close(Vec::new()).unwrap();
    }
    let (store, ..) = bench.open();
    for _ in 0..2_000 {
        if is_indexed(&store) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(is_indexed(&store));
    let mut offset = 0;
    while offset < RECORDS {
        offset = values(&store, P, offset, RECORDS)
            .unwrap()
            .last()
            .unwrap()
            .0
            + 1;
    }
}
