//! Indexes that cannot be used: a start builds them again from the journal and says why.

use std::path::Path;

use super::*;
use crate::store::local::index::Page;
use crate::store::local::journal::segment::Seal;
use crate::store::local::{IndexReport, IndexVerdict, Inspection};

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
    wait_until(|| is_indexed(&store));
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

#[test]
fn an_index_of_the_format_before_is_thrown_away_and_none_before_trusts_this_one() {
    let (bench, index) = closed();
    {
        let db = sled::open(&index).unwrap();
        let meta = db.open_tree("meta").unwrap();
        // What a broker of format 1 looks for, under which it would find no extents.
        assert_eq!(meta.get("token").unwrap(), None);
        let token = meta.remove("token of format 2").unwrap().unwrap();
        meta.insert("token", token).unwrap();
        db.drop_tree("pages").unwrap();
        db.open_tree("extents")
            .unwrap()
            .insert("row", "of format 1")
            .unwrap();
        db.flush().unwrap();
    }
    let inspection = inspected(&bench);
    let scratch = bench
        .config
        .index_dir
        .as_ref()
        .unwrap()
        .with_extension("scratch");
    assert_eq!(inspection.check_index(&scratch), IndexVerdict::Unused);
    drop(inspection);
    let reason = rebuilt(&bench);
    assert!(reason.contains("format"), "{reason}");
    let db = sled::open(&index).unwrap();
    assert!(!db.tree_names().iter().any(|name| name == b"extents"));
}

fn inspected(bench: &Bench) -> Inspection {
    let disk = Arc::new(bench.disk.clone());
    let mut tables = Tables::default();
    Inspection::open(bench.config.clone(), disk, Arc::new(|_| {}), &mut tables).unwrap()
}

/// The first segment and its seal, once every sealed segment is in sled.
fn first_seal(store: &LocalStore) -> Seal {
    wait_until(|| is_indexed(store));
    let infos = store.shared.segments.infos();
    infos.values().find_map(|info| info.seal).unwrap()
}

/// Reads one record after the other.
fn read_all(store: &LocalStore) {
    for offset in 0..RECORDS {
        let found = values(store, P, offset, offset + 1).unwrap();
        assert_eq!(found.len(), 1, "{offset}");
    }
    assert_eq!(store.damage(), vec![]);
}

#[test]
fn a_footer_that_rots_under_a_running_broker_costs_no_record_and_is_written_again() {
    let (bench, _) = closed();
    let (store, ..) = bench.open();
    let seal = first_seal(&store);
    let path = bench.segment_path(seal.segment);
    let summary_bytes = u64::from(seal.summary_bytes);
    let rows = seal.footer_bytes - summary_bytes;
    assert!(rows > 0);
    for at in (0..rows).step_by(11) {
        let whole = footer(&bench, &path, &seal);
        bench
            .disk
            .flip_bit(&path, seal.footer_position + summary_bytes + at, 3);
        assert_ne!(footer(&bench, &path, &seal), whole);
        // Each store has a cache of its own, in which a page that was read before would be found.
        store.shared.index.forget_pages();
        read_all(&store);
        wait_until(|| is_indexed(&store) && footer(&bench, &path, &seal) == whole);
        read_all(&store);
    }
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![]);
    assert_eq!(index_report(&store), IndexReport::Trusted);
    read_all(&store);
}

#[test]
fn rows_of_sled_that_do_not_fit_to_a_footer_cost_no_record_and_are_made_again() {
    let (bench, _) = closed();
    let (store, ..) = bench.open();
    first_seal(&store);
    let rows = || -> Vec<(PartitionId, Page)> {
        let tree = store.shared.index.tree().unwrap();
        let rows = tree.pages().map(|row| row.unwrap());
        rows.map(|(partition, page)| (partition, page.unwrap()))
            .collect()
    };
    let right = rows();
    let (partition, page) = *right.first().unwrap();
    let wrong = [
        Page {
            rows_crc: !page.rows_crc,
            ..page
        },
        Page {
            row: page.row + 1,
            ..page
        },
        Page {
            rows: page.rows - 1,
            ..page
        },
    ];
    for wrong in wrong {
        let tree = store.shared.index.tree().unwrap();
        tree.insert(&[(partition, wrong)]).unwrap();
        assert_ne!(rows(), right);
        read_all(&store);
        wait_until(|| is_indexed(&store) && rows() == right);
    }
}

fn footer(bench: &Bench, path: &Path, seal: &Seal) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(seal.footer_bytes).unwrap()];
    let file = bench.disk.open(path).unwrap();
    file.read_at(seal.footer_position, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_segment_that_rolls_early_is_cut_and_becomes_a_whole_spare() {
    let mut bench = Bench::new();
    bench.config.segment_bytes = 256 << 10;
    bench.config.first_segment_bytes = 256 << 10;
    bench.config.segment_extents_max = 200;
    bench.config.spare_segments = 1;
    let (store, ..) = bench.open();
    let fill = |store: &LocalStore, from: u64| {
        for base in from..from + 300 {
            if store.wants_snapshot() {
                store.commit_snapshot(Vec::new()).unwrap();
            }
            append(store, P, base, &[&[b'v'; 400]]);
        }
    };
    fill(&store, 0);
    wait_until(|| {
        store
            .shared
            .segments
            .infos()
            .values()
            .any(|info| info.is_indexed)
    });
    let cut: Vec<_> = {
        let infos = store.shared.segments.infos();
        let sealed = infos.iter().filter(|(_, info)| info.seal.is_some());
        sealed
            .map(|(segment, info)| (*segment, info.file_bytes))
            .collect()
    };
    for (segment, file_bytes) in &cut {
        let path = bench.segment_path(*segment);
        let bytes = bench.disk.open(&path).unwrap().len_bytes().unwrap();
        assert_eq!(bytes, *file_bytes);
        assert!(bytes < 200 << 10, "{bytes}");
    }
    assert!(!cut.is_empty());
    drop(store);
    // As a start finds it, and as one that has no index does.
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![]);
    for offset in [0, 199, 299] {
        assert_eq!(values(&store, P, offset, offset + 1).unwrap().len(), 1);
    }
    while let Some(spare) = store.shared.signal.take_spare() {
        bench.disk.remove(&spare).unwrap();
    }
    index_report(&store);
    store.trim(P, Some(Offset(250)));
    let reclaimed = || store.shared.config.metrics.reads.segments_reclaimed.value();
    wait_until(|| {
        store.shared.signal.wake();
        reclaimed() > 0 && store.shared.signal.spares() > 0
    });
    let spare = store.shared.signal.take_spare().unwrap();
    let bytes = bench.disk.open(&spare).unwrap().len_bytes().unwrap();
    assert_eq!(bytes, bench.config.segment_bytes);
}

/// sled blocks where its file `conf` is a pipe that nobody writes.
#[cfg(target_os = "linux")]
#[test]
fn a_stop_does_not_wait_for_a_sled_that_hangs() {
    let (mut bench, index) = closed();
    bench.config.index_open_timeout = std::time::Duration::from_secs(3600);
    let conf = index.join("conf");
    std::fs::remove_file(&conf).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&conf).status();
    assert!(made.unwrap().success());
    let (store, ..) = bench.open();
    read_all(&store);
    assert_eq!(store.shared.index.report(), None);
    store.close(Vec::new()).unwrap();
    drop(store);
    // Its thread goes on and ends.
    write(&conf, &[]);
}
