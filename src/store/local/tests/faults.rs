//! Devices that fail or fill up.

use super::*;
use crate::io::SimFault;
use crate::store::local::IndexReport;
use crate::store::{CommitError, Purpose};

fn group(base: u64) -> CommitGroup {
    CommitGroup {
        batches: vec![stamped(P, base, batch(&[b"value"], 1000))],
        rows: Vec::new(),
    }
}

/// A store whose keeper has nothing to do, so that writes and syncs are the test's.
fn quiet(bench: &mut Bench) -> Arc<LocalStore> {
    bench.config.spare_segments = 0;
    bench.open().0
}

#[test]
fn a_failed_sync_is_final() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    append(&store, P, 0, &[b"kept"]);
    let seq = store.commit(group(1)).unwrap();
    bench.disk.fail_sync(1, SimFault::Device);
    assert!(matches!(store.durable(seq), Err(CommitError::Failed(_))));
    let counts = (bench.disk.syncs(), bench.disk.writes());
    assert!(matches!(store.durable(seq), Err(CommitError::Stopped)));
    assert!(matches!(store.commit(group(2)), Err(CommitError::Stopped)));
    assert!(!store.wants_snapshot());
    assert!(matches!(
        store.commit_snapshot(Vec::new()),
        Err(CommitError::Stopped)
    ));
    assert_eq!(values(&store, P, 0, 1).unwrap().len(), 1);
    assert!(matches!(store.close(Vec::new()), Err(CommitError::Stopped)));
    assert_eq!((bench.disk.syncs(), bench.disk.writes()), counts);
    drop(store);
    let (_, report, tables) = bench.open();
    assert!(!report.was_clean);
    assert!(tables.ends.get(&P).is_some_and(|end| *end >= 1));
}

#[test]
fn a_failed_write_is_final() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    append(&store, P, 0, &[b"kept"]);
    bench.disk.fail_write(1, SimFault::Full);
    let seq = store.commit(group(1)).unwrap();
    let behind = store.commit(group(2)).unwrap();
    assert!(matches!(store.durable(seq), Err(CommitError::Failed(_))));
    let counts = (bench.disk.syncs(), bench.disk.writes());
    assert!(matches!(store.durable(behind), Err(CommitError::Stopped)));
    assert!(matches!(store.commit(group(1)), Err(CommitError::Stopped)));
    assert_eq!((bench.disk.syncs(), bench.disk.writes()), counts);
    drop(store);
    let (store, report, tables) = bench.open();
    assert_eq!(tables.ends.get(&P), Some(&1));
    assert_eq!(report.damage, vec![]);
    append(&store, P, 1, &[b"again"]);
}

#[test]
fn a_full_device_refuses_batches_and_takes_them_again_when_space_returns() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    bench.disk.set_free_bytes((1 << 20) - 1);
    let writes = bench.disk.writes();
    assert!(matches!(
        store.check_room(Purpose::Batches, 100),
        Err(CommitError::Full { .. })
    ));
    assert_eq!(bench.disk.writes(), writes);
    store.check_room(Purpose::Rows, 100).unwrap();
    // The rows that trim a log still go in: that is how space returns.
    let rows = CommitGroup {
        rows: vec![put(Table::Partitions, "log start", "9")],
        batches: Vec::new(),
    };
    let seq = store.commit(rows).unwrap();
    store.durable(seq).unwrap();
    bench.disk.set_free_bytes(1 << 30);
    append(&store, P, 0, &[b"value"]);
    bench.disk.set_free_bytes(0);
    store.close(Vec::new()).unwrap();
    drop(store);
    let (_, report, _) = bench.open();
    assert!(report.was_clean);
}

#[test]
fn a_sync_of_a_device_that_became_read_only_is_no_success() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    append(&store, P, 0, &[b"kept"]);
    let seq = store.commit(group(1)).unwrap();
    bench.disk.set_read_only(true);
    assert!(matches!(store.durable(seq), Err(CommitError::Failed(_))));
    assert!(matches!(store.commit(group(2)), Err(CommitError::Stopped)));
    assert_eq!(values(&store, P, 0, 1).unwrap().len(), 1);
    bench.disk.set_read_only(false);
    drop(store);
    let (_, _, tables) = bench.open();
    assert!(tables.ends.get(&P).is_some_and(|end| *end >= 1));
}

#[test]
fn a_full_device_ends_neither_a_stop_nor_a_start() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    for base in 0..20 {
        append(&store, P, base, &[&[b'v'; 700]]);
    }
    bench.disk.set_capacity_bytes(Some(bench.disk.used_bytes()));
    store.close(Vec::new()).unwrap();
    drop(store);
    for _ in 0..3 {
        let (store, report, _) = bench.open();
        assert_eq!(report.damage, vec![]);
        assert_eq!(values(&store, P, 0, 20).unwrap().len(), 20);
        store.close(Vec::new()).unwrap();
        drop(store);
    }
}

#[test]
fn an_index_that_fails_is_replaced_from_the_journal_while_the_broker_runs() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let store = quiet(&mut bench);
    for base in 0..60 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        append(&store, P, base, &[&[b'v'; 700]]);
    }
    let is_indexed = |store: &LocalStore| {
        let infos = store.shared.segments.infos();
        infos.len() > 2 && infos.values().all(|info| info.is_active || info.is_indexed)
    };
    wait_until(|| is_indexed(&store));
    assert!(store.shared.index.find_in_memory(P, Offset(0)).is_none());
    store.shared.index.suspect();
    store.shared.signal.wake();
    wait_until(|| store.shared.index.tree().is_none());
    let mut offset = 0;
    while offset < 60 {
        offset = values(&store, P, offset, 60).unwrap().last().unwrap().0 + 1;
    }
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, ..) = bench.open();
    assert!(matches!(index_report(&store), IndexReport::Rebuilt { .. }));
    assert_eq!(values(&store, P, 0, 1).unwrap().len(), 1);
}

