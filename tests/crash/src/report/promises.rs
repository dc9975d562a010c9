//! What Falcon promises, and what shows it.

use crate::checker::Violation;

/// A promise.
#[derive(Debug)]
pub struct Promise {
    /// In the words of the README.
    pub text: &'static str,
    /// What puts it to the test.
    pub shown: &'static [Shown],
}

/// One way to put a promise to the test.
#[derive(Debug)]
pub struct Shown {
    /// What happens to the broker.
    pub failure: &'static str,
    /// By what.
    pub by: Source,
    /// Where that is written, from the root of the sources.
    pub file: &'static str,
}

/// Where figures come from.
#[derive(Debug)]
pub enum Source {
    /// A test of every build; it has no figures.
    Test(&'static str),
    /// All kills and power cuts under load together, and what would break the promise.
    Load(&'static [Violation]),
    /// Kills, or power cuts on one file system.
    Campaign {
        /// As in the results.
        name: &'static str,
        /// What would break the promise. A control must find it.
        judged: &'static [Violation],
        /// Faults of a long run, at least.
        least: u64,
    },
    /// A trial.
    Trial {
        /// Its kind.
        name: &'static str,
        /// Figures that tell; all when it names none.
        figures: &'static [&'static str],
        /// A figure, and how much a long run has of it at least.
        least: Option<(&'static str, u64)>,
    },
}

const KILL: &str = "tests/crash/src/kill.rs";
const POWER: &str = "tests/crash/src/power.rs";
const POINTS: &str = "src/store/local/tests/points.rs";
const FLIP: &str = "src/store/local/tests/flip.rs";
const ROT: &str = "src/store/local/tests/rot.rs";
const FAULTS: &str = "src/store/local/tests/faults.rs";

/// Kills and power cuts under load, each of which has a row of its own in the first promise.
const fn load(judged: &'static [Violation]) -> Shown {
    Shown {
        failure: "the same kills and power cuts under load",
        by: Source::Load(judged),
        file: "tests/crash/src/checker.rs",
    }
}

/// A campaign, judged by what is there in the end.
const fn campaign(
    name: &'static str,
    failure: &'static str,
    least: u64,
    file: &'static str,
) -> Shown {
    Shown {
        failure,
        by: Source::Campaign {
            name,
            judged: &[Violation::Lost, Violation::Phantom],
            least,
        },
        file,
    }
}

/// A campaign with the protection off.
const fn control(name: &'static str, failure: &'static str, file: &'static str) -> Shown {
    Shown {
        failure,
        by: Source::Campaign {
            name,
            judged: &[Violation::Lost],
            least: 0,
        },
        file,
    }
}

/// A test of every build.
const fn test(failure: &'static str, name: &'static str, file: &'static str) -> Shown {
    Shown {
        failure,
        by: Source::Test(name),
        file,
    }
}

/// A trial with all its figures.
const fn trial(failure: &'static str, name: &'static str, file: &'static str) -> Shown {
    Shown {
        failure,
        by: Source::Trial {
            name,
            figures: &[],
            least: None,
        },
        file,
    }
}

/// Decoding of damaged and arbitrary bytes.
const fn fuzz(failure: &'static str, name: &'static str) -> Shown {
    trial_of(
        failure,
        name,
        "tests/crash/src/fuzz.rs",
        ("inputs_per_decoder", 100_000_000),
    )
}

/// A trial of which a long run has at least so much of a figure.
const fn trial_of(
    failure: &'static str,
    name: &'static str,
    file: &'static str,
    least: (&'static str, u64),
) -> Shown {
    Shown {
        failure,
        by: Source::Trial {
            name,
            figures: &[],
            least: Some(least),
        },
        file,
    }
}

/// All promises that are tested.
pub const PROMISES: &[Promise] = &[
    Promise {
        text: "An acknowledged record is never lost",
        shown: &[
            campaign(
                "kill",
                "SIGKILL at random moments under load, also during starts and stops",
                1_000,
                KILL,
            ),
            campaign("power-ext4", "power cuts under load, on ext4", 300, POWER),
            campaign("power-xfs", "power cuts under load, on xfs", 300, POWER),
        ],
    },
    Promise {
        text: "The control without sync loses records",
        shown: &[
            control(
                "power-ext4-control",
                "power cuts with syncs switched off, on ext4",
                POWER,
            ),
            control(
                "power-xfs-control",
                "power cuts with syncs switched off, on xfs",
                POWER,
            ),
            control(
                "kill-control",
                "the journal's end removed before each start",
                KILL,
            ),
        ],
    },
    Promise {
        text: "An idempotent publisher makes no duplicates",
        shown: &[
            load(&[Violation::Duplicate]),
            trial_of(
                "a proxy cuts connections while batches are under way, the broker is killed before it answers",
                "retried-publishes",
                "tests/crash/src/retried.rs",
                ("retried", 1_000_000),
            ),
            test(
                "a batch is sent again after a restart",
                "a_batch_sent_again_after_a_restart_is_a_duplicate",
                "src/writer/tests.rs",
            ),
            test(
                "the answer is lost",
                "a_lost_answer_leads_to_the_same_bytes_again_and_one_receipt",
                "client/tests/it/publishing.rs",
            ),
        ],
    },
    Promise {
        text: "An atomic step is there whole or not at all, once: results and the position they came from",
        shown: &[trial_of(
            "the payment pipeline of the examples, its parts and the broker killed at random while it works: each balance exact",
            "payments",
            "tests/crash/src/payments.rs",
            ("kills", 200),
        )],
    },
    Promise {
        text: "A committed offset never goes back",
        shown: &[load(&[Violation::CommitRegression])],
    },
    Promise {
        text: "Of the members of a group one owns a partition, and none waits long for an owner; no record is skipped, \
               none committed before it is handled, and what a step publishes is there exactly once",
        shown: &[trial_of(
            "members join, leave, die, freeze, stall and come back under their names, brokers die, under load",
            "rebalances",
            "tests/crash/src/rebalances.rs",
            ("rebalances", 1_000),
        )],
    },
    Promise {
        text: "A topic that was created is there, one that was deleted stays away, and nothing of it is in the next of its name",
        shown: &[load(&[
            Violation::TopicLost,
            Violation::TopicReturned,
            Violation::TopicNumberReused,
            Violation::TopicMixed,
            Violation::TopicSettings,
        ])],
    },
    Promise {
        text: "Offsets are dense, final and the same for everybody; records of one publisher keep their order",
        shown: &[load(&[
            Violation::Gap,
            Violation::OffsetMismatch,
            Violation::Reordered,
        ])],
    },
    Promise {
        text: "Subscribers see only what is durable",
        shown: &[load(&[Violation::ReadBeforeDurable])],
    },
    Promise {
        text: "Recovery finds what was durable, groups whole and in order, and nothing else",
        shown: &[
            trial_of(
                "the power goes after every step of the device, and inside a write at every sector",
                "crash-points",
                POINTS,
                ("operations", 5000),
            ),
            test(
                "a killed broker leaves groups that were never synced",
                "groups_of_a_killed_broker_are_synced_before_they_count",
                "src/store/local/tests/crash.rs",
            ),
            test(
                "a torn group lies behind the end",
                "bytes_of_a_torn_group_are_cut_and_never_come_back",
                ROT,
            ),
        ],
    },
    Promise {
        text: "Damage is reported, never hidden: it is named by exact offsets, refused, and the rest stays readable",
        shown: &[
            trial_of(
                "one bit flips anywhere in a data folder, the index included, after three ways to stop",
                "bit-flips",
                FLIP,
                ("bits_flipped", 10_000),
            ),
            trial(
                "a device lies: syncs do nothing, writes and reads go to the wrong place",
                "misdirected",
                "src/store/local/tests/untrue.rs",
            ),
            test(
                "the device refuses to read",
                "what_the_device_refuses_to_read_is_named_and_the_rest_is_served",
                ROT,
            ),
            test(
                "the journal's end is gone after a clean stop",
                "a_tail_lost_after_a_clean_stop_is_rot_and_named",
                ROT,
            ),
            test(
                "a segment is gone",
                "a_missing_segment_is_named_by_the_read",
                ROT,
            ),
            test(
                "a client is given damaged bytes",
                "a_corrupt_delivery_is_an_error_and_never_data",
                "client/tests/it/subscribing.rs",
            ),
        ],
    },
    Promise {
        text: "After a failed sync nothing is acknowledged until a restart",
        shown: &[
            trial_of(
                "a sync fails, once or from then on",
                "sync-failures",
                "src/writer/tests/sync_failures.rs",
                ("sync_failure_points", 500),
            ),
            trial(
                "a real device answers a sync with EIO",
                "eio-on-sync",
                "tests/crash/src/power/eio.rs",
            ),
            test(
                "a sync fails with publishes waiting",
                "nothing_is_acknowledged_after_a_failed_sync",
                "src/writer/tests.rs",
            ),
            test(
                "the next sync would succeed",
                "a_failed_sync_is_final",
                FAULTS,
            ),
        ],
    },
    Promise {
        text: "A full disk refuses publishes, loses nothing, and publishing goes on by itself",
        shown: &[
            trial_of(
                "a file system is filled and drained again and again",
                "disk-full",
                "tests/crash/src/full.rs",
                ("cycles", 50),
            ),
            test(
                "the device is full in the middle of a group",
                "a_full_device_refuses_batches_and_takes_them_again_when_space_returns",
                FAULTS,
            ),
        ],
    },
    Promise {
        text: "A file system that turns read-only ends writing, not reading",
        shown: &[trial(
            "the file system is remounted read-only under load",
            "read-only",
            "tests/crash/src/read_only.rs",
        )],
    },
    Promise {
        text: "No bytes of a peer or a disk make a decoder panic or take memory beyond its limit",
        shown: &[
            fuzz("damaged and arbitrary frames", "fuzz-frames"),
            fuzz("damaged and arbitrary messages", "fuzz-messages"),
            fuzz("damaged and arbitrary record batches", "fuzz-batches"),
            fuzz("damaged and arbitrary journals", "fuzz-journal"),
            fuzz("damaged and arbitrary footers", "fuzz-footers"),
            fuzz("damaged and arbitrary values of the index", "fuzz-index"),
            fuzz("damaged and arbitrary rows of tables", "fuzz-rows"),
        ],
    },
    Promise {
        text: "Memory is bounded, whatever publishers, slow subscribers or strangers on the port do",
        shown: &[
            trial(
                "peers that flood, stall, trickle and lie",
                "abuse",
                "tests/crash/src/abuse.rs",
            ),
            test(
                "a publisher that never stops, and subscribers that never read",
                "a_publisher_that_never_stops_and_subscribers_that_never_read_cost_bounded_memory",
                "tests/it/memory.rs",
            ),
            test(
                "large batches for fetches that ask for little",
                "fetches_that_ask_for_little_and_get_large_batches_stay_within_the_budget",
                "tests/it/memory.rs",
            ),
            trial("an hour of work", "soak", "tests/crash/src/soak.rs"),
        ],
    },
    Promise {
        text: "The index never holds the only copy of anything",
        shown: &[
            test(
                "the sled index is deleted or overwritten with garbage",
                "an_index_that_is_gone_or_garbage_is_built_again",
                ROT,
            ),
            trial("one bit flips in it", "bit-flips", FLIP),
        ],
    },
    Promise {
        text: "A data folder of format 1 is served by every version; a newer one is refused and not touched",
        shown: &[
            test(
                "an upgrade after a clean stop",
                "a_folder_of_format_1_is_served_exactly",
                "tests/it/formats.rs",
            ),
            test(
                "an upgrade after a kill",
                "a_folder_of_format_1_that_was_not_stopped_is_served_exactly",
                "tests/it/formats.rs",
            ),
            test(
                "a downgrade",
                "a_newer_format_is_refused_and_not_touched",
                "tests/it/formats.rs",
            ),
        ],
    },
    Promise {
        text: "`verify` names every damage and changes nothing, `salvage` saves what is readable, `doctor` checks the machine",
        shown: &[
            test(
                "one flipped bit",
                "a_flipped_bit_is_named_by_partition_and_offsets",
                "tests/it/verify.rs",
            ),
            test(
                "damage in the middle of many segments",
                "damage_in_the_middle_of_many_segments_is_named",
                "tests/it/verify.rs",
            ),
            test(
                "holes in a folder",
                "holes_stay_holes_and_are_refused",
                "tests/it/salvage.rs",
            ),
            test(
                "IDENTITY or a segment is gone",
                "a_folder_without_identity_or_with_a_segment_gone_can_be_saved",
                "tests/it/salvage.rs",
            ),
            test(
                "too little space",
                "it_fails_where_a_broker_would_refuse_publishes",
                "tests/it/doctor.rs",
            ),
        ],
    },
];
