//! Any one bit anywhere: a start works, no read is wrong, and what is refused is one batch.

use super::*;
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

    let (store, report, tables) = bench.open();
    // A bit in the last group of a killed broker looks like a torn tail.
    let end = tables.ends.get(&P).copied().unwrap_or(0);
    let is_cut = report.torn_tail.is_some();
    assert!(!is_cut || !is_clean, "{at}");
    let expected = if is_cut { RECORDS - 1 } else { RECORDS };
    let mut refused = 0;
    for offset in 0..expected {
        match values(&store, P, offset, offset + 1) {
            Ok(found) => assert_eq!(found, vec![(offset, value(offset))], "{at}"),
            Err(ReadError::Damaged(damage)) => {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_flipped_bit_anywhere_costs_at_most_one_batch(seed in any::<u64>()) {
        run(seed);
    }
}
