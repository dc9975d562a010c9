//! Flipped bits, lost files, a broken index: named exactly, and nothing else is lost.

use super::*;
use crate::store::local::{IndexReport, OpenError};
use crate::store::{Damage, Lookup};

fn damage(partition: PartitionId, from: u64, to: u64) -> Damage {
    Damage {
        partition,
        range: Offset(from)..Offset(to),
    }
}

/// Five groups over two partitions: four records, one record and a row each.
fn fill(store: &LocalStore) {
    for group in 0..5_u64 {
        let one = format!("value-{}-a", group * 2);
        let two = format!("value-{}-b", group * 2);
        let other = format!("other-{group}");
        let seq = store
            .commit(CommitGroup {
                batches: vec![
                    stamped(P, group * 4, batch(&[one.as_bytes(), b"x"], 1000)),
                    stamped(Q, group, batch(&[other.as_bytes()], 1000)),
                    stamped(P, group * 4 + 2, batch(&[two.as_bytes(), b"y"], 1000)),
                ],
                rows: vec![put(Table::Offsets, &format!("key-{group}"), "v")],
            })
            .unwrap();
        store.durable(seq).unwrap();
    }
}

fn flip(bench: &Bench, needle: &[u8]) {
    let path = bench.segment_path(1);
    let at = bench.find(&path, needle).unwrap();
    assert!(bench.disk.flip_bit(&path, at, 3));
}

#[test]
fn a_flipped_bit_after_a_power_cut_costs_the_batch_it_hit() {
    let mut bench = Bench::new();
    let (store, ..) = bench.open();
    fill(&store);
    drop(store);
    bench.crash(1);
    flip(&bench, b"value-4-b");
    for end in [20, 21] {
        let (store, report, tables) = bench.open();
        assert_eq!(report.damage, vec![damage(P, 10, 12)]);
        assert_eq!(report.torn_tail, None);
        assert_eq!(store.damage(), vec![damage(P, 10, 12)]);
        assert_eq!(tables.rows.len(), 5);
        assert_eq!(tables.ends.get(&P), Some(&end));
        assert_eq!(values(&store, P, 0, 20).unwrap().len(), 10);
        assert_eq!(values(&store, P, 12, 20).unwrap().len(), 8);
        assert_eq!(values(&store, Q, 0, 5).unwrap().len(), 5);
        let error = values(&store, P, 11, 20).unwrap_err();
        assert!(matches!(error, ReadError::Damaged(d) if d == damage(P, 10, 12)));
        // What is appended behind the rot does not change the verdict.
        append(&store, P, end, &[b"after"]);
        assert_eq!(values(&store, P, end, end + 1).unwrap().len(), 1);
    }
}

#[test]
fn a_flipped_bit_after_a_clean_stop_costs_the_batch_it_hit() {
    let bench = Bench::new();
    let (store, _, mut tables) = bench.open();
    fill(&store);
    for group in 0..5 {
        tables.row(
            Table::Offsets,
            format!("key-{group}").as_bytes(),
            Some(b"v"),
        );
    }
    store.close(tables.snapshot()).unwrap();
    drop(store);
    flip(&bench, b"value-4-b");
    let (store, report, tables) = bench.open();
    assert!(report.was_clean);
    assert_eq!(report.damage, vec![damage(P, 10, 12)]);
    assert_eq!(tables.rows.len(), 5);
    assert_eq!(values(&store, Q, 0, 5).unwrap().len(), 5);
    append(&store, P, 20, &[b"after"]);
    assert_eq!(values(&store, P, 12, 21).unwrap().len(), 9);
}

