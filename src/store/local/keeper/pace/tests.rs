use super::*;

const PERIOD: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_broker_that_writes_has_longer_pauses_between_pieces_than_an_idle_one() {
    let start = Instant::now();
    let mut pace = Pace::new((PERIOD, BUSY), start);
    let busy = start.after(ms(1_999));
    pace.note((Some(7), 100), start);
    assert_eq!(pace.pause_after(ms(1), busy), PAUSE);
    let slow = pace.pause_after(ms(10), busy);
    assert_eq!(slow, ms(40), "a slow device gets more time for others");
    assert_eq!(pace.pause_after(ms(20_000), busy), PAUSE_MAX);
    let idle = start.after(ms(2_000));
    assert_eq!(pace.pause_after(ms(0), idle), IDLE_PAUSE);
    assert_eq!(pace.pause_after(ms(10), idle), ms(10));
    // Another group in the same segment.
    pace.note((Some(7), 101), start.after(ms(3_000)));
    assert_eq!(pace.pause_after(ms(1), start.after(ms(3_001))), PAUSE);
    pace.note((Some(7), 101), start.after(ms(5_000)));
    assert_eq!(pace.pause_after(ms(0), start.after(ms(5_001))), IDLE_PAUSE);
}

#[test]
fn as_many_stay_as_were_begun_lately_and_none_after_a_pause() {
    let start = Instant::now();
    let mut pace = Pace::new((PERIOD, BUSY), start);
    pace.note((Some(1_000), 0), start);
    assert_eq!(pace.reserve(), 0, "a start found them");
    // Two a second.
    let mut at = start;
    for newest in 1_001..=1_200 {
        at = at.after(ms(500));
        pace.note((Some(newest), 0), at);
        let begun = usize::try_from(newest - 1_000).unwrap().min(20);
        assert!(
            (begun..=20).contains(&pace.reserve()),
            "{newest}: {}",
            pace.reserve()
        );
    }
    pace.note((Some(1_200), 0), at.after(PERIOD));
    pace.note((Some(1_200), 0), at.after(PERIOD * 2));
    assert_eq!(pace.reserve(), 0);
}

#[test]
fn a_long_sleep_counts_as_a_pause() {
    let start = Instant::now();
    let mut pace = Pace::new((PERIOD, BUSY), start);
    pace.note((Some(1), 0), start);
    pace.note((Some(50), 0), start.after(ms(9_000)));
    assert_eq!(pace.reserve(), 49);
    pace.note((Some(50), 0), start.after(PERIOD * 5));
    assert_eq!(pace.reserve(), 0);
}