#[test]
fn a_footer_that_cannot_be_read_is_an_error_at_once() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    bench.config.index_dir = None;
    let (store, ..) = bench.open();
    for base in 0..60 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
        }
        append(&store, P, base, &[&[b'v'; 700]]);
    }
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, ..) = bench.open();
    wait_until(|| store.shared.index.report().is_some());
    let (seal, end) = {
        let infos = store.shared.segments.infos();
        let (_, first) = infos.first_key_value().unwrap();
        assert!(first.is_by_footer);
        (first.seal.unwrap(), first.shares[0].1.end.0)
    };
    let footer = seal.footer_position..seal.footer_position + seal.footer_bytes;
    let path = bench.segment_path(seal.segment);
    assert!(bench.disk.make_unreadable(&path, footer));
    // There is no sled whose content could come back: nothing to wait for.
    let (tell, told) = std::sync::mpsc::channel();
    let reading = Arc::clone(&store);
    let reader = std::thread::Builder::new().spawn(move || {
        for offset in 0..end.min(8) {
            let refused = values(&reading, P, offset, end).unwrap_err();
            assert!(matches!(refused, ReadError::Index(_)), "{refused}");
        }
        tell.send(()).unwrap();
    });
    let deadline = std::time::Duration::from_secs(30);
    told.recv_timeout(deadline).expect("no read waits for sled");
    reader.unwrap().join().unwrap();
    assert!(!values(&store, P, end, 60).unwrap().is_empty());
    bench.disk.make_readable();
    assert!(!values(&store, P, 0, end).unwrap().is_empty());
}

#[test]
fn a_second_broker_is_refused_and_a_foreign_folder_is_left_alone() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    let error = bench.try_open(&mut Tables::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains("another broker uses the folder"));
    assert_eq!(store.epoch(), 1);
    drop(store);
    assert_eq!(bench.open().0.epoch(), 2);

    let foreign = Bench::new();
    foreign.disk.create_dir_all(Path::new("/data")).unwrap();
    foreign.disk.create(Path::new("/data/thesis.tex")).unwrap();
    let error = foreign.try_open(&mut Tables::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotFalcon { .. }));
    assert_eq!(foreign.disk.paths(), [Path::new("/data/thesis.tex")]);
}

#[test]
fn one_damaged_slot_of_identity_does_not_stop_a_start() {
    let bench = Bench::new();
    drop(bench.open());
    let path = Path::new("/data/IDENTITY");
    assert!(bench.disk.flip_bit(path, 20, 1));
    assert_eq!(bench.open().0.epoch(), 2);
    assert!(bench.disk.flip_bit(path, 20, 1));
    assert!(bench.disk.flip_bit(path, 532, 1));
    assert!(matches!(
        bench.try_open(&mut Tables::default()),
        Err(OpenError::IdentityDamaged { .. })
    ));
}

#[test]
fn groups_without_a_roll_let_the_segment_grow() {
    let mut bench = Bench::new();
    let store = quiet(&mut bench);
    for base in 0..40 {
        append(&store, P, base, &[&[b'v'; 1000]]);
    }
    assert!(store.wants_snapshot());
    drop(store);
    let (store, _, _) = bench.open();
    assert_eq!(values(&store, P, 0, 40).unwrap().len(), 40);
}

#[test]
fn an_answer_has_at_least_one_batch_and_otherwise_keeps_to_its_size() {
    for cache_bytes in [0, 1 << 20] {
        let mut bench = Bench::new();
        bench.config.cache_bytes = cache_bytes;
        let store = quiet(&mut bench);
        let batches = (0..8).map(|base| stamped(P, base, batch(&[&[b'v'; 400]], 1)));
        let group = CommitGroup {
            batches: batches.collect(),
            rows: Vec::new(),
        };
        let seq = store.commit(group).unwrap();
        store.durable(seq).unwrap();
        let bytes = |offset, end, max| -> usize {
            let read = store.read(P, Offset(offset), Offset(end), max).unwrap();
            read.iter().map(Bytes::len).sum()
        };
        let one = bytes(0, 8, 1);
        assert!(one > 400 && one < 600);
        assert_eq!(bytes(3, 8, one * 2), one * 2);
        assert_eq!(bytes(3, 8, one * 3 - 1), one * 2);
        assert_eq!(bytes(6, 8, 1 << 20), one * 2);
        assert_eq!(bytes(0, 3, 1 << 20), one * 3);
        assert!(matches!(
            store.read(P, Offset(8), Offset(9), 1),
            Err(ReadError::Missing { .. })
        ));
    }
}

#[test]
fn the_real_disk_with_production_sizes_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        spare_segments: 0,
        ..LocalConfig::new(dir.path().join("data"))
    };
    let disk: Arc<dyn Disk> = Arc::new(crate::io::RealDisk);
    for life in 0..3 {
        let mut tables = Tables::default();
        let (store, report) =
            LocalStore::open(config.clone(), Arc::clone(&disk), &mut tables).unwrap();
        assert_eq!(report.was_clean, life < 2);
        let base = life * 50;
        assert_eq!(values(&store, P, 0, base).unwrap().len() as u64, base);
        for offset in base..base + 50 {
            append(&store, P, offset, &[&[1; 3000]]);
        }
        if life == 0 {
            store.close(Vec::new()).unwrap();
        }
    }
}