#[test]
fn a_flipped_bit_in_the_header_of_a_group_costs_nothing() {
    let mut bench = Bench::new();
    let (store, ..) = bench.open();
    fill(&store);
    drop(store);
    bench.crash(1);
    let path = bench.segment_path(1);
    // The second group of batches begins behind the first one's row.
    let row = bench.find(&path, b"key-0").unwrap();
    let group = (row + 6).next_multiple_of(8);
    assert!(bench.disk.flip_bit(&path, group + 12, 0));
    let (store, report, tables) = bench.open();
    assert_eq!(report.damage, vec![]);
    assert_eq!(report.rows_damaged, 1);
    assert_eq!(tables.rows.len(), 5);
    assert_eq!(values(&store, P, 0, 20).unwrap().len(), 20);
}

#[test]
fn rot_in_the_last_group_is_told_from_a_torn_tail_after_an_idle_moment() {
    for is_marked in [false, true] {
        let bench = Bench::new();
        let (store, ..) = bench.open();
        fill(&store);
        for _ in 0..if is_marked { 3 } else { 1 } {
            store.tidy().unwrap();
        }
        let syncs = bench.disk.syncs();
        store.tidy().unwrap();
        let more = u64::from(!is_marked);
        assert_eq!(bench.disk.syncs(), syncs + more, "one mark is enough");
        drop(store);
        flip(&bench, b"value-8-b");
        let (_, report, tables) = bench.open();
        assert_eq!(report.damage, vec![damage(P, 18, 20)]);
        assert_eq!((report.torn_tail, tables.rows.len()), (None, 5));
    }
}

#[test]
fn what_the_device_refuses_to_read_is_named_and_the_rest_is_served() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    for base in 0..3 {
        append(&store, P, base, &[&[b'a'; 9000]]);
    }
    append(&store, P, 3, &[b"proof"]);
    drop(store);
    let path = bench.segment_path(1);
    // A block that only the second of them is in.
    assert!(bench.disk.make_unreadable(&path, 17_000..17_010));
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, vec![damage(P, 1, 2)]);
    assert_eq!(values(&store, P, 0, 4).unwrap().len(), 1);
    assert_eq!(values(&store, P, 2, 4).unwrap().len(), 2);
    let error = values(&store, P, 1, 4).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(d) if d == damage(P, 1, 2)));
}

#[test]
fn an_unreadable_end_is_never_cut_and_nothing_is_written_over_it() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    append(&store, P, 0, &[&[b'a'; 9000]]);
    append(&store, P, 1, &[&[b'z'; 9000]]);
    drop(store);
    let path = bench.segment_path(1);
    let before = bench.disk.open(&path).unwrap().len_bytes().unwrap();
    let last = before - 100..before;
    assert!(bench.disk.make_unreadable(&path, last.clone()));
    for life in 0..2 {
        let (store, report, tables) = bench.open();
        assert_eq!(report.torn_tail, None);
        // The second start takes the segment from its footer.
        assert_eq!(report.rows_damaged, 1 - life);
        assert_eq!(values(&store, P, 0, 1).unwrap().len(), 1);
        if life == 0 {
            assert!(store.wants_snapshot());
            store.commit_snapshot(tables.snapshot()).unwrap();
            append(&store, Q, 0, &[b"after"]);
        }
        assert_eq!(values(&store, Q, 0, 1).unwrap().len(), 1);
    }
    assert_eq!(bench.find(&path, &[b'z'; 100]), None, "it is unreadable");
    bench.disk.make_readable();
    assert!(bench.find(&path, &[b'z'; 9000]).is_some(), "the bytes stay");
}

#[test]
fn rot_under_a_running_broker_is_found_by_the_read() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let (store, ..) = bench.open();
    fill(&store);
    flip(&bench, b"value-4-a");
    assert!(matches!(
        store.lookup(P, Offset(0), Offset(20), 1 << 20),
        Lookup::Device
    ));
    assert_eq!(values(&store, P, 0, 20).unwrap().len(), 8);
    let error = values(&store, P, 8, 20).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(d) if d == damage(P, 8, 10)));
    assert_eq!(values(&store, P, 10, 20).unwrap().len(), 10);
    assert_eq!(store.damage(), vec![damage(P, 8, 10)]);
}

