//! Any one bit anywhere: a start works, no read is wrong, and what is refused is one batch.
//!
//! `FALCON_BIT_FLIPS` sets how many are tried, `FALCON_FLIP_SEED` which.

use std::path::{Path, PathBuf};

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
        if base == RECORDS - 3 {
            append_once(&store);
        }
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

/// Partitions without another batch behind it that would show what is missing.
fn append_once(store: &LocalStore) {
    append(store, PartitionId::new(2, 5), 0, &[&value(0)]);
    let two = PartitionId::new(2, 6);
    let batches = (0..2).map(|base| stamped(two, base, batch(&[&value(base)], 1000)));
    let group = CommitGroup {
        batches: batches.collect(),
        rows: Vec::new(),
    };
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
}

/// Partitions and their ends.
const LOGS: [(PartitionId, u64); 3] = [
    (P, RECORDS),
    (PartitionId::new(2, 5), 1),
    (PartitionId::new(2, 6), 2),
];

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

/// Small segments, so that there are many, and nothing that is made ahead.
fn small_segments() -> Bench {
    let mut bench = Bench::new();
    bench.config.segment_bytes = 8 << 10;
    bench.config.first_segment_bytes = 8 << 10;
    bench.config.spare_segments = 0;
    bench
}

/// A copy of what `bench` left, with one bit flipped; with the index when that is what it hits.
fn flipped(bench: &Bench, nth: u64, random: &mut fastrand::Rng) -> (Bench, String) {
    let mut copy = Bench::on(bench.disk.killed(), bench.config.clone());
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
fn check(bench: &Bench, at: &str) -> bool {
    let mut tables = Tables::default();
    let opened = bench.try_open(&mut tables);
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
    assert_eq!(report.torn_tail, None, "{at}");
    let refused: u64 = LOGS
        .iter()
        .map(|(partition, end)| check_log(&store, *partition, *end, &format!("{at}: {report:?}")))
        .sum();
    assert!(refused <= 1, "{at}: {refused} refused, {report:?}");
    let are_rows_whole = tables.rows.len() == 1;
    assert!(
        are_rows_whole || report.rows_damaged > 0,
        "{at}: {report:?}"
    );
    for (partition, end) in LOGS {
        let replayed = tables.ends.get(&partition).copied();
        assert_eq!(replayed.unwrap_or(end), end, "{at}: {report:?}");
        append(&store, partition, end, &[b"goes on"]);
    }
    refused > 0 || !are_rows_whole
}

/// Answers how many records were refused.
fn check_log(store: &LocalStore, partition: PartitionId, end: u64, at: &str) -> u64 {
    // The offsets go on where they ended: none is given out again, none is left out.
    let bounds = super::super::locked(&store.shared.bounds).clone();
    let known = bounds.get(&partition).map(|bounds| bounds.end);
    assert_eq!(known, Some(Offset(end)), "{at}: {partition}");
    let mut refused = 0;
    for offset in 0..end {
        match values(store, partition, offset, offset + 1) {
            Ok(found) => assert_eq!(found, vec![(offset, value(offset))], "{at}"),
            Err(ReadError::Damaged(damage)) => {
                let only = Offset(offset)..Offset(offset + 1);
                assert_eq!((damage.partition, damage.range), (partition, only), "{at}");
                refused += 1;
            }
            Err(error) => panic!("{at}: {partition} {offset}: {error}"),
        }
    }
    refused
}

#[test]
fn one_flipped_bit_anywhere_costs_at_most_one_batch() {
    let seed = from_env("FALCON_FLIP_SEED", fastrand::u64(..));
    let flips = from_env("FALCON_BIT_FLIPS", FLIPS);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut harmful = 0;
    for (nth, end) in (0..3).zip([End::Clean, End::Killed, End::KilledIdle]) {
        let bench = small_segments();
        fill(&bench, end);
        let share = flips / 3 + u64::from(nth < flips % 3);
        for flip in 0..share {
            let (flipped, at) = flipped(&bench, flip, &mut random);
            let at = format!("FALCON_FLIP_SEED={seed}, {end:?}, flip {flip}: {at}");
            harmful += u64::from(check(&flipped, &at));
        }
    }
    println!("figures: bits_flipped={flips} cost_a_batch_or_row={harmful}");
}

/// Where the header of a batch of P is, in all copies of it.
fn headers(bench: &Bench, offset: u64) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let wanted = offset.to_le_bytes();
    for path in bench.disk.paths() {
        let file = bench.disk.open(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        for (at, window) in bytes.windows(80).enumerate() {
            let header = BatchHeader::decode(window);
            let is_ours = |header: &BatchHeader| header.verify_stamp(P).is_ok();
            if window.starts_with(&wanted) && header.is_ok_and(|header| is_ours(&header)) {
                found.push((path.clone(), at as u64));
            }
        }
    }
    found
}

#[test]
fn a_damaged_record_count_costs_its_own_batch_and_no_offset_after_it() {
    const RECORD_COUNT_AT: u64 = 36;
    let mut flips = 0;
    for end in [End::Clean, End::Killed, End::KilledIdle] {
        let bench = small_segments();
        fill(&bench, end);
        for offset in [0, 14, RECORDS - 2, RECORDS - 1] {
            for (path, at) in headers(&bench, offset) {
                for bit in 0..32_u8 {
                    let mut copy = Bench::on(bench.disk.killed(), bench.config.clone());
                    copy.config.index_dir = None;
                    let position = at + RECORD_COUNT_AT + u64::from(bit / 8);
                    copy.disk.flip_bit(&path, position, bit % 8);
                    let at = format!("{end:?}, bit {bit} at {position} of {}", path.display());
                    check(&copy, &at);
                    flips += 1;
                }
            }
        }
    }
    assert!(flips >= 3 * 4 * 32, "{flips}");
}

#[test]
fn a_flipped_bit_in_what_was_written_last_costs_at_most_one_batch() {
    // Every bit in a long run.
    let stride = if from_env("FALCON_BIT_FLIPS", FLIPS) > FLIPS {
        1
    } else {
        331
    };
    let mut flips = 0;
    let mut harmful = 0;
    for end in [End::Killed, End::KilledIdle] {
        let bench = small_segments();
        fill(&bench, end);
        let numbers = (1..100).rev().map(|number| bench.segment_path(number));
        let paths = bench.disk.paths();
        let last = numbers.into_iter().find(|path| paths.contains(path));
        let last = last.unwrap();
        let file = bench.disk.open(&last).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for bit in (0..(written as u64 + 8) * 8).step_by(stride) {
            let mut copy = Bench::on(bench.disk.killed(), bench.config.clone());
            copy.config.index_dir = None;
            copy.disk.flip_bit(&last, bit / 8, (bit % 8) as u8);
            let at = format!("{end:?}, bit {bit} of {}", last.display());
            harmful += u64::from(check(&copy, &at));
            flips += 1;
        }
    }
    // One of the last three would have ended the test.
    println!(
        "figures: bits_flipped={flips} cost_a_batch_or_row={harmful} wrong_bytes=0 panics=0 refused_starts=0"
    );
}
