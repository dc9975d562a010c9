//! Any one bit anywhere: a start works, no read is wrong, and what is refused is one batch.
//!
//! `FALCON_BIT_FLIPS` sets how many are tried, `FALCON_FLIP_SEED` which.

use std::path::Path;

use super::points::from_env;
use super::*;

const FLIPS: u64 = 240;
/// Every so many flips one hits the index.
const INDEX_EVERY: u64 = 16;
const RECORDS: u64 = 30;

/// How the broker ended before the bit flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    /// Right after the last group.
    Killed,
    /// When nothing had happened for a while.
    KilledIdle,
}

fn value(offset: u64) -> Vec<u8> {
    format!("value-{offset}-").repeat(30).into_bytes()
}

fn rows() -> Vec<Row> {
    vec![put(Table::Topics, "topic", "one")]
}

/// Thirty batches of one record among dead ones, over several segments, some copied forward.
fn fill(bench: &Bench, end: End) {
    let (store, ..) = bench.open();
    for base in 0..RECORDS {
        if store.wants_snapshot() {
            store.commit_snapshot(rows()).unwrap();
        }
        append(&store, P, base, &[&value(base)]);
        if base < 12 {
            append(&store, Q, base, &[&[b'q'; 3500]]);
        }
        if base == 20 {
            store.trim(Q, Some(Offset(12)));
            model::settle(&store);
            tidy(&store);
        }
    }
    match end {
        End::Clean => store.close(rows()).unwrap(),
        End::Killed => {}
        End::KilledIdle => {
            tidy(&store);
            tidy(&store);
        }
    }
}

fn flip_file(path: &Path, random: &mut fastrand::Rng) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let position = random.usize(0..bytes.len().max(1));
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 1 << random.u8(0..8);
    }
    std::fs::write(path, bytes).unwrap();
    format!("{} at {position}", path.display())
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A copy of what `bench` left, with one bit flipped; with the index when that is what it hits.
fn flipped(bench: &Bench, nth: u64, random: &mut fastrand::Rng) -> (Bench, String) {
    let mut copy = Bench::on(bench.disk.crash(0), bench.config.clone());
    if nth.is_multiple_of(INDEX_EVERY) {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index");
        copy_folder(bench.config.index_dir.as_ref().unwrap(), &index);
        let at = flip_file(&index.join("db"), random);
        copy.config.index_dir = Some(index);
        return (copy.keeping(dir), at);
    }
    copy.config.index_dir = None;
    let paths = copy.disk.paths();
    let path = random.choice(&paths).unwrap();
    let bytes = copy.disk.open(path).unwrap().len_bytes().unwrap();
    let position = random.u64(0..bytes.max(1));
    copy.disk.flip_bit(path, position, random.u8(0..8));
    (copy, format!("{} at {position}", path.display()))
}

/// Whether the bit did any harm, which was then named.
fn check(bench: &Bench, end: End, at: &str) -> bool {
    let mut tables = Tables::default();
    let opened = bench.try_open(&mut tables);
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
    // A bit in the last group of a killed broker looks like a torn tail, until it is marked.
    let is_cut = report.torn_tail.is_some() && tables.ends.get(&P) < Some(&RECORDS);
    assert!(!is_cut || end == End::Killed, "{at}: {report:?}");
    let expected = if is_cut { RECORDS - 1 } else { RECORDS };
    let mut refused = 0;
    for offset in 0..expected {
        match values(&store, P, offset, offset + 1) {
            Ok(found) => assert_eq!(found, vec![(offset, value(offset))], "{at}"),
            Err(ReadError::Damaged(damage)) => {
                let only = Offset(offset)..Offset(offset + 1);
                assert_eq!((damage.partition, damage.range), (P, only), "{at}");
                refused += 1;
            }
            Err(error) => panic!("{at}: offset {offset}: {error}, {report:?}"),
        }
    }
    assert!(refused <= 1, "{at}: {refused} refused, {report:?}");
    let are_rows_whole = tables.rows.len() == 1;
    assert!(
        are_rows_whole || report.rows_damaged > 0,
        "{at}: {report:?}"
    );
    append(&store, P, expected.max(RECORDS), &[b"goes on"]);
    refused > 0 || is_cut || !are_rows_whole
}

#[test]
fn one_flipped_bit_anywhere_costs_at_most_one_batch() {
    let seed = from_env("FALCON_FLIP_SEED", fastrand::u64(..));
    let flips = from_env("FALCON_BIT_FLIPS", FLIPS);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut harmful = 0;
    for (nth, end) in (0..3).zip([End::Clean, End::Killed, End::KilledIdle]) {
        let mut bench = Bench::new();
        bench.config.segment_bytes = 8 << 10;
        bench.config.first_segment_bytes = 8 << 10;
        bench.config.spare_segments = 0;
        fill(&bench, end);
        let share = flips / 3 + u64::from(nth < flips % 3);
        for flip in 0..share {
            let (flipped, at) = flipped(&bench, flip, &mut random);
            let at = format!("FALCON_FLIP_SEED={seed}, {end:?}, flip {flip}: {at}");
            harmful += u64::from(check(&flipped, end, &at));
        }
    }
    // One of the last three would have ended the test.
    println!(
        "figures: bits_flipped={flips} cost_a_batch_or_row={harmful} wrong_bytes=0 panics=0 refused_starts=0"
    );
}