#[test]
fn a_tail_lost_after_a_clean_stop_is_rot_and_named() {
    let bench = Bench::new();
    let (store, _, tables) = bench.open();
    fill(&store);
    store.close(tables.snapshot()).unwrap();
    drop(store);
    let path = bench.segment_path(1);
    let at = bench.find(&path, b"value-6-a").unwrap();
    bench.disk.open(&path).unwrap().set_len(at).unwrap();
    let (store, report, tables) = bench.open();
    assert!(report.damage.contains(&damage(P, 12, 20)), "{report:?}");
    assert!(report.damage.contains(&damage(Q, 3, 5)), "{report:?}");
    // The offsets of what was lost are never given to other records.
    assert_eq!(tables.ends.get(&P), Some(&20));
    assert_eq!(tables.ends.get(&Q), Some(&5));
    assert_eq!(values(&store, P, 0, 20).unwrap().len(), 12);
    assert!(store.wants_snapshot());
    let seq = store.commit_snapshot(Vec::new()).unwrap();
    store.durable(seq).unwrap();
    append(&store, P, 20, &[b"after"]);
    drop(store);
    let (store, report, _) = bench.open();
    assert!(report.damage.contains(&damage(P, 12, 20)), "{report:?}");
    assert_eq!(values(&store, P, 20, 21).unwrap().len(), 1);
}

#[test]
fn a_missing_segment_is_named_by_the_read() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    let mut base = 0;
    for _ in 0..4 {
        let seq = store.commit_snapshot(Vec::new()).unwrap();
        store.durable(seq).unwrap();
        append(&store, P, base, &[b"a", b"b"]);
        base += 2;
    }
    store.close(Vec::new()).unwrap();
    drop(store);
    bench.disk.remove(&bench.segment_path(3)).unwrap();
    let (store, report, _) = bench.open();
    assert_eq!(report.missing_segments, vec![3]);
    assert_eq!(values(&store, P, 0, base).unwrap().len(), 2);
    let error = values(&store, P, 2, base).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(d) if d == damage(P, 2, 4)));
    assert_eq!(values(&store, P, 4, base).unwrap().len(), 4);
}

#[test]
fn an_index_that_is_gone_or_garbage_is_built_again() {
    for garbage in [None, Some(&b"garbage"[..])] {
        let bench = Bench::new();
        let (store, ..) = bench.open();
        for base in 0..20 {
            if base % 4 == 0 {
                store.commit_snapshot(Vec::new()).unwrap();
            }
            append(&store, P, base, &[format!("value-{base}").as_bytes()]);
        }
        store.close(Vec::new()).unwrap();
        drop(store);
        let (store, report, _) = bench.open();
        assert_eq!(index_report(&store), IndexReport::Trusted);
        assert_eq!(report.damage, vec![]);
        assert_eq!(values(&store, P, 0, 20).unwrap().len(), 20);
        store.close(Vec::new()).unwrap();
        drop(store);
        let index = bench.config.index_dir.as_ref().unwrap();
        match garbage {
            None => std::fs::remove_dir_all(index).unwrap(),
            Some(bytes) => std::fs::write(index.join("db"), bytes).unwrap(),
        }
        let (store, report, _) = bench.open();
        assert!(
            matches!(index_report(&store), IndexReport::Rebuilt { .. }),
            "{report:?}"
        );
        assert_eq!(values(&store, P, 0, 20).unwrap().len(), 20);
    }
}

