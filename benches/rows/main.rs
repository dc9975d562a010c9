//! The targets of speed, each measured beside the machine's own limit, in the same run:
//! `cargo bench --bench rows -- [ROW...] [--seconds N] [--json FILE] [--write]`.
//!
//! Owns what each row is and how it is judged. Promises: the broker is the release binary at default
//! settings, client and broker are processes of their own, and a limit is measured right beside each
//! figure that it is compared with. Must not know: the broker's inside, beyond what it tells operators.
#![allow(missing_docs, reason = "a program has no callers")]

mod broker;
mod delays;
mod growth;
mod limit;
#[path = "../limits/mod.rs"]
mod limits;
mod line;
mod load;
mod memory;
mod page;
mod process;
mod profile;
mod publishing;
mod reading;
mod starts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::broker::Broker;
use self::limits::Fallible;
use self::line::{HEAD, Line};
use self::load::Stage;

#[derive(Debug, Parser)]
struct Args {
    /// Numbers of the rows; none means those that take seconds: 1 to 10.
    rows: Vec<u8>,
    /// All rows, also those that write tens of gigabytes.
    #[arg(long)]
    all: bool,
    /// How long each load is measured, each of its rounds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How often; medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the figures go too, with those of every round.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the table into benches/README.md and the figures into benches/rows.json.
    #[arg(long)]
    write: bool,
    /// Another broker than the one just built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_falcon"))]
    program: PathBuf,
    /// Where data folders are made: the device that is measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Of the sizes of logs; for trying out.
    #[arg(long, default_value_t = 1.0, hide = true)]
    scale: f64,
    /// Only whether it runs.
    #[arg(long, hide = true)]
    test: bool,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row: its number, and what measures it on a broker.
type Measure = fn(&Stage, &mut Broker) -> Fallible<Vec<Line>>;
const LIGHT: [(u8, Measure); 10] = [
    (1, publishing::one_publisher),
    (2, publishing::kilobytes),
    (3, publishing::awaiting),
    (4, delays::acks),
    (5, delays::deliveries),
    (6, reading::hot),
    (7, reading::cold),
    (8, publishing::partitions),
    (9, reading::fan_out),
    (10, publishing::processor),
];
/// A row that needs space: its number, how many bytes, and what measures it.
const HEAVY: [(u8, f64, Measure); 4] = [
    (11, 25e9, memory::resident),
    (12, 15e9, publishing::written),
    (13, 14e9, starts::starts),
    (14, 14e9, growth::flatness),
];
/// Measured when nothing else is asked for.
const DEFAULT_ROWS: std::ops::RangeInclusive<u8> = 1..=10;
const ROWS: std::ops::RangeInclusive<u8> = 1..=14;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rows: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Fallible<()> {
    if args.test {
        (args.rows, args.seconds, args.rounds) = (vec![4], 0.1, 1);
    }
    if args.all {
        args.rows = ROWS.collect();
    } else if args.rows.is_empty() {
        args.rows = DEFAULT_ROWS.collect();
    }
    std::fs::create_dir_all(&args.dir)?;
    let folder = tempfile::tempdir_in(&args.dir)?;
    let stage = Stage {
        program: args.program.clone(),
        folder: folder.path().to_path_buf(),
        length: Duration::from_secs_f64(args.seconds),
        rounds: args.rounds.max(1),
        scale: args.scale,
    };
    println!("{HEAD}");
    let mut lines = Vec::new();
    for row in args.rows {
        let measured = measure(&stage, row).map_err(|error| format!("row {row}: {error}"))?;
        for line in &measured {
            println!("{line}");
        }
        lines.extend(measured);
    }
    println!("\n{}", page::notes(&lines));
    if args.write || args.json.is_some() {
        let source = page::source(&stage)?;
        for line in &mut lines {
            line.source = source.clone();
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&lines)?)?;
    }
    if args.write {
        page::write(lines, folder.path())?;
    }
    Ok(())
}

fn measure(stage: &Stage, row: u8) -> Fallible<Vec<Line>> {
    if let Some((_, measure)) = LIGHT.iter().find(|(number, _)| *number == row) {
        return measure(stage, &mut stage.fresh()?);
    }
    let heavy = HEAVY.iter().find(|(number, ..)| *number == row);
    let (_, bytes, measure) = heavy.ok_or("there is no such row")?;
    let (need, free) = (stage.bytes(*bytes), stage.free_bytes()?);
    if free < need {
        let (need, free) = (need / 1e9, free / 1e9);
        eprintln!("row {row} is left out: it needs {need:.0} GB, {free:.0} GB are free");
        return Ok(Vec::new());
    }
    measure(stage, &mut stage.fresh()?)
}
