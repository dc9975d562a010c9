//! SIGKILL under load, judged by what clients saw. Many more cycles, power cuts: `tests/crash/run`.

use std::path::PathBuf;

use falcon_crash::checker::Violation;
use falcon_crash::kill;
use falcon_crash::round::{RoundOptions, RoundReport};

fn run(seed: u64, cycles: u32, is_control: bool) -> RoundReport {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = RoundOptions {
        program: PathBuf::from(env!("CARGO_BIN_EXE_falcon")),
        folder: folder.path().to_path_buf(),
        seed,
        cycles,
        work_ms_max: 300,
        retention_bytes: None,
        environment: Vec::new(),
    };
    let report = kill::run(&options, is_control).expect("the round can be run");
    eprintln!("replay: tests/crash/run kill --seed {seed} --cycles {cycles}");
    eprintln!("{report:#?}");
    report
}

#[test]
fn nothing_acknowledged_is_lost_when_brokers_are_killed_under_load() {
    let report = run(7, 10, false);
    assert!(report.is_clean());
    assert!(report.verdict.counts.acked > 100, "too little to tell");
}

#[test]
fn the_judge_notices_acknowledged_records_that_vanish() {
    let report = run(7, 3, true);
    assert!(report.verdict.count(Violation::Lost) > 0);
}