#[test]
fn bytes_of_a_torn_group_are_cut_and_never_come_back() {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    append(&store, P, 0, &[b"kept"]);
    // Neither of these was synced; the second one is whole.
    for base in [1, 2] {
        store
            .commit(CommitGroup {
                batches: vec![stamped(P, base, batch(&[&[b'z'; 2000]], 1000))],
                rows: Vec::new(),
            })
            .unwrap();
    }
    store.write_only();
    drop(store);
    let path = bench.segment_path(1);
    let at = bench.find(&path, &[b'z'; 100]).unwrap();
    assert!(bench.disk.flip_bit(&path, at, 0));
    let (store, report, tables) = bench.open();
    let torn = report.torn_tail.unwrap();
    assert_eq!(torn.segment, 1);
    assert!(torn.bytes > 4000, "{torn:?}");
    assert_eq!(report.damage, vec![]);
    assert_eq!(tables.ends.get(&P), Some(&1));
    assert_eq!(bench.find(&path, &[b'z'; 100]), None);
    append(&store, P, 1, &[b"new"]);
    assert_eq!(values(&store, P, 0, 2).unwrap().len(), 2);
}

/// A broker that died right after its last group: the kernel kept all it wrote.
fn killed() -> Bench {
    let bench = Bench::new();
    let (store, ..) = bench.open();
    fill(&store);
    Bench::on(
        bench.disk.killed(),
        LocalConfig {
            index_dir: None,
            ..bench.config.clone()
        },
    )
}

#[test]
fn a_last_group_that_vanished_after_a_kill_is_rot_and_its_offsets_stay_taken() {
    let bench = killed();
    let path = bench.segment_path(1);
    let last = bench.find(&path, b"value-8-a").unwrap();
    let file = bench.disk.open(&path).unwrap();
    file.write_at(last & !511, &[0; 4096]).unwrap();
    file.sync_data().unwrap();
    let (store, report, tables) = bench.open();
    assert_eq!(report.torn_tail, None, "{report:?}");
    assert_eq!(tables.ends.get(&P), Some(&20), "{report:?}");
    let lost = store.damage();
    // The block held the end of the group before, too.
    assert_eq!(lost, vec![damage(P, 14, 20), damage(Q, 3, 5)]);
    assert_eq!(values(&store, P, 0, 14).unwrap().len(), 14);
    append(&store, P, 20, &[b"after"]);
    append(&store, Q, 5, &[b"after"]);
    drop(store);
    let (store, report, _) = bench.open();
    assert_eq!(report.damage, lost);
    assert_eq!(values(&store, P, 20, 21).unwrap().len(), 1);
}

#[test]
fn a_journal_whose_end_or_all_is_gone_is_refused_and_left_as_it_is() {
    let bench = killed();
    let (store, ..) = bench.open();
    store.commit_snapshot(Vec::new()).unwrap();
    append(&store, P, 20, &[b"in the second segment"]);
    let after = Bench::on(bench.disk.killed(), bench.config.clone());
    let second = after.segment_path(2);
    after.disk.remove(&second).unwrap();
    let paths = after.disk.paths();
    let refused = after.try_open(&mut Tables::default());
    assert!(
        matches!(refused, Err(OpenError::SegmentMissing { path }) if path == second),
        "offsets in it could be given out again"
    );
    assert_eq!(after.disk.paths(), paths);
    for is_clean in [false, true] {
        if is_clean {
            store.close(Vec::new()).unwrap();
        }
        let empty = Bench::on(bench.disk.killed(), bench.config.clone());
        for number in 1..=2 {
            empty.disk.remove(&empty.segment_path(number)).unwrap();
        }
        let refused = empty.try_open(&mut Tables::default());
        assert!(matches!(refused, Err(OpenError::JournalMissing { .. })));
    }
}

/// Four segments with two records of P and one of Q each, stopped in order.
fn four_segments(bench: &Bench) -> Vec<(PartitionId, Offset)> {
    let (store, ..) = bench.open();
    for segment in 0..4 {
        store.commit_snapshot(Vec::new()).unwrap();
        append(&store, P, segment * 2, &[b"a", b"b"]);
        append(&store, Q, segment, &[b"queued"]);
    }
    model::settle(&store);
    store.close(Vec::new()).unwrap();
    vec![(P, Offset(0)), (Q, Offset(0))]
}

