//! One write or read goes to another place than it was meant for.

use super::*;
use crate::io::SimAstray;
use crate::store::local::journal::group::GroupHeader;

const DEVICES: u64 = 80;
/// No device writes less.
const SECTOR: u64 = 512;

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
fn check(work: &Work, hit: &SimAstray, (end, then): (End, Then), at: &str) -> (u64, bool) {
    let mut tables = Tables::default();
    let opened = work.bench.try_open(&mut tables);
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error}"));
    let is_hit = |written: &Written| written.is_hit(&work.bench, hit);
    let is_older = then == Then::OlderGroups;
    // Nothing knows then that the last group was acknowledged, and that less than a sector hit it.
    let is_unproven = |is_last: bool| {
        let is_unseen = then == Then::MarkLost && hit.bytes < SECTOR;
        end == End::Killed && (is_last || is_unseen)
    };
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
                    is_hit(written) || is_older,
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
        let is_told = report.rows_damaged > 0;
        let may_be_lost = (is_hit(last) || is_older) && (is_told || is_unproven(is_last));
        assert!(
            is_right || may_be_lost,
            "{at}: row {key} is {found:?}, not {number}: {report:?}"
        );
    }
    (refused, is_cut)
}

/// What becomes of the folder before the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// A power cut takes the mark of the last sync.
    MarkLost,
    /// A broker wrote it whose groups did not say their place. What is intact may be refused then.
    OlderGroups,
}

impl Then {
    fn of(seed: u64) -> Self {
        match seed % 4 {
            0 | 1 => Self::Nothing,
            2 => Self::MarkLost,
            _ => Self::OlderGroups,
        }
    }
}

/// Takes their place out of all groups.
fn forget_places(work: &Work) {
    let disk = &work.bench.disk;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
    for path in disk.paths().into_iter().filter(is_segment) {
        let file = disk.open(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        for at in (0..bytes.len()).step_by(8) {
            let Some(header) = GroupHeader::decode(&bytes[at..]) else {
                continue;
            };
            let end = at + usize::try_from(header.group_bytes).unwrap();
            let body = bytes.get(at + 8..end);
            let is_whole = body.is_some_and(|body| crc32fast::hash(body) == header.crc);
            bytes[at + 38..at + 40].fill(0);
            if is_whole {
                let crc = crc32fast::hash(&bytes[at + 8..end]);
                bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            }
        }
        file.write_at(0, &bytes).unwrap();
    }
}

fn misdirect_a_write(seed: u64, then: Then, outcomes: &mut Outcomes) {
    let mut work = Work::new(seed);
    let before = work.random.u64(0..20);
    work.groups(before);
    work.bench.disk.misdirect_write(1, seed);
    let after = work.random.u64(1..20);
    work.groups(after);
    let hit = work.bench.disk.astray().unwrap();
    let end = End::pick(&mut work.random);
    let at = format!("seed {seed}, {end:?}, {then:?}, {before} before, {after} after, {hit:?}");
    for (partition, end) in &work.ends {
        for offset in 0..*end {
            Work::is_served(work.store(), *partition, offset, &at);
        }
    }
    work.stop(end);
    match then {
        Then::Nothing => {}
        Then::MarkLost => {
            let path = work.bench.config.data_dir.join("SYNCED");
            work.bench.disk.remove(&path).unwrap();
        }
        Then::OlderGroups => forget_places(&work),
    }
    let (refused, is_cut) = check(&work, &hit, (end, then), &at);
    outcomes.writes += 1;
    outcomes.named += u64::from(refused > 0);
    outcomes.tails_cut += u64::from(is_cut);
    outcomes.harmless += u64::from(refused == 0 && !is_cut);
    // The second start finds the same as the first.
    check(&work, &hit, (end, then), &format!("{at}, again"));
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
    // The first hits the header of an older segment, the second a group before others. The others repeat
    // groups: at an end that is sealed by the next start, and at the front of a segment.
    for seed in [1_000_025, 1_000_626, 2_000_742, 5_000_002] {
        misdirect_a_write(seed, Then::Nothing, &mut Outcomes::default());
    }
    // Only the repeated groups show that the end was overwritten.
    misdirect_a_write(3_001_416, Then::MarkLost, &mut Outcomes::default());
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
        misdirect_a_write(seed, Then::of(seed), &mut outcomes);
    }
    println!(
        "figures: misdirected_writes={} detected_with_range={} harmless={} unproven_tail_cut={} \
         wrong_bytes_served=0 refused_to_start=0",
        outcomes.writes, outcomes.named, outcomes.harmless, outcomes.tails_cut,
    );
}
