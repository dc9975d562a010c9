//! The metrics that operators watch, on a broker under load: each moves, and no counter goes back.

use std::collections::BTreeMap;

use crate::bench::endless;
use crate::broker::{Broker, eventually};
use crate::exposition::Scrape;
use crate::watching::{get, scrape};

/// What grows while records are published and read, and what it is for.
const GROWING: [&str; 9] = [
    "falcon_sync_seconds_count",
    "falcon_sync_seconds_sum",
    "falcon_commit_group_batches_count",
    "falcon_commit_group_batches_sum",
    "falcon_queue_wait_seconds_count",
    "falcon_queue_wait_seconds_sum",
    "falcon_request_seconds_count{kind=\"Publish\"}",
    "falcon_request_seconds_sum{kind=\"Publish\"}",
    "falcon_cache_hits_total",
];
const LAG: &str = "falcon_group_lag_records{group=\"behind\",topic=\"loaded\",partition=\"0\"}";
const REFUSED: &str = "falcon_errors_total{code=\"unknown_topic\"}";

#[test]
fn what_operators_watch_moves_under_load_and_no_counter_goes_back() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "loaded"]);
    broker.run(&[
        "offsets",
        "set",
        "behind",
        "loaded",
        "--partition",
        "0",
        "--to",
        "offset:0",
    ]);
    // Some series are there once something happened.
    broker.run_with(&["publish", "loaded"], b"first\n");
    let idle = scrape(&broker);
    for series in GROWING.iter().chain([&"falcon_connections", &REFUSED]) {
        idle.get(series);
    }
    let load = [
        "scale",
        "--topic",
        "loaded",
        "--connections",
        "3",
        "--timeout",
        "60s",
    ];
    let mut running = endless(&broker, &load);

    let mut last = scrape(&broker);
    let mut most: BTreeMap<&str, f64> = BTreeMap::new();
    eventually("everything was seen to move", || {
        let now = scrape(&broker);
        assert_no_counter_goes_back(&last, &now);
        last = now;
        for gauge in ["falcon_in_flight_bytes", "falcon_connections", LAG] {
            let before = most.get(gauge).copied().unwrap_or_default();
            most.insert(gauge, before.max(last.get(gauge)));
        }
        // Readers beside the load: their first read finds the newest batches in the cache.
        let newest = ["subscribe", "loaded", "--from", "last:1", "--count", "1"];
        broker.run(&newest);
        most["falcon_in_flight_bytes"] > 0.0
            && most["falcon_connections"] > 3.5
            && most[LAG] > 0.5
            && GROWING
                .iter()
                .all(|series| last.get(series) > idle.get(series))
    });
    // Many tasks share a sync.
    let batches = last.get("falcon_commit_group_batches_sum");
    assert!(batches > last.get("falcon_commit_group_batches_count"));
    assert!(last.get("falcon_in_flight_bytes") <= last.get("falcon_in_flight_limit_bytes"));
    assert_eq!(get(&broker, "/livez"), (200, "alive\n".into()));
    assert_eq!(get(&broker, "/readyz"), (200, "ready\n".into()));
    let refused = broker.try_run(&["topic", "describe", "missing"]);
    refused.expect_failure(1, &["missing"]);
    assert!((scrape(&broker).get(REFUSED) - idle.get(REFUSED) - 1.0).abs() < 0.5);

    running.child.kill().expect("it is running");
    running.child.wait().expect("it is ours");
    eventually("nothing is in flight any more", || {
        let now = scrape(&broker);
        now.get("falcon_in_flight_bytes") < 0.5 && now.get("falcon_connections") < 0.5
    });
}

fn assert_no_counter_goes_back(before: &Scrape, now: &Scrape) {
    for (family, kind) in &before.families {
        if kind == "gauge" {
            continue;
        }
        for series in before.beginning(family) {
            let (then, now) = (before.get(series), now.get(series));
            assert!(now >= then, "{series} went from {then} to {now}");
        }
    }
}