#[test]
fn what_a_lost_segment_held_is_named_exactly_at_every_start() {
    for is_killed in [false, true] {
        let mut bench = Bench::new();
        let live = four_segments(&bench);
        if is_killed {
            let (store, ..) = bench.open();
            store.retain(&live);
            bench.disk = bench.disk.killed();
        }
        bench.disk.remove(&bench.segment_path(3)).unwrap();
        bench.disk.remove(&bench.segment_path(4)).unwrap();
        let lost = vec![damage(P, 2, 6), damage(Q, 1, 3)];
        for life in 0..3 {
            let (store, ..) = bench.open();
            store.retain(&live);
            assert_eq!(store.damage(), lost, "killed {is_killed}, life {life}");
            let error = values(&store, P, 3, 8).unwrap_err();
            assert!(matches!(error, ReadError::Damaged(d) if d == damage(P, 2, 6)));
            assert_eq!(values(&store, P, 6, 8).unwrap().len(), 2);
            store.close(Vec::new()).unwrap();
        }
    }
}

#[test]
fn damage_that_a_read_found_is_known_after_a_restart_and_forgotten_when_it_is_gone() {
    let mut bench = Bench::new();
    bench.config.cache_bytes = 0;
    let live = four_segments(&bench);
    let path = bench.segment_path(2);
    let needle = b"queued";
    let at = bench.find(&path, needle).unwrap();
    assert!(bench.disk.flip_bit(&path, at, 3));
    let (store, ..) = bench.open();
    store.retain(&live);
    assert_eq!(store.damage(), vec![], "nobody has looked");
    values(&store, Q, 0, 4).unwrap_err();
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, ..) = bench.open();
    store.retain(&live);
    assert_eq!(store.damage(), vec![damage(Q, 0, 1)]);
    store.close(Vec::new()).unwrap();
    drop(store);
    assert!(bench.disk.flip_bit(&path, at, 3), "as if it were restored");
    let (store, ..) = bench.open();
    store.retain(&live);
    assert_eq!(store.damage(), vec![]);
}

#[test]
fn a_mark_that_is_torn_or_older_than_the_journal_is_no_harm() {
    for hit in [0_u64, 4096] {
        let bench = killed();
        let path = bench.config.data_dir.join("SYNCED");
        for at in hit..hit + 64 {
            bench.disk.flip_bit(&path, at, 3);
        }
        let (store, report, _) = bench.open();
        assert_eq!((report.torn_tail, report.damage), (None, vec![]));
        assert_eq!(values(&store, P, 0, 20).unwrap().len(), 20);
        append(&store, P, 20, &[b"after"]);
    }
}

#[test]
fn a_record_that_looks_like_a_row_is_never_taken_for_one() {
    let mut group = CommitGroup::default();
    group.rows.push(put(Table::Offsets, "forged", "row"));
    // The bytes of a row, as somebody could publish them, at every alignment.
    let forged = Bench::new();
    let (store, ..) = forged.open();
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
    drop(store);
    let path = forged.segment_path(1);
    let at = forged.find(&path, b"forged").unwrap();
    let file = forged.disk.open(&path).unwrap();
    let mut row = vec![0; 32];
    file.read_at(at - 12, &mut row).unwrap();
    let mut value = Vec::new();
    for shift in 0..8 {
        value.extend(std::iter::repeat_n(0, shift));
        value.extend_from_slice(&row);
        value.resize(value.len().next_multiple_of(8), 0);
    }
    value.extend_from_slice(b"the end");
    let bench = Bench::new();
    let (store, ..) = bench.open();
    append(&store, P, 0, &[&value]);
    append(&store, P, 1, &[b"after"]);
    drop(store);
    flip(&bench, b"the end");
    let (_, report, tables) = bench.open();
    assert_eq!(report.damage, vec![damage(P, 0, 1)]);
    assert_eq!(tables.rows.len(), 0, "{:?}", tables.rows);
}
