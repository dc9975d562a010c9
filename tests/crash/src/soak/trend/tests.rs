use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const EVERY: u32 = 5;
const MIB: f64 = 1_048_576.0;

#[test]
fn a_line_is_found_through_noise() {
    let noise = [3.0, -3.0, -3.0, 3.0];
    let points = (0..400).map(|n| (f64::from(n), 100.0 + f64::from(n) * 0.5));
    let points: Vec<_> = points
        .zip(noise.into_iter().cycle())
        .map(|((x, y), noise)| (x, y + noise))
        .collect();
    let line = fit(&points).expect("times differ");
    assert!((line.slope - 0.5).abs() < 1e-3, "{line:?}");
    assert!((line.mean - 199.75).abs() < 1e-6, "{line:?}");
}

#[test]
fn one_moment_has_no_slope() {
    assert_eq!(fit(&[(1.0, 2.0), (1.0, 3.0)]), None);
    assert_eq!(fit(&[]), None);
}

/// Rises from 0 to 1 in a period, then falls.
fn saw(seconds: f64, period: f64) -> f64 {
    seconds % period / period
}

/// What a sound broker shows: it fills, then all goes up and down.
fn sound(column: Column, seconds: f64) -> f64 {
    let filled = (seconds / 240.0).min(1.0);
    match column {
        Column::Rss => (60.0 * filled + 12.0 + 9.0 * saw(seconds, 170.0)) * MIB,
        // Whole segments.
        Column::Disk => ((15.0 * filled + 6.0 * saw(seconds, 97.0)).floor() * 8.0) * MIB,
        Column::IndexDisk => (6.0 * filled + 4.0 * saw(seconds, 61.0)).floor() * MIB / 2.0,
        Column::OpenFiles => 70.0 + (20.0 * saw(seconds, 37.0)).floor(),
        Column::Threads => 18.0 + (seconds / 60.0).max(1.0).ln().floor(),
        Column::RssMax
        | Column::Connections
        | Column::JournalDisk
        | Column::Live
        | Column::Acked
        | Column::Read
        | Column::CpuMs => 1.0,
    }
}

fn judged(value: impl Fn(Column, f64) -> f64) -> Vec<String> {
    let times = (0..3_600 / EVERY).map(|n| f64::from(n * EVERY));
    let samples = Samples::made(times, value);
    let mut findings = Findings::default();
    judge(&samples, HOUR, &mut findings);
    findings.broken
}

#[test]
fn what_goes_up_and_down_is_flat() {
    assert_eq!(judged(sound), Vec::<String>::new());
}

#[test]
fn a_leak_is_found_behind_what_goes_up_and_down() {
    for (leaking, in_an_hour) in [
        (Column::Rss, 35_000.0 * 200.0),
        (Column::Disk, 6.0 * 8.0 * MIB),
        (Column::IndexDisk, 4.0 * MIB),
        (Column::OpenFiles, 20.0),
        (Column::Threads, 20.0),
    ] {
        let broken = judged(|column, seconds| {
            let kept = in_an_hour * seconds / HOUR.as_secs_f64();
            sound(column, seconds) + if column == leaking { kept.floor() } else { 0.0 }
        });
        let [only] = broken.as_slice() else {
            panic!("{leaking:?}: {broken:?}");
        };
        assert!(only.starts_with(leaking.name()), "{only}");
    }
}

#[test]
fn what_shrinks_is_no_leak_and_what_was_not_seen_is_no_verdict() {
    let shrinking = judged(|column, seconds| sound(column, seconds) * (1.0 - seconds / 7_200.0));
    assert_eq!(shrinking, Vec::<String>::new());
    let mut findings = Findings::default();
    let none = Samples::made(std::iter::empty(), sound);
    judge(&none, HOUR, &mut findings);
    assert_eq!(findings.broken, ["too short to be judged"]);
}
