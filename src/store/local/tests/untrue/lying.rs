//! Syncs that report success and keep nothing, and then a power cut.
//!
//! What was lost can be noticed where something that was written later survived: a group, whose
//! synced sequence proves all before it, or the clean-stop marker.

use super::*;
use crate::io::SimTimes;

const DEVICES: u64 = 60;

#[derive(Debug, Default)]
struct Outcomes {
    /// Records that something proves to have been acknowledged, and that are gone.
    named: u64,
    served: u64,
    /// Nothing proves them.
    unproven: u64,
}

fn bytes_of(disk: &SimDisk, path: &Path, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    let read = disk
        .open(path)
        .ok()?
        .read_at(range.start, &mut bytes)
        .ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// Whether these bytes survived the power cut as they were written.
fn is_intact(before: &SimDisk, after: &SimDisk, path: &Path, range: Range<u64>) -> bool {
    let written = bytes_of(before, path, range.clone());
    written.is_some() && written == bytes_of(after, path, range)
}

/// What survived of the work.
struct Left {
    /// Of each group, whether it is whole.
    intact: Vec<bool>,
    has_marker: bool,
}

impl Left {
    fn of(work: &Work, before: &SimDisk, end: End) -> Self {
        let bench = &work.bench;
        let survives = |written: &Written| {
            let path = bench.segment_path(written.segment);
            is_intact(before, &bench.disk, &path, written.bytes.clone())
        };
        let clean = bench.config.data_dir.join("CLEAN");
        let bytes = before.open(&clean).and_then(|file| file.len_bytes());
        let is_marked = |bytes| is_intact(before, &bench.disk, &clean, 0..bytes);
        Self {
            intact: work.written.iter().map(survives).collect(),
            has_marker: end == End::Clean && bytes.is_ok_and(is_marked),
        }
    }

    /// Whether something proves that this group was acknowledged, and says where a partition in it
    /// ends. A whole group behind it does the former.
    fn tells(&self, work: &Work, nth: usize, partition: PartitionId) -> bool {
        let mut later = work.written.iter().zip(&self.intact).skip(nth);
        self.has_marker
            || later.any(|(later, is_intact)| *is_intact && later.tells_end_of(partition))
    }
}

fn lie(seed: u64, outcomes: &mut Outcomes) {
    let mut work = Work::new(seed);
    let before = work.random.u64(0..15);
    work.groups(before);
    let is_sticky = work.random.bool();
    let times = if is_sticky {
        SimTimes::Sticky
    } else {
        SimTimes::Once
    };
    work.bench.disk.lie_sync(1, times);
    let after = work.random.u64(1..25);
    work.groups(after);
    let end = End::pick(&mut work.random);
    work.stop(end);
    let at = format!("seed {seed}, {times:?}, {end:?}, {before} before, {after} after");
    let written = work.bench.disk.clone();
    work.bench.crash(seed);
    let left = Left::of(&work, &written, end);
    let opened = work.bench.try_open(&mut Tables::default());
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
    for (nth, written) in work.written.iter().enumerate() {
        for (partition, range) in &written.batches {
            let found = Work::end_in(&store, *partition);
            if found < range.end {
                let is_told = left.tells(&work, nth, *partition);
                assert!(
                    !is_told,
                    "{at}: {partition} {range:?} may be given away: {report:?}"
                );
                outcomes.unproven += 1;
            } else if Work::is_served(&store, *partition, range.start, &at) {
                outcomes.served += 1;
            } else {
                assert!(
                    !left.intact[nth],
                    "{at}: {partition} {range:?} is intact: {report:?}"
                );
                outcomes.named += 1;
            }
        }
    }
    go_on(&store, &at);
}

/// What is appended now stays apart from what was lost.
fn go_on(store: &LocalStore, at: &str) {
    let ends = PARTITIONS.map(|partition| Work::end_in(store, partition));
    if store.wants_snapshot() {
        store.commit_snapshot(Vec::new()).unwrap();
    }
    for (partition, end) in PARTITIONS.into_iter().zip(ends) {
        append(store, partition, end, &[&value(partition, end)]);
    }
    for (partition, end) in PARTITIONS.into_iter().zip(ends) {
        for offset in 0..end {
            Work::is_served(store, partition, offset, at);
        }
        assert!(Work::is_served(store, partition, end, at));
    }
}

#[test]
fn what_a_lying_sync_lost_is_named_where_anything_proves_it() {
    let mut outcomes = Outcomes::default();
    let seeds = seeds(DEVICES);
    let devices = seeds.end - seeds.start;
    for seed in seeds {
        lie(seed, &mut outcomes);
    }
    println!(
        "figures: lying_devices={devices} records_lost_and_named={} records_served={} \
         records_lost_without_proof={} wrong_bytes_served=0 refused_to_start=0",
        outcomes.named, outcomes.served, outcomes.unproven,
    );
}
