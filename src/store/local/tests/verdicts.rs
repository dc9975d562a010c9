//! What an older mark of the last sync, a lost end and a stale marker make of a journal.

use super::model::settle;
use super::*;
use crate::store::{CommitError, Damage, Purpose};

fn damage(partition: PartitionId, from: u64, to: u64) -> Damage {
    Damage {
        partition,
        range: Offset(from)..Offset(to),
    }
}

fn file_bytes(bench: &Bench, path: &Path) -> Vec<u8> {
    let file = bench.disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn killed(bench: &Bench) -> Bench {
    let config = LocalConfig {
        index_dir: None,
        ..bench.config.clone()
    };
    Bench::on(bench.disk.killed(), config)
}

#[test]
fn rot_right_behind_an_older_mark_is_named_and_its_offsets_stay_taken() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    append(&store, P, 0, &[b"one", b"two"]);
    let path = bench.config.data_dir.join("SYNCED");
    let older = file_bytes(&bench, &path);
    append(&store, P, 2, &[b"hit", b"too"]);
    append(&store, Q, 0, &[b"another"]);
    append(&store, Q, 1, &[b"partition"]);
    let bench = killed(&bench);
    bench.disk.open(&path).unwrap().write_at(0, &older).unwrap();
    let at = bench.find(&bench.segment_path(1), b"hit").unwrap();
    assert!(bench.disk.flip_bit(&bench.segment_path(1), at, 0));
    let (store, report, tables) = bench.open();
    assert_eq!(tables.ends.get(&P), Some(&4), "{report:?}");
    assert_eq!(report.damage, vec![damage(P, 2, 4)]);
    assert!(values(&store, P, 2, 4).is_err());
}

#[test]
fn what_follows_a_lost_segment_is_durable_without_a_mark_too() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    append(&store, P, 0, &[b"one"]);
    store.commit_snapshot(Vec::new()).unwrap();
    append(&store, P, 1, &[b"in the second segment"]);
    // Only after a clean stop is the end known without the segment, and a start possible.
    store.close(Vec::new()).unwrap();
    let bench = killed(&bench);
    drop(store);
    bench.disk.remove(&bench.segment_path(2)).unwrap();
    let (store, report, _) = bench.open();
    assert_eq!(report.missing_segments, vec![2]);
    append(&store, P, 2, &[b"acknowledged"]);
    settle(&store);
    drop(store);
    let bench = killed(&bench);
    bench
        .disk
        .remove(&bench.config.data_dir.join("SYNCED"))
        .unwrap();
    let (store, report, tables) = bench.open();
    assert_eq!(report.torn_tail, None, "{report:?}");
    assert_eq!(report.rows_damaged, 0, "{report:?}");
    assert_eq!(tables.ends.get(&P), Some(&3));
    assert_eq!(values(&store, P, 2, 3).unwrap().len(), 1);
}

#[test]
fn what_a_start_made_of_a_mark_outlives_a_power_cut() {
    for seed in 0..20 {
        let bench = Bench::new();
        let (store, ..) = bench.open();
        append(&store, P, 0, &[b"one"]);
        append(&store, P, 1, &[b"whole"]);
        let group = CommitGroup {
            batches: vec![
                stamped(P, 2, batch(&[b"kept"], 1000)),
                stamped(Q, 0, batch(&[b"hit"], 1000)),
            ],
            rows: Vec::new(),
        };
        let seq = store.commit(group).unwrap();
        store.durable(seq).unwrap();
        let mut bench = Bench::on(
            bench.disk.clone(),
            LocalConfig {
                index_dir: None,
                ..bench.config.clone()
            },
        );
        drop(store);
        let at = bench.find(&bench.segment_path(1), b"hit").unwrap();
        assert!(bench.disk.flip_bit(&bench.segment_path(1), at, 0));
        for life in 0..2 {
            let (store, report, tables) = bench.open();
            assert_eq!(report.torn_tail, None, "seed {seed}, life {life}");
            assert_eq!(tables.ends.get(&P), Some(&3));
            assert_eq!(values(&store, P, 2, 3).unwrap().len(), 1);
            assert_eq!(report.damage, vec![damage(Q, 0, 1)]);
            drop(store);
            bench.crash(seed);
        }
    }
}

#[test]
fn a_full_device_with_no_segment_to_go_on_in_refuses_before_anything_is_decided() {
    let mut bench = Bench::new();
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    append(&store, P, 0, &[&[b'a'; 5000]]);
    append(&store, P, 1, &[&[b'z'; 100]]);
    drop(store);
    let bench = killed(&bench);
    let path = bench.segment_path(1);
    // The block that the last group ends in.
    let last = bench.find(&path, &[b'z'; 100]).unwrap() & !4095;
    assert!(bench.disk.make_unreadable(&path, last..last + 4096));
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![damage(P, 0, 2)]);
    settle(&store);
    bench.disk.set_capacity_bytes(Some(bench.disk.used_bytes()));
    bench.disk.set_free_bytes(0);
    let group = || CommitGroup {
        batches: Vec::new(),
        rows: vec![put(Table::Offsets, "key", "value")],
    };
    for purpose in [Purpose::Freeing, Purpose::Rows] {
        let checked = store.check_room(purpose, 100);
        assert!(
            matches!(checked, Err(CommitError::Full { .. })),
            "{checked:?}"
        );
    }
    bench.disk.set_capacity_bytes(None);
    bench.disk.set_free_bytes(1 << 30);
    store.check_room(Purpose::Freeing, 100).unwrap();
    let seq = store.commit(group()).unwrap();
    store.durable(seq).unwrap();
}

#[test]
fn a_clean_stop_marker_that_came_back_hides_nothing() {
    for seed in 0..20 {
        let mut bench = Bench::new();
        bench.config.index_dir = None;
        let (store, ..) = bench.open();
        append(&store, P, 0, &[b"one"]);
        store.close(Vec::new()).unwrap();
        drop(store);
        let path = bench.config.data_dir.join("CLEAN");
        let marker = file_bytes(&bench, &path);
        let (store, ..) = bench.open();
        append(&store, P, 1, &[b"acknowledged"]);
        drop(store);
        bench.crash(seed);
        let file = bench.disk.create(&path).unwrap();
        file.write_at(0, &marker).unwrap();
        let (store, report, _) = bench.open();
        assert!(!report.was_clean);
        assert_eq!(values(&store, P, 0, 2).unwrap().len(), 2);
        append(&store, P, 2, &[b"after"]);
        assert_eq!(values(&store, P, 0, 3).unwrap().len(), 3);
    }
}
