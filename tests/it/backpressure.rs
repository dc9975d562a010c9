//! A stuck reader behind the real client costs the broker no more than its configuration says.

use std::io::Write;

use crate::broker::{Broker, Running, background, small_flights};

const MIB: u64 = 1 << 20;
/// What the configuration below allows, and room for the allocator, stacks and the index.
const BOUND_BYTES: u64 = 4 * MIB + 2 * MIB + 4 * MIB + 14 * MIB;

#[test]
fn a_subscriber_that_stops_reading_and_a_publisher_that_never_stops_cost_bounded_memory() {
    let broker = Broker::start_with(&[
        "--set=limits.in_flight_bytes_total=4MiB",
        "--set=limits.in_flight_bytes_per_connection=4MiB",
        "--set=limits.batch_bytes_max=512KiB",
        "--set=limits.delivery_bytes_per_connection=1MiB",
        "--set=storage.cache_bytes=2MiB",
        "--set=storage.segment_bytes=32MiB",
    ]);
    broker.run(&["topic", "create", "flights"]);
    let (path, file) = small_flights();
    broker.run(&["publish", "flights", "--file", &path]);
    let before = broker.peak_rss_bytes();

    // Nobody reads the other end of this subscriber's pipe.
    let args = ["subscribe", "flights", "--from", "earliest"];
    let mut stuck = Running::start(&mut broker.command(&args));
    let mut publisher = Running::start(&mut broker.command(&["publish", "flights"]));
    let mut input = publisher.child.stdin.take().expect("it is piped");
    let rounds = 10 * BOUND_BYTES / file.len() as u64 + 1;
    let endless = background(move || {
        for _ in 0..rounds {
            input.write_all(&file).expect("the publisher goes on");
        }
    });
    let published = publisher.finish(b"");
    endless.join().expect("it ends with the publisher");
    assert_eq!(published.code, Some(0), "{}", published.stderr);

    let after = broker.peak_rss_bytes();
    let grown = after.saturating_sub(before);
    stuck.child.kill().expect("it is stuck");
    stuck.child.wait().expect("it is ours");
    assert!(
        grown < BOUND_BYTES,
        "{grown} bytes more for ten times {BOUND_BYTES} bytes of records"
    );
}
