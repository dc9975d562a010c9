//! Any one bit anywhere: a start works, no read is wrong, and what is refused is one batch.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::*;
use crate::store::local::{IndexVerdict, Inspection};
use proptest::prelude::*;

const RECORDS: u64 = 30;

fn value(offset: u64) -> Vec<u8> {
    format!("value-{offset}-").repeat(30).into_bytes()
}

/// Thirty batches of one record over several segments.
fn fill(store: &LocalStore) {
    for base in 0..RECORDS {
        if store.wants_snapshot() {
            let rows = vec![put(Table::Topics, "topic", "one")];
            store.commit_snapshot(rows).unwrap();
        }
        append(store, P, base, &[&value(base)]);
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new();
    bench.config.segment_bytes = 8 << 10;
    bench.config.first_segment_bytes = 8 << 10;
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    fill(&store);
    let is_clean = random.bool();
    if is_clean {
        store
            .close(vec![put(Table::Topics, "topic", "one")])
            .unwrap();
    }
    drop(store);
    let paths = bench.disk.paths();
    let path = random.choice(&paths).unwrap();
    let bytes = bench.disk.open(path).unwrap().len_bytes().unwrap();
    let position = random.u64(0..bytes.max(1));
    bench.disk.flip_bit(path, position, random.u8(0..8));
    let at = format!(
        "seed {seed}: {} at {position}, clean: {is_clean}",
        path.display()
    );

    let inspected = inspect(&bench, &at);
    let (store, report, tables) = bench.open();
    // A bit in the last group of a killed broker looks like a torn tail.
    let end = tables.ends.get(&P).copied().unwrap_or(0);
    let is_cut = report.torn_tail.is_some();
    assert!(!is_cut || !is_clean, "{at}");
    let expected = if is_cut { RECORDS - 1 } else { RECORDS };
    let mut refused = 0;
    for offset in 0..expected {
        match values(&store, P, offset, offset + 1) {
            Ok(found) => {
                assert_eq!(found, vec![(offset, value(offset))], "{at}");
                assert!(inspected.contains(&offset), "{at}: {offset}");
            }
            Err(ReadError::Damaged(damage)) => {
                assert!(!inspected.contains(&offset), "{at}: {offset}");
                assert!(damage.range.contains(&Offset(offset)), "{at}");
                refused += 1;
            }
            Err(error) => panic!("{at}: offset {offset}: {error}, end {end}, {report:?}"),
        }
    }
    assert!(refused <= 1, "{at}: {refused} refused, {report:?}");
    assert!(
        tables.rows.len() == 1 || report.rows_damaged > 0,
        "{at}: {report:?}"
    );
    append(&store, P, RECORDS, &[b"goes on"]);
}

/// Reads the folder without opening it: answers the offsets that are there. What is not there is
/// named, the index is right, and no byte changes.
fn inspect(bench: &Bench, at: &str) -> BTreeSet<u64> {
    let before = contents(bench);
    let mut tables = Tables::default();
    let disk = Arc::new(bench.disk.clone());
    let config = bench.config.clone();
    let inspection = Inspection::open(config, disk, Arc::new(|_| ()), &mut tables);
    let inspection = inspection.unwrap_or_else(|error| panic!("{at}: {error}"));
    let (start, end) = inspection.bounds(P).unwrap_or_default();
    let mut readable = BTreeSet::new();
    let lost = inspection.read(P, start..end, &mut |batch| {
        let base = batch.header().base_offset.0;
        for (offset, record) in (base..).zip(batch.records().unwrap()) {
            let found = record.unwrap().value.unwrap_or_default();
            assert_eq!(found, value(offset), "{at}");
            readable.insert(offset);
        }
        ControlFlow::Continue(())
    });
    let lost = lost.unwrap_or_else(|error| panic!("{at}: {error}"));
    let named = lost.iter().filter_map(|finding| finding.lost.as_ref());
    let named: BTreeSet<u64> = named
        .flat_map(|lost| lost.range.start.0..lost.range.end.0)
        .collect();
    assert!(named.is_disjoint(&readable), "{at}");
    assert_eq!(
        named.len() + readable.len(),
        usize::try_from(end.0).unwrap()
    );
    let is_hurt = !lost.is_empty();
    assert!(!is_hurt || !inspection.findings().is_empty(), "{at}");
    let verdict = inspection.check_index(
        &bench
            .config
            .index_dir
            .as_ref()
            .unwrap()
            .with_extension("copy"),
    );
    assert!(
        !matches!(verdict, IndexVerdict::Wrong(_)),
        "{at}: {verdict:?}"
    );
    assert_eq!(contents(bench), before, "{at}");
    readable
}

fn contents(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| {
        let file = bench.disk.open(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        (path, bytes)
    };
    bench.disk.paths().into_iter().map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_flipped_bit_anywhere_costs_at_most_one_batch(seed in any::<u64>()) {
        run(seed);
    }
}
