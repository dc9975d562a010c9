use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::campaign::Section;
use crate::checker::{Counts, Violation};
use crate::results::{Machine, Repeated};
use crate::scale::ScaleReport;
use crate::trial::{KINDS, Trial};

/// Trials that promises name and nobody has built yet. A kind leaves this list when it enters
/// [`KINDS`].
const AWAITED: &[&str] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn all_shown() -> impl Iterator<Item = &'static Shown> {
    PROMISES.iter().flat_map(|promise| promise.shown)
}

#[test]
fn the_committed_page_is_what_the_committed_results_generate() {
    let folder = root().join("docs/durability");
    let published = Published::read(&folder.join(RESULTS)).unwrap();
    let page = render(&published, &Words::read(&folder).unwrap());
    let is_same = page == text("docs/DURABILITY.md");
    assert!(
        is_same,
        "docs/DURABILITY.md is old: run tests/crash/run report"
    );
}

#[test]
fn what_promises_name_is_there() {
    let published = Published::read(&root().join("docs/durability").join(RESULTS)).unwrap();
    let is_kind = |name: &str| KINDS.iter().any(|kind| kind.name == name);
    let is_section = |name: &str| published.results.sections.iter().any(|s| s.name == name);
    for shown in all_shown() {
        let text = text(shown.file);
        match shown.by {
            Source::Test(name) => {
                let is_there = text.contains(&format!("fn {name}("));
                assert!(is_there, "{} has no test {name}", shown.file);
            }
            Source::Load(_) => {}
            Source::Campaign { name, .. } => assert!(is_section(name), "no campaign {name}"),
            Source::Trial { name, .. } => {
                let is_there = is_kind(name) || AWAITED.contains(&name);
                assert!(is_there, "there is no trial {name}");
            }
        }
    }
    for name in AWAITED {
        assert!(!is_kind(name), "{name} is there: AWAITED must not name it");
    }
}

#[test]
fn every_kind_of_trial_shows_a_promise() {
    let is_named = |kind: &str| {
        all_shown().any(|shown| matches!(shown.by, Source::Trial { name, .. } if name == kind))
    };
    for kind in KINDS {
        assert!(
            is_named(kind.name),
            "no promise names the trial {}",
            kind.name
        );
    }
}

fn section(name: &str) -> Section {
    Section {
        name: name.to_owned(),
        status: Status::Passed,
        reason: None,
        is_control: name.ends_with("-control"),
        seed: 7,
        seeds_with_findings: Vec::new(),
        rounds: 2,
        faults: 1_078,
        power_cuts: 0,
        faults_at_events: 4,
        faults_during_start: 1,
        faults_during_stop: 2,
        clean_stops: 3,
        inspections: 2,
        counts: Counts {
            acked: 1_234_567,
            ..Counts::default()
        },
        violations: BTreeMap::new(),
        said: Vec::new(),
        complaints: 0,
        start_ms_max: 40,
        seconds: 90,
    }
}

fn trial(name: &str, figures: &[(&str, u64)]) -> Trial {
    let figures = figures
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    Trial {
        name: name.to_owned(),
        status: Status::Passed,
        reason: None,
        seed: 7,
        figures: figures.collect(),
        said: Vec::new(),
        seconds: 12,
    }
}

fn results(sections: Vec<Section>, trials: Vec<Trial>) -> Results {
    Results {
        date: "2026-01-02T03:04:05Z".to_owned(),
        length: "long".to_owned(),
        commit: "0123456789ab".to_owned(),
        machine: Machine {
            processors: 2,
            processor: "A Processor".to_owned(),
            kernel: "6.1".to_owned(),
            memory: "8 kB".to_owned(),
        },
        seed: 7,
        sections,
        trials,
        judge: ScaleReport {
            records: 1_000_000,
            milliseconds: 2_388,
            peak_memory_bytes: Some(1 << 30),
            is_clean: true,
        },
        repeated: BTreeMap::new(),
    }
}

#[track_caller]
fn expect(page: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(page.contains(wanted), "no {wanted:?} in:\n{page}");
    }
}

fn page(results: &Results) -> String {
    render(&published(results), &Words::default())
}

fn published(results: &Results) -> Published {
    Published::parse(&serde_json::to_string(results).unwrap()).unwrap()
}

