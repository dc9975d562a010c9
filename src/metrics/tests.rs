use std::collections::BTreeSet;
use std::time::Duration;

use falcon_protocol::{ErrorCode, Kind};

use super::*;

#[test]
fn a_number_is_in_the_bucket_that_ends_at_or_after_it() {
    for (scale, value, bucket) in [
        (Scale::Count, 0, 0),
        (Scale::Count, 1, 0),
        (Scale::Count, 2, 1),
        (Scale::Count, 3, 2),
        (Scale::Count, 4, 2),
        (Scale::Count, 262_144, 18),
        (Scale::Count, 262_145, 19),
        (Scale::Micros, 64, 0),
        (Scale::Micros, 65, 1),
        (Scale::Micros, u64::MAX, 19),
    ] {
        let histogram = Histogram::default();
        histogram.record(scale, value);
        let (cumulated, count, sum) = histogram.value();
        assert_eq!((count, sum), (1, value));
        let below = cumulated.iter().filter(|count| **count == 0).count();
        assert_eq!(below, bucket, "{value} of {scale:?}");
        if let Some(end) = cumulated.iter().position(|count| *count == 1) {
            let end = u32::try_from(end).expect("small");
            assert!(value <= scale.end(end), "{value}");
            assert!(end == 0 || value > scale.end(end - 1), "{value}");
        }
    }
}

#[test]
fn every_kind_code_and_rejection_has_a_place_of_its_own() {
    let server = ServerMetrics::default();
    for kind in Kind::ALL {
        server.frames_received.of(*kind).add(1);
    }
    for kind in Kind::ALL {
        assert_eq!(server.frames_received.of(*kind).value(), 1);
    }
    for code in ErrorCode::ALL {
        server.refused(*code, None);
    }
    server.refused(ErrorCode::Other(999), None);
    assert!(server.errors.iter().all(|(_, count)| count == 1));
    for rejection in Rejection::ALL {
        server.rejections.add(*rejection);
    }
    assert!(server.rejections.iter().all(|(_, count)| count == 1));
}

#[test]
fn names_are_unique_and_say_what_they_count() {
    let names: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), TABLE.len());
    for metric in TABLE {
        assert!(metric.name.starts_with("falcon_"), "{}", metric.name);
        let is_total = metric.name.ends_with("_total");
        assert_eq!(
            is_total,
            metric.kind == MetricKind::Counter,
            "{}",
            metric.name
        );
    }
}

#[test]
fn a_beat_is_busy_only_within_a_turn() {
    let beat = Beat::default();
    assert_eq!(beat.busy_for(u64::MAX), Duration::ZERO);
    beat.begin();
    let later = clock::monotonic_ms() + 5_000;
    assert!(beat.busy_for(later) >= Duration::from_secs(4));
    beat.end();
    assert_eq!(beat.busy_for(later), Duration::ZERO);
}
