use super::*;

const SEGMENT_BYTES: u64 = 128 << 20;
const PERIOD: Duration = Duration::from_secs(10);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How many segments of those that wait are removed in a second, looked at every 50 ms.
fn removed_in_a_second(pace: &mut Pace, from: Instant) -> usize {
    let looks = (1..=20).map(|look| from.after(ms(50 * look)));
    let waiting = looks.flat_map(|now| [now; 3]);
    waiting
        .filter(|now| pace.may_remove(SEGMENT_BYTES, *now))
        .count()
}

#[test]
fn a_busy_broker_removes_one_segment_a_second_and_an_idle_one_sixteen() {
    let start = Instant::now();
    let mut pace = Pace::new(PERIOD, start);
    pace.note(Some(7), start);
    assert!(
        pace.may_remove(SEGMENT_BYTES, start),
        "the first one waits for nothing"
    );
    assert_eq!(removed_in_a_second(&mut pace, start), 1);
    pace.note(Some(8), start.after(ms(1_000)));
    assert_eq!(removed_in_a_second(&mut pace, start.after(ms(1_000))), 1);
    // No segment was begun for two seconds.
    let idle = start.after(ms(3_000));
    pace.note(Some(8), idle);
    let removed = removed_in_a_second(&mut pace, idle);
    assert!((8..=17).contains(&removed), "{removed}");
}

#[test]
fn as_many_stay_as_were_begun_lately_and_none_after_a_pause() {
    let start = Instant::now();
    let mut pace = Pace::new(PERIOD, start);
    pace.note(Some(1_000), start);
    assert_eq!(pace.reserve(), 0, "a start found them");
    // Two a second.
    let mut at = start;
    for newest in 1_001..=1_200 {
        at = at.after(ms(500));
        pace.note(Some(newest), at);
        let begun = usize::try_from(newest - 1_000).unwrap().min(20);
        assert!(
            (begun..=20).contains(&pace.reserve()),
            "{newest}: {}",
            pace.reserve()
        );
    }
    pace.note(Some(1_200), at.after(PERIOD));
    pace.note(Some(1_200), at.after(PERIOD * 2));
    assert_eq!(pace.reserve(), 0);
}

#[test]
fn a_long_sleep_counts_as_a_pause() {
    let start = Instant::now();
    let mut pace = Pace::new(PERIOD, start);
    pace.note(Some(1), start);
    pace.note(Some(50), start.after(ms(9_000)));
    assert_eq!(pace.reserve(), 49);
    pace.note(Some(50), start.after(PERIOD * 5));
    assert_eq!(pace.reserve(), 0);
}