#[test]
fn a_campaign_says_how_often_each_promise_was_broken() {
    let mut control = section("kill-control");
    control.violations.insert(Violation::Lost, 6_231);
    let page = page(&results(vec![section("kill"), control], Vec::new()));
    expect(
        &page,
        &[
            "1,078 kills, 1,234,567 acked: lost **0**, phantom **0** |",
            "removed before each start | [`tests/crash/run kill --control`](../tests/crash/src/kill.rs) | \
             1,078 kills, 1,234,567 acked: lost **6,231** |",
            "power cuts under load, on ext4 | [`tests/crash/run power --filesystem ext4 --cycles 300`]",
            "| not in this run |",
            "`tests/crash/run --long --seed 7`",
        ],
    );
    assert!(!page.contains("short"), "{page}");
    assert!(!page.contains("FAILED"), "{page}");
}

#[test]
fn a_failure_is_said_wherever_its_figures_would_be() {
    let mut kill = section("kill");
    kill.status = Status::Failed;
    kill.violations.insert(Violation::Gap, 3);
    kill.complaints = 1;
    kill.said.push("gap: offset 17 | is\nleft out".to_owned());
    let mut full = trial("disk-full", &[("acked_lost", 4)]);
    full.status = Status::Failed;
    full.said.push("4 records are lost".to_owned());
    let mut stopped = trial("read-only", &[]);
    stopped.status = Status::Failed;
    stopped.reason = Some("mount: no".to_owned());
    let page = page(&results(vec![kill], vec![full, stopped]));
    expect(
        &page,
        &[
            "> **This run failed:** `kill`, `disk-full`, `read-only`.",
            "**FAILED** - 1,078 kills, 1,234,567 acked: lost **0**, phantom **0** |",
            "**FAILED** `kill` - 1,078 kills, 0 power cuts, 1,234,567 acked: gap **3**, offset mismatch **0**",
            "| Found | gap 3, errors in logs or starts 1 |",
            "**FAILED** - acked lost **4**, cycles unknown |",
            "**FAILED**: mount: no",
            "### What failed\n\n`kill`:\n\n    gap: offset 17 | is\n    left out\n",
            "`disk-full`:\n\n    4 records are lost",
        ],
    );
}

#[test]
fn a_skip_says_why_and_is_no_pass() {
    let mut cuts = section("power-ext4");
    cuts.status = Status::Skipped;
    cuts.reason = Some("needs root".to_owned());
    let mut full = trial("disk-full", &[]);
    full.status = Status::Skipped;
    full.reason = Some("no loop devices".to_owned());
    let page = page(&results(vec![section("kill"), cuts], vec![full]));
    let row = "| [`tests/crash/run trial disk-full`](../tests/crash/src/full.rs) | skipped: no loop devices |";
    expect(
        &page,
        &[
            "--cycles 300`](../tests/crash/src/power.rs) | skipped: needs root |",
            row,
        ],
    );
    expect(
        &page,
        &[
            "| Skipped | 2 |",
            "skipped `power-ext4` - 1,078 kills, 0 power cuts",
        ],
    );
    assert_eq!(page.matches("passed").count(), 1, "{page}");
}

#[test]
fn what_is_less_than_a_long_run_has_is_said() {
    let mut kill = section("kill");
    kill.faults = 60;
    let flips = trial("bit-flips", &[("bits_flipped", 240)]);
    let other = trial("crash-points", &[("images", 5)]);
    let mut results = results(vec![kill], vec![flips, other]);
    results.length = "short".to_owned();
    expect(
        &page(&results),
        &[
            "> **These are the figures of a short run**",
            "60 kills (a long run: at least 1,000), ",
            "bits flipped **240** (a long run: at least 10,000)",
            "images **5**, operations unknown",
        ],
    );
}

#[test]
fn trials_that_no_promise_names_are_shown_with_all_figures() {
    let unknown = trial("gremlins", &[("cables_bitten", 1_000), ("acked", 0)]);
    let page = page(&results(Vec::new(), vec![unknown]));
    expect(
        &page,
        &["| `gremlins` | passed | 7 | acked **0**, cables bitten **1,000** | 12 s |"],
    );
}

