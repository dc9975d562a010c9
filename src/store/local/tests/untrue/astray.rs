//! One write or read goes to another place than it was meant for.

use super::*;
use crate::io::SimAstray;

const DEVICES: u64 = 80;

#[derive(Debug, Default)]
struct Outcomes {
    writes: u64,
    named: u64,
    harmless: u64,
    /// The last group of a killed broker, of which nothing else speaks.
    tails_cut: u64,
}

impl Written {
    /// Whether it was the write that went astray, or is where that went.
    fn is_hit(&self, bench: &Bench, astray: &SimAstray) -> bool {
        let path = bench.segment_path(self.segment);
        // A segment's first write begins with its header.
        let meant = astray.meant_position.max(4096);
        let end = astray.hit_position + astray.bytes;
        (path == astray.meant && self.bytes.start == meant)
            || (path == astray.hit
                && self.bytes.start < end
                && astray.hit_position < self.bytes.end)
    }
}

/// Compares everything; answers how many batches were refused, and whether an end went back.
fn check(work: &Work, hit: &SimAstray, end: End, at: &str) -> (u64, bool) {
    let mut tables = Tables::default();
    let opened = work.bench.try_open(&mut tables);
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
    let is_hit = |written: &Written| written.is_hit(&work.bench, hit);
    let mut refused = 0;
    let mut is_cut = false;
    for (nth, written) in work.written.iter().enumerate() {
        let is_told = |partition: PartitionId| {
            let later = work.written[nth + 1..].iter();
            let mut later = later.filter(|later| !is_hit(later));
            end == End::Clean || later.any(|later| later.tells_end_of(partition))
        };
        for (partition, range) in &written.batches {
            let found = Work::end_in(&store, *partition);
            if found < range.end {
                let may_be = is_hit(written) && !is_told(*partition);
                assert!(may_be, "{at}: {partition} ends at {found}: {report:?}");
                is_cut = true;
                continue;
            }
            if !Work::is_served(&store, *partition, range.start, at) {
                assert!(
                    is_hit(written),
                    "{at}: {partition} {range:?} refused: {written:?} {report:?}"
                );
                refused += 1;
            }
        }
    }
    for (key, number) in &work.rows {
        let found = tables.rows.get(&(Table::Offsets.number(), vec![*key]));
        let is_right = found.map(Vec::as_slice) == Some(&number.to_le_bytes());
        let last = work
            .written
            .iter()
            .rfind(|written| written.row == Some(*key))
            .unwrap();
        let is_last = work
            .written
            .last()
            .is_some_and(|end| std::ptr::eq(end, last));
        let is_unproven = is_last && end == End::Killed;
        let may_be_lost = is_hit(last) && (report.rows_damaged > 0 || is_unproven);
        assert!(
            is_right || may_be_lost,
            "{at}: row {key} is {found:?}, not {number}: {report:?}"
        );
    }
    (refused, is_cut)
}

fn misdirect_a_write(seed: u64, outcomes: &mut Outcomes) {
    let mut work = Work::new(seed);
    let before = work.random.u64(0..20);
    work.groups(before);
    work.bench.disk.misdirect_write(1, seed);
    let after = work.random.u64(1..20);
    work.groups(after);
    let hit = work.bench.disk.astray().unwrap();
    let end = End::pick(&mut work.random);
    let at = format!("seed {seed}, {end:?}, {before} before, {after} after, {hit:?}");
    for (partition, end) in &work.ends {
        for offset in 0..*end {
            Work::is_served(work.store(), *partition, offset, &at);
        }
    }
    work.stop(end);
    let (refused, is_cut) = check(&work, &hit, end, &at);
    outcomes.writes += 1;
    outcomes.named += u64::from(refused > 0);
    outcomes.tails_cut += u64::from(is_cut);
    outcomes.harmless += u64::from(refused == 0 && !is_cut);
    // The second start finds the same as the first.
    check(&work, &hit, end, &format!("{at}, again"));
}

/// Every record is served or refused, and afterwards, read as it is, served.
fn misdirect_reads(seed: u64, refused: &mut u64) {
    let mut work = Work::new(seed);
    work.bench.config.cache_bytes = 0;
    work.stop(End::Killed);
    work.store = Some(work.bench.open().0);
    let count = work.random.u64(1..30);
    work.groups(count);
    for (partition, end) in &work.ends {
        for offset in 0..*end {
            let at = format!("seed {seed}, read of {partition} {offset}");
            work.bench.disk.misdirect_read(1, seed ^ offset);
            *refused += u64::from(!Work::is_served(work.store(), *partition, offset, &at));
            work.bench.disk.heal();
            assert!(work.bench.disk.astray().is_some());
            assert!(
                Work::is_served(work.store(), *partition, offset, &at),
                "{at}"
            );
        }
    }
}

#[test]
fn a_header_or_group_in_the_wrong_place_hides_nothing_behind_it() {
    // The first hits the header of an older segment, the second a group before others.
    for seed in [1_000_025, 1_000_626] {
        misdirect_a_write(seed, &mut Outcomes::default());
    }
}

#[test]
fn a_read_that_goes_astray_is_never_served() {
    let (mut devices, mut refused) = (0, 0);
    for seed in seeds(DEVICES / 4) {
        misdirect_reads(seed, &mut refused);
        devices += 1;
    }
    println!(
        "figures: devices_with_misdirected_reads={devices} misdirected_reads_refused={refused}"
    );
}

#[test]
fn a_write_that_goes_astray_costs_what_it_hit_and_is_never_served_elsewhere() {
    let mut outcomes = Outcomes::default();
    for seed in seeds(DEVICES) {
        misdirect_a_write(seed, &mut outcomes);
    }
    println!(
        "figures: misdirected_writes={} detected_with_range={} harmless={} unproven_tail_cut={} \
         wrong_bytes_served=0 refused_to_start=0",
        outcomes.writes, outcomes.named, outcomes.harmless, outcomes.tails_cut,
    );
}
