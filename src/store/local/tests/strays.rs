//! Groups, parts of groups, and a former life of the file, where the journal should be.

use super::*;
use crate::store::local::journal::group::GroupHeader;

/// A group of the segment, and where it is.
type At = (std::ops::Range<usize>, GroupHeader);

fn read(bench: &Bench, path: &Path) -> Vec<u8> {
    let file = bench.disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn write(bench: &Bench, at: usize, bytes: &[u8]) {
    let file = bench.disk.open(&bench.segment_path(1)).unwrap();
    file.write_at(at as u64, bytes).unwrap();
}

fn groups(bytes: &[u8]) -> Vec<At> {
    let at = (0..bytes.len()).step_by(8);
    let at = at.filter_map(|at| {
        let header = GroupHeader::decode(&bytes[at..])?;
        let end = at + usize::try_from(header.group_bytes).unwrap();
        Some((at..end, header))
    });
    at.collect()
}

/// Group `n` has a batch of one record, and puts `n` under the keys "row" and "key n".
fn number(store: &LocalStore, n: u64) {
    let value = format!("{n}");
    let rows = ["row".to_owned(), format!("key {n}")];
    let group = CommitGroup {
        batches: vec![stamped(P, n, batch(&[value.as_bytes(); 1], 5))],
        rows: rows.map(|key| put(Table::Offsets, &key, &value)).into(),
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
}

fn numbered(count: u64) -> Bench {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    (0..count).for_each(|n| number(&store, n));
    drop(store);
    bench
}

fn row(tables: &Tables, key: &str) -> Option<String> {
    let value = tables.rows.get(&(Table::Offsets.number(), key.into()))?;
    Some(String::from_utf8(value.clone()).unwrap())
}

#[test]
fn any_bit_in_the_header_of_a_group_costs_nothing() {
    let bench = numbered(6);
    let path = bench.segment_path(1);
    let (third, _) = groups(&read(&bench, &path))[3].clone();
    for bit in 0..48 * 8 {
        let at = third.start as u64 + bit / 8;
        let bench = Bench::on(bench.disk.killed(), bench.config.clone());
        assert!(
            bench
                .disk
                .flip_bit(&path, at, u8::try_from(bit % 8).unwrap())
        );
        let (store, report, tables) = bench.open();
        assert_eq!(report.damage, vec![], "bit {bit}");
        assert_eq!(values(&store, P, 0, 6).unwrap().len(), 6, "bit {bit}");
        assert_eq!(row(&tables, "key 2").as_deref(), Some("2"), "bit {bit}");
        assert_eq!(report.torn_tail, None);
    }
}

/// The second and third of six groups are overwritten with what `bytes` makes of them; only these are lost.
fn overwrite(bytes: impl FnOnce(&[u8], &[At]) -> Vec<u8>) {
    let bench = numbered(6);
    let before = read(&bench, &bench.segment_path(1));
    let groups = groups(&before);
    // The first is the snapshot.
    let (from, to) = (groups[2].0.start, groups[3].0.end);
    let mut strange = bytes(&before, &groups);
    strange.resize(to - from, 0);
    write(&bench, from, &strange);
    for life in 0..2 {
        let (store, report, tables) = bench.open();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(report.damage[0].range, Offset(1)..Offset(3));
        assert_eq!(report.rows_damaged, 1, "start {life}");
        assert_eq!(row(&tables, "row").as_deref(), Some("5"));
        for n in 0..6 {
            let key = row(&tables, &format!("key {n}"));
            let is_hit = (1..3).contains(&n);
            assert_eq!(key.is_none(), is_hit, "key {n} is {key:?}");
            assert_eq!(values(&store, P, n, n + 1).is_err(), is_hit);
        }
    }
}

#[test]
fn a_group_that_lies_elsewhere_does_not_count() {
    overwrite(|file, groups| file[groups[5].0.clone()].to_vec());
    overwrite(|file, groups| {
        let later = groups[4].0.start..groups[5].0.end;
        [&[0; 8], &file[later]].concat()
    });
}

#[test]
fn nor_do_the_rows_of_a_group_whose_front_is_missing() {
    overwrite(|file, groups| file[groups[0].0.start + 16..groups[1].0.end].to_vec());
    // Its row would be the latest for the key of a group that nobody hit.
    let bench = numbered(6);
    let file = read(&bench, &bench.segment_path(1));
    let groups = groups(&file);
    let last = groups[6].0.clone();
    let mut strange = file[groups[2].0.end - 96..groups[3].0.end].to_vec();
    strange.resize(last.len(), 0);
    write(&bench, last.start, &strange);
    let (_, report, tables) = bench.open();
    assert_eq!(report.rows_damaged, 1);
    assert_eq!(row(&tables, "row").as_deref(), Some("4"));
}

#[test]
fn nor_does_a_former_life_of_the_file_that_was_never_overwritten() {
    let other = numbered(3);
    let other = read(&other, &other.segment_path(1));
    overwrite(|_, _| {
        let life = groups(&other);
        other[life[1].0.start + 48..life[2].0.end].to_vec()
    });
}

#[test]
fn bytes_that_somebody_published_void_nothing() {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    let (store, ..) = bench.open();
    number(&store, 0);
    let other = numbered(1);
    let header = &read(&other, &other.segment_path(1))[4096..4096 + 48];
    // At each phase, so that one of them is where a header could be.
    let looks: Vec<Vec<u8>> = (0..8)
        .map(|phase| [&vec![0; phase], header].concat())
        .collect();
    let looks: Vec<&[u8]> = looks.iter().map(Vec::as_slice).collect();
    let group = CommitGroup {
        batches: vec![
            stamped(P, 1, batch(&looks, 5)),
            stamped(Q, 0, batch(&[b"beside"], 5)),
        ],
        rows: vec![put(Table::Offsets, "key 1", "1")],
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
    number(&store, 9);
    drop(store);
    let path = bench.segment_path(1);
    let second = groups(&read(&bench, &path))
        .into_iter()
        .find(|(_, header)| header.seq == 2);
    let (second, _) = second.unwrap();
    assert!(bench.disk.flip_bit(&path, second.start as u64 + 12, 0));
    let (store, report, tables) = bench.open();
    assert_eq!(report.rows_damaged, 1);
    assert_eq!(values(&store, P, 1, 9).unwrap().len(), 8);
    assert_eq!(values(&store, Q, 0, 1).unwrap().len(), 1);
    assert_eq!(row(&tables, "key 1").as_deref(), Some("1"));
}

#[test]
fn an_end_that_lies_under_a_group_from_elsewhere_is_never_cut() {
    let bench = numbered(6);
    let synced = bench.config.data_dir.join("SYNCED");
    bench.disk.remove(&synced).unwrap();
    let file = read(&bench, &bench.segment_path(1));
    let groups = groups(&file);
    let last = groups[6].0.clone();
    write(&bench, last.start, &file[groups[1].0.clone()]);
    for life in 0..2 {
        let (store, report, tables) = bench.open();
        assert_eq!(
            (report.torn_tail, report.rows_damaged),
            (None, 1),
            "start {life}"
        );
        assert_eq!(row(&tables, "row").as_deref(), Some("4"));
        assert!(store.wants_snapshot(), "it goes on in a new segment");
    }
}

/// Six groups, then one with batches of both partitions and a row; the next segment has begun, and the broker was
/// killed before this one was sealed. Behind its groups the file has a former life. `more` makes the batches of the
/// seventh group longer.
fn rolled_over_a_former_life(more: usize) -> (Bench, At) {
    let other = numbered(3);
    let other = read(&other, &other.segment_path(1));
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    (0..6).for_each(|n| number(&store, n));
    append(&store, Q, 0, &[b"first"]);
    let value = |text: &str| [text.as_bytes(), &vec![b'x'; more]].concat();
    let group = CommitGroup {
        batches: vec![
            stamped(P, 6, batch(&[&value("hit")], 5)),
            stamped(P, 7, batch(&[&value("beside")], 5)),
            stamped(Q, 1, batch(&[&value("another")], 5)),
        ],
        rows: vec![put(Table::Offsets, "key 6", "6")],
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
    let seq = store.commit_snapshot(Vec::new()).unwrap();
    store.durable(seq).unwrap();
    append(&store, P, 8, &[b"later"]);
    drop(store);
    let path = bench.segment_path(1);
    let (last, header) = groups(&read(&bench, &path)).pop().unwrap();
    // No seal, and no footer.
    write(&bench, 512, &[0; 64]);
    // The rest of the last block was written with it.
    let behind = last.end.next_multiple_of(4096);
    let file = bench.disk.open(&path).unwrap();
    let end = usize::try_from(file.len_bytes().unwrap()).unwrap();
    write(&bench, last.end, &vec![0; end - last.end]);
    let life = groups(&other);
    let remains = &other[life[0].0.start + 16..life[3].0.end];
    write(&bench, behind, &remains[..remains.len().min(end - behind)]);
    (bench, (last, header))
}

#[test]
fn a_former_life_behind_the_last_group_takes_nothing_from_it() {
    let (bench, (last, _)) = rolled_over_a_former_life(0);
    let path = bench.segment_path(1);
    let hit = bench.find(&path, b"hit").unwrap();
    assert!(last.contains(&usize::try_from(hit).unwrap()));
    assert!(bench.disk.flip_bit(&path, hit, 0));
    for _ in 0..2 {
        let (store, report, _) = bench.open();
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(report.damage[0].range, Offset(6)..Offset(7));
        assert_eq!(values(&store, P, 7, 9).unwrap().len(), 2);
        assert_eq!(values(&store, Q, 0, 2).unwrap().len(), 2);
    }
}

#[test]
fn what_lies_inside_of_a_group_voids_it_whatever_it_says() {
    let other = numbered(1);
    let other = read(&other, &other.segment_path(1));
    let strange = groups(&other)[1].0.clone();
    let voided_by = |is_in_its_first_block: bool| {
        let (bench, (last, _)) = rolled_over_a_former_life(1500);
        let hit = bench.find(&bench.segment_path(1), b"hit").unwrap();
        let behind_hit = usize::try_from(hit).unwrap() + 3 + 1500;
        let next_block = (last.start + 1).next_multiple_of(4096);
        assert!(behind_hit < next_block && next_block + 48 < last.end);
        let at = if is_in_its_first_block {
            last.start + 48 + 40
        } else {
            next_block
        };
        // The first half of a group from elsewhere, in the middle of the last one.
        write(&bench, at, &other[strange.start..strange.start + 48]);
        let (_, report, _) = bench.open();
        let lost = report
            .damage
            .iter()
            .map(|damage| damage.range.end.since(damage.range.start));
        lost.sum::<u64>()
    };
    assert_eq!(voided_by(true), 3);
    assert_eq!(voided_by(false), 3, "what precedes it may be as strange");
}

#[test]
fn what_shares_a_block_with_a_stray_header_behind_a_group_counts_no_more() {
    let (bench, (last, _)) = rolled_over_a_former_life(1500);
    let path = bench.segment_path(1);
    let find = |text: &[u8]| usize::try_from(bench.find(&path, text).unwrap()).unwrap();
    let block = last.end / 4096 * 4096;
    assert!(find(b"hit") + 1600 < block && find(b"beside") < block && block < find(b"another"));
    let other = numbered(1);
    let other = read(&other, &other.segment_path(1));
    let strange = groups(&other)[1].0.clone();
    let at = last.end.next_multiple_of(8);
    write(&bench, at, &other[strange.start..strange.start + 48]);
    // Or the group would be whole.
    let row = bench.find(&path, b"key 6").unwrap();
    assert!(bench.disk.flip_bit(&path, row, 0));
    let (store, report, _) = bench.open();
    assert_eq!(values(&store, P, 6, 7).unwrap().len(), 1, "{report:?}");
    assert!(values(&store, P, 7, 8).is_err());
    assert!(values(&store, Q, 1, 2).is_err());
}