#[test]
fn many_figures_get_a_table_and_each_memory_stands_beside_its_bound() {
    let figures = [
        ("floods_rss_bound_bytes", 96 << 20),
        ("floods_rss_peak_bytes", 61 << 20),
        ("floods_slow_ms", 900),
        ("floods_slow_rss_bound_bytes", 80 << 20),
        ("floods_slow_rss_peak_bytes", 12 << 20),
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("d", 4),
        ("e", 5),
        ("floods_acts", 17),
    ];
    let page = page(&results(Vec::new(), vec![trial("abuse", &figures)]));
    expect(
        &page,
        &[
            "| `abuse` | passed | 7 | 11 of them, below | 12 s |",
            "|  | acts | ms | rss bound bytes | rss peak bytes |",
            "| floods | 17 |  | 96 MiB | 61 MiB |",
            "| floods slow |  | 900 | 80 MiB | 12 MiB |",
            "| Figure |  |\n|---|---|\n| a | 1 |\n| b | 2 |",
        ],
    );
    let shown = "trial abuse`](../tests/crash/src/abuse.rs) | all its [figures](#figures) |";
    expect(&page, &[shown]);
}

#[test]
fn every_number_of_a_campaign_is_shown() {
    let page = page(&results(
        vec![section("kill"), section("power-xfs")],
        Vec::new(),
    ));
    expect(
        &page,
        &[
            "|  | `kill` | `power-xfs` |",
            "| Result | passed | passed |",
            "| Found | nothing | nothing |",
            "| Seeds | 7 to 8 | 7 to 8 |",
            "| rounds | 2 | 2 |\n| faults | 1,078 | 1,078 |\n",
            "| commits | 0 | 0 |",
            "| seconds | 90 | 90 |",
            "| start ms max | 40 | 40 |",
        ],
    );
}

#[test]
fn a_number_that_was_not_counted_yet_is_no_zero() {
    let results = results(vec![section("kill"), section("power-xfs")], Vec::new());
    let mut file = serde_json::to_value(&results).unwrap();
    let counts = file["sections"][0]["counts"].as_object_mut().unwrap();
    counts.remove("commits");
    counts.insert("gremlins".to_owned(), 4_000.into());
    let old = Published::parse(&file.to_string()).unwrap();
    let page = render(&old, &Words::default());
    expect(&page, &["| commits |  | 0 |", "| gremlins | 4,000 |  |"]);
}

#[test]
fn a_plot_is_shown_when_it_is_there() {
    let words = Words {
        intro: "# Durability\n\nSee [storage](../STORAGE.md).\n".to_owned(),
        has_plot: true,
        ..Words::default()
    };
    let with = render(&published(&results(Vec::new(), Vec::new())), &words);
    expect(
        &with,
        &["](durability/soak.svg)", "See [storage](STORAGE.md)."],
    );
    assert!(!page(&results(Vec::new(), Vec::new())).contains("soak.svg"));
}

#[test]
fn a_short_run_does_not_replace_a_long_one_and_plots_follow_their_results() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |length: &str| {
        let mut results = results(Vec::new(), Vec::new());
        results.length = length.to_owned();
        crate::results::write_json(&from.path().join("crash-results.json"), &results).unwrap();
    };
    let plots = [from.path().join(PLOT), to.path().join(PLOT)];
    for length in ["short", "short", "long"] {
        write(length);
        std::fs::write(&plots[0], "<svg/>").unwrap();
        publish(from.path(), to.path()).unwrap();
        assert!(plots[1].is_file());
    }
    write("short");
    let refused = publish(from.path(), to.path()).unwrap_err();
    assert!(matches!(refused, CrashError::Results(_)), "{refused}");
    assert!(Published::read(&to.path().join(RESULTS)).unwrap().is_long());
    write("long");
    std::fs::remove_file(&plots[0]).unwrap();
    publish(from.path(), to.path()).unwrap();
    assert!(!plots[1].is_file());
}

#[test]
fn what_was_run_alone_takes_the_place_of_what_failed_and_is_named() {
    let mut failed = trial("soak", &[("acked", 1)]);
    failed.status = Status::Failed;
    let mut results = results(vec![], vec![failed]);
    assert!(!results.is_passed());
    let repeated = Repeated {
        date: "2026-02-03T04:05:06Z".to_owned(),
        commit: "fedcba987654".to_owned(),
    };
    results.replace_trial(trial("soak", &[("acked", 4_567)]), repeated.clone());
    results.replace_trial(trial("new-one", &[("acked", 8)]), repeated);
    assert!(results.is_passed());
    assert_eq!(results.trials.len(), 2);
    let text = serde_json::to_string(&results).expect("it is JSON");
    let page = render(&Published::parse(&text).expect("it is"), &Words::default());
    expect(
        &page,
        &[
            "| `soak` | 2026-02-03T04:05:06Z | commit `fedcba987654` |",
            "4,567",
        ],
    );
}
