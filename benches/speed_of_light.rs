//! The machine's own limits, as a table: `cargo bench --bench speed_of_light -- [--dir DIR] [--json]`.
#![allow(missing_docs, reason = "a program has no callers")]

mod limits;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use limits::Fallible;
use limits::loopback::{self, RoundTrips};
use limits::read::{self, Reads};
use limits::write::{self, Target, Written};
use serde::Serialize;

#[derive(Parser)]
struct Args {
    /// Where files are written: the device that is measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// How long each shape is measured.
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Size of the file that is read.
    #[arg(long, default_value_t = 1024)]
    read_mib: u64,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Only whether it runs.
    #[arg(long, hide = true)]
    test: bool,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Everything {
    writes: Vec<Written>,
    /// MB a second, by the bytes of each write.
    stream: Vec<(usize, f64)>,
    fan_out_100: f64,
    round_trips: RoundTrips,
    reads: Reads,
}

const SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
const STREAM_SIZES: [usize; 2] = [64 << 10, 256 << 10];

fn main() -> Fallible<()> {
    let mut args = Args::parse();
    if args.test {
        (args.millis, args.read_mib) = (1, 1);
    }
    let length = Duration::from_millis(args.millis);
    std::fs::create_dir_all(&args.dir)?;
    let folder = tempfile::tempdir_in(&args.dir)?;
    let folder = folder.path();
    let shapes = write::shapes(&SIZES).into_iter();
    let writes = shapes.map(|shape| write::measure(folder, shape, length));
    let writes = writes.collect::<Fallible<Vec<_>>>()?;
    let streams = STREAM_SIZES.map(|bytes| Ok((bytes, loopback::stream(bytes, length)?)));
    let stream = streams.into_iter().collect::<Fallible<Vec<_>>>()?;
    let fan_out_100 = loopback::fan_out(100, length)?;
    let round_trips = loopback::round_trips(length * 2)?;
    let path = read::create(folder, args.read_mib << 20)?;
    let everything = Everything {
        writes,
        stream,
        fan_out_100,
        round_trips,
        reads: read::measure(folder, &[path])?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&everything)?);
    } else {
        everything.print();
    }
    Ok(())
}

impl Everything {
    fn print(&self) {
        println!("| write and sync | into a file that | through | p50 us | p99 us | MB/s |");
        println!("|---|---|---|---|---|---|");
        for Written { shape, summary } in &self.writes {
            let into = match shape.target {
                Target::Growing => "grows",
                Target::Reserved => "has blocks set aside",
                Target::Written => "was written before",
            };
            let through = if shape.is_direct { "O_DIRECT" } else { "cache" };
            println!(
                "| {} KiB | {into} | {through} | {:.0} | {:.0} | {:.0} |",
                shape.bytes >> 10,
                summary.p50_us,
                summary.p99_us,
                summary.mb_per_s
            );
        }
        println!("\n| loopback | MB/s | p50 us | p99 us |\n|---|---|---|---|");
        for (bytes, rate) in &self.stream {
            println!("| one stream, {} KiB | {rate:.0} | | |", bytes >> 10);
        }
        println!(
            "| one to 100, best of 8 to 256 KiB | {:.0} | | |",
            self.fan_out_100
        );
        let trips = [
            ("blocking", self.round_trips.blocking),
            ("tokio", self.round_trips.tokio),
        ];
        for (name, trip) in trips {
            println!(
                "| 100 B there and back, {name} | | {:.0} | {:.0} |",
                trip.p50_us, trip.p99_us
            );
        }
        let reads = &self.reads;
        println!("\n| sequential read | MB/s |\n|---|---|");
        println!("| page cache | {:.0} |", reads.hot);
        println!("| cold, through the cache | {:.0} |", reads.cold);
        println!("| cold, O_DIRECT | {:.0} |", reads.cold_direct);
        println!("| cold, O_DIRECT, huge page | {:.0} |", reads.cold_huge);
        if !reads.is_all_dropped {
            println!("\nWithout root only the pages of the file that is read were dropped.");
        }
    }
}
