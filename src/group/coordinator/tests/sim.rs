//! The real coordinator and real members against each other, in virtual time, with seeded faults.
//!
//! One seed is one history: messages that are late, lost, doubled and overtaken; a broker that restarts and
//! keeps only fences and offsets, with commits and fences whose answers are lost; members that crash, freeze
//! and wake with all they had queued, hang in a handler, leave, join, share an instance name; topics that come,
//! grow and go; forced resets and deletions. Then quiet. What must hold, and who checks it:
//!
//! * An epoch of a partition has one holder for ever, and no holder before its fence is durable (`granted`).
//! * A grant starts at the committed offset of that moment: nothing is skipped, nothing committed is read again.
//! * A commit that is accepted covers only records handled under the fence in force since it was set; the
//!   committed offset goes back only by a reset (`Writer::commit`).
//! * What an answer does not take away is held under the latest fence the coordinator knows (`confirmed`).
//! * Every call is answered once, within a third of its session and a second, unless the broker goes.
//! * Ownerless: a partition is *served* while a member holds it under the fence in force and neither froze nor
//!   crashed nor was cut off; handlers that hang do not matter. From the moment it is not served and a healthy
//!   member wants it, it is served again within the longest session and a second. Counted anew: when the
//!   broker comes up, loses a fence's answer or refuses one for no reason; and when a member that the partition
//!   waits for was disturbed (froze, woke, crashed, was cut off, lost a message), which costs one session each. While
//!   the coordinator knows of nobody who wants it, that is the member which was left in peace for longest: its join
//!   is on the way.
//! * After the last fault, within two sessions and five seconds: every wanted partition is served, shares are
//!   equal as the assignor promises, and for another session no fence changes.
//!
//! `FALCON_GROUP_SEEDS` is how many seeds, `FALCON_GROUP_SEED` one alone.

mod judge;
mod peer;
mod world;
mod writer;

use world::World;

/// How many seeds when nobody says.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.trouble();
    world.quiet();
    world.trace
}

#[test]
fn whatever_happens_one_owner_nothing_skipped_and_nobody_waits_too_long() {
    let one = number("FALCON_GROUP_SEED");
    let (from, to) = match one {
        Some(seed) => (seed, seed + 1),
        None => (0, number("FALCON_GROUP_SEEDS").unwrap_or(SEEDS)),
    };
    let fails = |seed: &u64| std::panic::catch_unwind(|| run(*seed)).is_err();
    let failed: Vec<u64> = (from..to).filter(fails).collect();
    let replay =
        "FALCON_GROUP_SEED=N cargo nextest run -p falcon --lib group::coordinator::tests::sim";
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {failed:?}; replay: {replay}",
        failed.len(),
        to - from
    );
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}
