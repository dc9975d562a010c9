use std::time::Duration;

use falcon_protocol::{MemberId, Offset, OwnerEpoch, Partition, PartitionId};

use super::options::{OnError, Order, RetryPolicy, Verdict};
use super::schedule::Schedule;
use crate::clock;
use crate::consumer::Grant;
use crate::consumer::grant::Hold;
use crate::subscription::Delivered;

fn record(partition: u32, offset: u64, key: Option<&'static str>) -> Delivered {
    Delivered {
        topic: "orders".into(),
        partition: Partition(partition),
        offset: Offset(offset),
        timestamp_ms: 0,
        append_time_ms: 0,
        key: key.map(Into::into),
        value: None,
        headers: Vec::new(),
        grant: Some(Grant {
            member: MemberId(1),
            hold: Hold {
                partition: PartitionId::new(1, partition),
                epoch: OwnerEpoch(1),
            },
            version: 0,
        }),
    }
}

#[test]
fn records_of_a_key_wait_for_each_other_and_no_others_do() {
    let now = clock::now();
    let mut schedule = Schedule::new(Order::Key);
    schedule.push(record(0, 0, Some("a")));
    schedule.push(record(0, 1, Some("a")));
    schedule.push(record(0, 2, Some("b")));
    schedule.push(record(0, 3, None));
    schedule.push(record(0, 4, None));
    let begun: Vec<_> = std::iter::from_fn(|| schedule.begin(now)).collect();
    let offsets: Vec<u64> = begun.iter().map(|job| job.record.offset.get()).collect();
    assert_eq!(offsets, [0, 2, 3]);
    schedule.done(&begun[0]);
    assert_eq!(schedule.begin(now).unwrap().record.offset, Offset(1));
    assert!(schedule.begin(now).is_none());
    schedule.done(&begun[2]);
    assert_eq!(schedule.begin(now).unwrap().record.offset, Offset(4));
}

#[test]
fn in_order_of_partitions_one_of_each_is_handled_at_a_time() {
    let now = clock::now();
    let mut schedule = Schedule::new(Order::Partition);
    for offset in 0..3 {
        schedule.push(record(0, offset, Some("a")));
        schedule.push(record(1, offset, Some("b")));
    }
    assert_eq!(schedule.startable(), 2);
    let first = schedule.begin(now).unwrap();
    assert_eq!(schedule.begin(now).unwrap().record.partition, Partition(1));
    assert!(schedule.begin(now).is_none());
    schedule.done(&first);
    assert_eq!(schedule.begin(now).unwrap().record.offset, Offset(1));
}

#[test]
fn a_retry_keeps_its_line_and_nobody_elses_place() {
    let now = clock::now();
    let due = now + Duration::from_secs(1);
    let mut schedule = Schedule::new(Order::Key);
    schedule.push(record(0, 0, Some("a")));
    schedule.push(record(0, 1, Some("a")));
    schedule.push(record(0, 2, Some("b")));
    let failed = schedule.begin(now).unwrap();
    schedule.again(failed, due);
    assert_eq!(schedule.next_due(), Some(due));
    assert_eq!(schedule.begin(now).unwrap().record.offset, Offset(2));
    assert!(schedule.begin(now).is_none(), "its line waits with it");
    let again = schedule.begin(due).unwrap();
    assert_eq!((again.record.offset, again.attempts), (Offset(0), 1));
    schedule.done(&again);
    assert_eq!(schedule.begin(now).unwrap().record.offset, Offset(1));
}

#[test]
fn retries_wait_twice_as_long_each_time_until_they_stop_or_skip() {
    let ms = Duration::from_millis;
    let policy = RetryPolicy::new(ms(10)).longest(ms(30)).attempts(4);
    let verdicts = |policy| (0..4).map(move |before| OnError::Retry(policy).verdict(before));
    let waits = [10, 20, 30].map(|wait| Verdict::Again(ms(wait)));
    assert!(verdicts(policy).eq(waits.into_iter().chain([Verdict::Stop])));
    assert!(verdicts(policy.then_skip()).next_back() == Some(Verdict::Skip));
    let for_ever = RetryPolicy::new(ms(10)).longest(ms(30));
    assert_eq!(
        OnError::Retry(for_ever).verdict(u32::MAX),
        Verdict::Again(ms(30))
    );
}
